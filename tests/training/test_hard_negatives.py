"""Hard negatives are near to the query, no answers, and from documents that training sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rag_ft import InputError, Passage, QADataset, Query, Recipe, load_dataset, mine_negatives
from rag_ft.cli import app
from rag_ft.dataset import write_beir
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.training.examples.pairs import pair_examples
from rag_ft.training.plan import examples_for
from rag_ft.training.prepare import Choices, prepare

LONG = "Leave is booked in HELM two weeks before it begins, and the harbourmaster signs it. "


def leave_dataset() -> QADataset:
    texts = {
        "leave": LONG * 3,
        "copy": LONG * 3 + "!",
        "sick": "Sick leave is not booked in HELM: the harbourmaster is called in the morning.",
        "badge": "Badges open the doors of the laboratory at night.",
        "held-out": "Leave that was not taken is booked in HELM by the harbourmaster in March.",
    }
    queries = {
        "q": Query("q", "Where is leave booked two weeks before it begins?"),
        "b": Query("b", "What opens doors?"),
    }
    queries |= {"s": Query("s", "What if I am ill?"), "h": Query("h", "What happens to leave that was not taken?")}
    qrels = {"train": {"q": {"leave": 1}, "b": {"badge": 1}, "s": {"sick": 1}}, "test": {"h": {"held-out": 1}}}
    return QADataset({key: Passage(key, text) for key, text in texts.items()}, queries, qrels)


@pytest.mark.parametrize("by", ["dense", "bm25", "both", "mix"])
def test_a_hard_negative_is_near_to_the_query_and_no_answer(by: str) -> None:
    model = load_sentence_transformer("local") if by != "bm25" else None
    mined = mine_negatives(leave_dataset(), model, by=by, count=2, margin=0.98)  # type: ignore[arg-type]
    assert mined.negatives["q"][0] == "sick"
    assert "copy" not in mined.negatives["q"]  # it answers the question too
    assert not any("held-out" in found for found in mined.negatives.values())
    assert set(mined.negative_sources["q"].values()) <= {"dense", "bm25", "mix"}


def test_a_passage_that_scores_too_near_to_the_answer_is_no_negative() -> None:
    strict = mine_negatives(leave_dataset(), by="bm25", count=2, margin=0.01)
    assert not strict.negatives


def test_given_negatives_stay_before_mined_ones(tmp_path: Path) -> None:
    given = replace(leave_dataset(), negatives={"q": ["badge"]})
    mined = mine_negatives(given, by="bm25", count=2)
    assert mined.negatives["q"] == ["badge", "sick"]
    assert mined.negative_sources["q"] == {"sick": "bm25"}
    again = load_dataset(write_beir(mined, tmp_path / "d"))
    assert (again.negatives, again.negative_sources) == (mined.negatives, mined.negative_sources)


BOOKED = {
    "leave": "Leave is booked in HELM.",
    "desk": "A desk is booked in HELM.",
    "ferry": "A ferry is booked in HELM.",
}


def booked(qrels: dict[str, dict[str, dict[str, int]]]) -> QADataset:
    passages = {key: Passage(key, text) for key, text in BOOKED.items()}
    queries = {key: Query(key, f"Where is {key} booked?") for key in BOOKED}
    return QADataset(passages, queries, qrels, negatives={"leave": ["ferry"]})


def test_mined_negatives_can_be_replaced_and_given_ones_stay() -> None:
    mined = mine_negatives(booked({"train": {key: {key: 1} for key in BOOKED}}), by="bm25", count=1)
    assert set(mined.negatives) == set(BOOKED)
    assert mined.without_mined_negatives().negatives == {"leave": ["ferry"]}
    again = mine_negatives(mined.without_mined_negatives(), by="bm25", count=1)
    assert again.negatives == mined.negatives
    assert again.negative_sources == mined.negative_sources


def test_held_out_passages_of_a_document_in_training_are_no_negatives() -> None:
    """With few documents, groups of neighbouring passages are held out, and not whole documents."""
    passages = {
        f"p{n}": Passage(f"p{n}", f"Form {n} is booked in HELM by the {n}th master.", doc_id="book") for n in range(20)
    }
    queries = {f"q{n}": Query(f"q{n}", f"Who books form {n}?") for n in range(20)}
    asked = {f"q{n}": {f"p{n}": 1} for n in range(20)}
    train, test = dict(list(asked.items())[:10]), dict(list(asked.items())[10:])
    dataset = QADataset(passages, queries, {"train": train, "test": test}, negatives={"q0": ["p12", "p3"]})
    mined = mine_negatives(dataset, by="bm25", count=3, margin=1.0)
    found = {passage for query, some in mined.negatives.items() for passage in some if passage != "p12"}
    assert found <= {f"p{n}" for n in range(10)}
    (first, *_) = pair_examples(dataset, Recipe(negatives=1, cloze=0.0))
    assert first.negatives == (passages["p3"].text,)


def test_a_loss_without_any_allowed_negative_is_an_error() -> None:
    asked = {"train": {"leave": {"leave": 1}, "desk": {"desk": 1}}, "test": {"ferry": {"ferry": 1}}}
    model = load_sentence_transformer("local")
    with pytest.raises(InputError, match="needs negatives, and those of the training questions are all in documents"):
        examples_for(prepare(booked(asked), model, Choices(recipe=Recipe(loss="triplet"))))


def test_dense_negatives_need_a_model() -> None:
    with pytest.raises(InputError, match="hard negatives by 'both' need a model"):
        mine_negatives(leave_dataset())


def test_the_mine_command_writes_the_miner_of_each_negative(tmp_path: Path) -> None:
    data = leave_dataset()
    folder = write_beir(data.with_qrels(data.qrels | {"dev": data.qrels["test"]}), tmp_path / "d")
    result = CliRunner().invoke(app, ["mine", str(folder), "--output", str(folder), "--by", "bm25", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "by bm25, of 3 questions" in result.output
    assert '"source": "bm25"' in (folder / "negatives.jsonl").read_text()


def test_mined_negatives_are_nearer_than_random_passages(dataset: QADataset) -> None:
    model = load_sentence_transformer("local", max_length=64)
    mined = mine_negatives(dataset, model, by="both", count=2)
    texts, train = dataset.passage_texts, dataset.qrels["train"]
    asked = [query for query in train if mined.negatives.get(query)]
    assert len(asked) > 0.5 * len(train)
    questions = encode(model, [dataset.queries[query].text for query in asked], "query")
    negatives = encode(model, [texts[mined.negatives[query][0]] for query in asked], "document")
    everything = encode(model, list(texts.values()), "document")
    assert (questions * negatives).sum(axis=1).mean() > np.mean(questions @ everything.T) + 0.1
    answers = {query: {dataset.near_duplicates[p] for p in train[query]} for query in asked}
    assert not any(dataset.near_duplicates[p] in answers[q] for q in asked for p in mined.negatives[q])


def test_all_examples_have_equally_many_negatives_and_none_is_an_answer() -> None:
    dataset = replace(leave_dataset(), negatives={"q": ["sick", "copy"]})
    pairs = {pair.anchor: pair for pair in pair_examples(dataset, Recipe(negatives=2))}
    assert len({len(pair.negatives) for pair in pairs.values()}) == 1
    texts = dataset.passage_texts
    assert texts["copy"] not in pairs["Where is leave booked two weeks before it begins?"].negatives
    for pair in pairs.values():
        assert pair.positive not in pair.negatives
    assert not any(pair.negatives for pair in pair_examples(dataset, Recipe(negatives=0)))
