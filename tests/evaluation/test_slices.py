"""Slices of the questions: by held-out document and by traits, on the figures and in the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes.comparisons import compared, dataset_of, runs_of

from rag_ft import Passage, QADataset, Query
from rag_ft.evaluation import Comparison, Run, score_runs
from rag_ft.evaluation.question_notes import notes_on_questions
from rag_ft.evaluation.slices import held_out_slices, trait_slices


def test_seen_and_unseen_documents_are_slices_of_all_questions() -> None:
    dataset = dataset_of(30)
    slices = held_out_slices(dataset, "test")
    assert list(slices) == ["known", "new"]
    assert (slices["known"] ^ slices["new"]).all()
    seen = dataset.seen_queries("test")
    assert slices["known"].tolist() == [query in seen for query in dataset.qrels["test"]]


def test_questions_of_an_earlier_dataset_are_a_slice() -> None:
    dataset = dataset_of(30)
    earlier = list(dataset.qrels["test"])[:10]
    slices = held_out_slices(dataset.with_info({"earlier_questions": earlier}), "test")
    assert slices["earlier"].tolist() == [True] * 10 + [False] * (len(dataset.qrels["test"]) - 10)
    assert (slices["later"] == ~slices["earlier"]).all()


def test_truncated_passages_and_few_documents_are_slices() -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"Rule {n}.", doc_id=f"d{n % 2}") for n in range(60)}
    queries = {f"q{n}": Query(f"q{n}", f"What about {n}?") for n in range(60)}
    dataset = QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(60)}})
    slices = trait_slices(dataset, "test", truncated=[f"p{n}" for n in range(25)])
    assert slices["truncated passages"].sum() == 25
    assert slices["document d0"].tolist() == [n % 2 == 0 for n in range(60)]
    assert "truncated passages" not in trait_slices(dataset, "test", truncated=["p1"])


def test_words_for_people_and_keys_in_the_json(tmp_path: Path) -> None:
    comparison = compared(dataset_of(50))
    text = str(comparison)
    assert "new questions on seen documents" in text
    assert "unseen documents" in text
    file = comparison.save(tmp_path / "comparison.json")
    assert list(json.loads(file.read_text())["slices"]) == ["known", "new"]
    assert str(Comparison.load(file)) == text


def test_a_run_without_a_name_is_shown_by_its_role() -> None:
    dataset = dataset_of(20)
    rankings = [[next(iter(relevant))] for relevant in dataset.qrels["test"].values()]
    comparison = score_runs(dataset, "test", runs_of({"baseline": rankings, "candidate": rankings}))
    assert comparison.names == {"baseline": "baseline", "candidate": "candidate"}
    assert comparison.label("candidate") == "candidate"


@pytest.mark.parametrize("milliseconds", [4.0, 400.0])
def test_a_slow_candidate_is_for_people_to_decide(milliseconds: float) -> None:
    dataset = dataset_of(60)
    right = [[next(iter(relevant))] for relevant in dataset.qrels["test"].values()]
    runs = {
        "baseline": Run([[] for _ in right], details={"query_milliseconds": 1.0}),
        "candidate": Run(right, details={"query_milliseconds": milliseconds}),
    }
    comparison = score_runs(dataset, "test", runs)
    assert comparison.verdict == ("ship" if milliseconds < 5 else "inconclusive")
    assert np.isclose(comparison.differences["candidate"]["ndcg@10"].mean, 1.0)


def test_notes_say_how_many_questions_were_generated_or_are_also_in_train() -> None:
    queries = {"a": Query("a", "Where?", "sentence"), "b": Query("b", "When?", "human"), "c": Query("c", "where?")}
    dataset = QADataset(
        {"p": Passage("p", "So.")}, queries, {"test": {"a": {"p": 1}, "b": {"p": 1}}, "train": {"c": {"p": 1}}}
    )
    leaked, generated = notes_on_questions(dataset, "test")
    assert leaked.startswith("1 of 2 questions are also in train")
    assert generated.startswith("1 of 2 questions were generated (1 sentences)")
