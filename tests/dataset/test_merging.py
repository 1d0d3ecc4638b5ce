"""Merging an earlier and a later dataset: nothing is lost or leaked, and a share of earlier questions is replayed."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.comparisons import runs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rag_ft import InputError, Passage, QADataset, Query, train_model
from rag_ft.cli import app
from rag_ft.dataset import ScoredPair, merge_datasets, write_beir
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.text.sketch import hash_of
from rag_ft.evaluation import score_runs
from rag_ft.training.prepare import hold_out
from rag_ft.training.selection.dev_pairs import DevPairs
from rag_ft.training.selection.dev_set import DevQuestions

WORDS = ["harbour", "crane", "badge", "leave", "tide", "cargo", "quay", "night", "claim", "form", "mast", "rope"]


def drawn(seed: int, questions: int) -> QADataset:
    draw = random.Random(seed)
    passages = {f"p{n}": Passage(f"p{n}", " ".join(draw.choices(WORDS, k=20)), doc_id=f"d{n // 3}") for n in range(12)}
    queries = {f"q{n}": Query(f"q{n}", " ".join(draw.choices(WORDS[:6], k=3))) for n in range(questions)}
    qrels: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    for query in queries:
        qrels[draw.choice(["train", "train", "dev", "test"])][query] = {draw.choice(list(passages)): 1}
    return QADataset(passages, queries, qrels)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 40), st.floats(0, 0.9))
def test_a_merged_dataset_leaks_nothing(one: int, other: int, questions: int, replay: float) -> None:
    earlier, later = drawn(one, questions), drawn(other + 100, questions)
    merged = merge_datasets(earlier, later, replay)
    ids = [query for part in merged.qrels.values() for query in part]
    assert len(ids) == len(set(ids))
    texts = {split: [merged.queries[query].text for query in part] for split, part in merged.qrels.items()}
    for held_out, trains in (("test", "train"), ("dev", "train"), ("test", "dev")):
        groups = near_duplicate_groups(texts[held_out] + texts[trains])
        count = len(texts[held_out])
        assert not set(groups[:count]) & set(groups[count:])
    for part in merged.qrels.values():
        for query, grades in part.items():
            assert query in merged.queries
            assert grades.keys() <= merged.passages.keys()
    named = set(merged.info["earlier_questions"])
    asked_later = {query for part in later.qrels.values() for query in part}
    assert named == {query for query in ids if query not in asked_later}
    # A question still has the passage that it was asked about.
    for query in named:
        source = query.removeprefix("earlier:")
        before = next(part[source] for part in earlier.qrels.values() if source in part)
        now = next(part[query] for part in merged.qrels.values() if query in part)
        assert [earlier.passages[p].text for p in before] == [merged.passages[p].text for p in now]


def test_a_share_of_the_earlier_questions_is_replayed() -> None:
    def many(name: str) -> QADataset:
        passages = {
            f"{name}{n}": Passage(f"{name}{n}", f"{name} number {n} of the {n * 7} harbours") for n in range(100)
        }
        queries = {f"q{name}{n}": Query(f"q{name}{n}", f"which {name} has the number {n * 31}?") for n in range(100)}
        return QADataset(passages, queries, {"train": {f"q{name}{n}": {f"{name}{n}": 1} for n in range(100)}})

    merged = merge_datasets(many("old"), many("new"), replay=0.2)
    again = [query for query in merged.qrels["train"] if query.startswith("qold")]
    assert len(again) == 25
    assert len(merged.qrels["train"]) == 125
    with pytest.raises(InputError, match="replay is 1"):
        merge_datasets(many("old"), many("new"), replay=1)


def test_the_same_text_with_another_id_is_the_same_passage() -> None:
    def table(*texts: str) -> QADataset:
        passages = {f"p{n}": Passage(f"p{n}", text) for n, text in enumerate(texts)}
        queries = {f"q{n}": Query(f"q{n}", f"Who says: {text}") for n, text in enumerate(texts)}
        return QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(len(texts))}})

    merged = merge_datasets(
        table("Leave is booked.", "Cranes are greased."), table("Cranes are greased.", "Tides turn.")
    )
    assert sorted(passage.text for passage in merged.passages.values()) == [
        "Cranes are greased.", "Leave is booked.", "Tides turn.",
    ]  # fmt: skip
    asked = {merged.queries[query].text: list(found) for query, found in merged.qrels["test"].items()}
    assert asked["Who says: Cranes are greased."] == ["p0"]
    assert asked["Who says: Leave is booked."] == ["earlier:p0"]
    again = merge_datasets(table("Nothing is said."), merged)
    assert set(merged.info["earlier_questions"]) < set(again.info["earlier_questions"])
    assert again.queries["earlier:earlier:q0"].text == "Who says: Nothing is said."


def test_the_command_compares_on_earlier_questions_too(tmp_path: Path) -> None:
    def dataset_about(name: str) -> Path:
        passages = {f"{name}{n}": Passage(f"{name}{n}", f"{name} {n} stands at quay {n}") for n in range(30)}
        queries = {f"q{name}{n}": Query(f"q{name}{n}", f"where is {name} {n}?") for n in range(30)}
        rows = {f"q{name}{n}": {f"{name}{n}": 1} for n in range(30)}
        return write_beir(QADataset(passages, queries, {"test": rows}), tmp_path / name)

    arguments = [
        "compare",
        str(dataset_about("winch")),
        "--earlier",
        str(dataset_about("crane")),
        "--baseline",
        "bm25",
        "--candidate",
        "local",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "figures.json"), "--quiet"])
    assert done.exit_code == 0, done.output
    slices = json.loads((tmp_path / "figures.json").read_text())["slices"]
    assert (slices["earlier"]["queries"], slices["later"]["queries"]) == (30, 30)
    assert "earlier questions" in done.output


def test_mined_negatives_keep_their_source() -> None:
    one = drawn(1, 12)
    query = next(iter(one.qrels["train"]))
    other = next(passage for passage in one.passages if passage not in one.qrels["train"][query])
    mined = replace(one, negatives={query: [other]}, negative_sources={query: {other: "dense"}})
    merged = merge_datasets(mined, QADataset({}, {}, {}))
    assert merged.negative_sources == {query: {other: "dense"}}


def test_dev_has_no_question_that_the_model_was_trained_on() -> None:
    texts = [f"the {a} beside the {b}" for a in WORDS for b in WORDS if a != b]
    pairs = [ScoredPair(text, text, number % 2) for number, text in enumerate(texts)]
    earlier = QADataset({}, {}, {}, scored_pairs=pairs[:60])
    merged = merge_datasets(earlier, QADataset({}, {}, {}, scored_pairs=pairs[60:]), replay=0.3)
    assert len(merged.scored_pairs) == len(pairs[60:]) + round(len(pairs[60:]) * 0.3 / 0.7)
    seen = {hash_of(pair.query) for pair in pairs[:60]}
    dev, rest = hold_out(merged, True, 0, seen)
    assert isinstance(dev, DevPairs)
    assert not any(hash_of(pair.query) in seen for pair in dev.pairs)
    assert len(rest.scored_pairs) + len(dev.pairs) == len(merged.scored_pairs)

    one = drawn(3, 40)
    known = {hash_of(one.queries[query].text) for query in list(one.qrels["dev"])[:3]}
    found, without = hold_out(one, False, 0, known)
    assert isinstance(found, DevQuestions)
    assert 0 < len(found.query_ids) == len(without.qrels["dev"]) < len(one.qrels["dev"])
    assert not any(hash_of(text) in known for text in found.query_texts)


def test_a_comparison_reports_earlier_questions_separately() -> None:
    def dataset_about(name: str) -> QADataset:
        passages = {f"{name}{n}": Passage(f"{name}{n}", f"{name} {n} stands there") for n in range(60)}
        queries = {f"q{name}{n}": Query(f"q{name}{n}", f"where is the {name} of number {n}?") for n in range(60)}
        return QADataset(passages, queries, {"test": {f"q{name}{n}": {f"{name}{n}": 1} for n in range(60)}})

    merged = merge_datasets(dataset_about("crane"), dataset_about("winch"))
    right = [[next(iter(grades))] for grades in merged.qrels["test"].values()]
    wrong = ["winch0"]
    rankings = {
        "baseline": [[*(found if "crane" in found[0] else wrong)] for found in right],
        "candidate": [[*(found if "winch" in found[0] else wrong)] for found in right],
    }
    found = score_runs(merged, "test", runs_of(rankings))
    earlier, later = found.slices["earlier"], found.slices["later"]
    assert (earlier.queries, later.queries) == (60, 60)
    assert earlier.differences["candidate"].mean == -1.0
    assert later.differences["candidate"].mean > 0.9
    assert "earlier questions" in str(found)
    mostly = merged.with_qrels({"test": dict(list(merged.qrels["test"].items())[50:])})
    rankings = {role: lists[50:] for role, lists in rankings.items()}
    verdict = score_runs(mostly, "test", runs_of(rankings))
    assert verdict.verdict == "inconclusive"  # better in all, and worse on the ten earlier ones
    assert "fell on earlier questions" in verdict.reasons["candidate"]


@pytest.mark.slow
def test_each_dataset_brings_its_own_dev_split(tmp_path: Path) -> None:
    def dataset_about(name: str, dev: bool) -> QADataset:
        draw = random.Random(name)
        terms = ["".join(draw.choices(["ka", "lo", "mi", "ten", "ru", "sa", "vo", "pli"], k=5)) for _ in range(120)]
        passages = {
            f"{name}{n}": Passage(f"{name}{n}", f"The {terms[n]} is kept by {terms[n + 40]} at {terms[n + 80]}.")
            for n in range(40)
        }
        queries = {f"q{name}{n}": Query(f"q{name}{n}", f"{terms[n]} {terms[n + 80]}?") for n in range(40)}
        rows = {f"q{name}{n}": {f"{name}{n}": 1} for n in range(40)}
        held_out = dict(list(rows.items())[-6:]) if dev else {}
        train = {query: grades for query, grades in rows.items() if query not in held_out}
        return QADataset(passages, queries, {"train": train, **({"dev": held_out} if dev else {})})

    first = train_model(
        dataset_about("old", True), tmp_path / "first", "local", max_length=32, settings={"epochs": 1, "alphas": (1.0,)}
    )
    trained = train_model(
        dataset_about("new", False),
        tmp_path / "second",
        continue_from=first.folder,
        earlier=dataset_about("old", True),
        max_length=32,
        settings={"epochs": 1, "alphas": (1.0,)},
    )
    assert trained.record["training"]["dev_makings"] == {"earlier other": 6, "other": 6}
    apart = trained.record["training"]["dev_apart"]
    assert {kind: found["questions"] for kind, found in apart.items() if "document" not in kind} == {
        "earlier other": 6,
        "other": 6,
    }
    assert "| earlier other | 6 |" in (trained.folder / "README.md").read_text()
    assert "Tuned before, in this order: first" in (trained.folder / "README.md").read_text()
