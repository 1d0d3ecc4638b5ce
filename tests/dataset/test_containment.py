"""Passages that contain each other: found, counted, kept on one side of a split and counted once by metrics."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_ft import Passage, QADataset, Query
from rag_ft.dataset.overlap import made_of_smaller, measure_overlap, shared_end
from rag_ft.dataset.splitting import split_questions
from rag_ft.dataset.text.containment import Containment
from rag_ft.dataset.text.embedded_metadata import keys_without_content
from rag_ft.evaluation.metrics import metrics_per_query

THINGS = ["anchor", "buoy", "crane", "derrick", "gauge", "hoist", "lamp", "mast", "quay", "rope"]
WORDS = st.lists(st.sampled_from(THINGS), min_size=4, max_size=9)


@given(before=WORDS, text=WORDS, after=WORDS)
def test_a_text_is_found_in_what_contains_it(before: list[str], text: list[str], after: list[str]) -> None:
    inside = " ".join(text)
    texts = {"large": " ".join([*before, *text, *after]), "other": "Nothing of the kind is said here."}
    found = Containment(texts).holding(inside)
    assert found == ["large"]


@given(parts=st.lists(WORDS, min_size=3, max_size=3))
def test_the_shared_end_is_the_overlap(parts: list[list[str]]) -> None:
    first, shared, last = (" ".join(part) for part in parts)
    end = shared_end(f"{first} {shared}", f"{shared} {last}")
    assert f"{first} {shared}".endswith(end)
    assert f"{shared} {last}".startswith(end)
    assert len(end) >= len(shared)


def overlapping(documents: int = 20, chunks: int = 8) -> QADataset:
    """Documents of sentences, cut into chunks of four sentences of which two are shared with the next."""
    passages, queries, qrels = {}, {}, {}
    for document in range(documents):
        sentences = [
            f"Sentence {document}x{n} tells what keeper {document * 100 + n} signs." for n in range(2 * chunks + 2)
        ]
        for chunk in range(chunks):
            key = f"d{document}#{chunk}"
            passages[key] = Passage(key, " ".join(sentences[2 * chunk : 2 * chunk + 4]), doc_id=f"d{document}")
        for n, sentence in enumerate(sentences):
            query = f"q{document}x{n}"
            holders = [key for key, passage in passages.items() if sentence in passage.text]
            queries[query] = Query(query, f"What does keeper {document * 100 + n} sign {n * 7919}?", one_answer=True)
            qrels[query] = dict.fromkeys(holders, 1)
    return QADataset(passages, queries, {"all": qrels})


def test_no_answer_stands_on_both_sides_of_a_split() -> None:
    dataset = overlapping()
    splits = split_questions(dataset, dataset.qrels["all"])
    held_out = {key for name in ("dev", "test") for grades in splits[name].values() for key in grades}
    trained = {key for grades in splits["train"].values() for key in grades}
    assert not held_out & trained
    assert all(splits[name] for name in ("train", "dev", "test"))
    kept = sum(map(len, splits.values()))
    assert kept > 0.85 * len(dataset.queries)  # only at the ends of the runs


@pytest.mark.parametrize("seed", [1, 2])
def test_a_split_does_not_depend_on_order_and_ids(seed: int) -> None:
    dataset = overlapping()
    draw = random.Random(seed)
    new_id = {key: f"{draw.getrandbits(64):x}" for key in dataset.passages}
    documents = sorted(dataset.documents)
    draw.shuffle(documents)
    passages = {
        new_id[key]: Passage(new_id[key], dataset.passages[key].text, doc_id=document)
        for document in documents
        for key in dataset.documents[document]
    }
    qrels = {query: {new_id[key]: 1 for key in grades} for query, grades in dataset.qrels["all"].items()}
    other = QADataset(passages, dataset.queries, {"all": qrels})
    one, two = split_questions(dataset, dataset.qrels["all"]), split_questions(other, qrels)
    assert {name: set(part) for name, part in one.items()} == {name: set(part) for name, part in two.items()}


def test_overlap_and_larger_passages_are_measured() -> None:
    assert measure_overlap(overlapping()).repeated == pytest.approx(7 / 16, abs=0.02)
    plain = QADataset(
        {f"p{n}": Passage(f"p{n}", f"Sentence {n} tells what keeper {n} signs.") for n in range(9)}, {}, {}
    )
    assert (measure_overlap(plain).repeated, measure_overlap(plain).contained) == (0, 0)
    parts = {f"p{n}": Passage(f"p{n}", f"Keeper {n * 7919} of quay {n * 104729} signs form {n}.") for n in range(4)}
    nested = QADataset(parts | {"all": Passage("all", " ".join(part.text for part in parts.values()))}, {}, {})
    assert measure_overlap(nested).contained == pytest.approx(4 / 5)
    assert made_of_smaller(nested) == {"all"}
    assert "index the smallest only" in next(measure_overlap(nested).warnings())


def test_a_passage_that_contains_the_answer_is_no_negative() -> None:
    passages = {
        "small": Passage("small", "Leave is booked in HELM by noon."),
        "large": Passage("large", "Badges open the doors at night. Leave is booked in HELM by noon."),
        "other": Passage("other", "The steward signs each form."),
    }
    dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"train": {"q": {"small": 1}}})
    assert dataset.answering_passages("q", ["small"]) == ["small", "large"]


def test_copies_of_one_answer_count_once() -> None:
    qrels = {"q": {"a": 2, "b": 1, "c": 1}}
    metrics = ["ndcg@10", "mrr@10", "recall@10", "map@10", "hit_rate@1"]
    for ranking, value in ((["a", "x"], 1.0), (["x", "c", "a"], 0.5)):
        found = metrics_per_query({"q": ranking}, qrels, metrics, one_answer={"q"})
        assert found["mrr@10"] == found["map@10"] == value
        assert found["recall@10"] == 1
    ndcg = metrics_per_query({"q": ["x", "c", "a"]}, qrels, ["ndcg@10"], one_answer={"q"})["ndcg@10"]
    assert ndcg == pytest.approx(0.6309, abs=1e-4)
    # With judgements of people, trec_eval's nDCG is kept.
    assert metrics_per_query({"q": ["a", "x"]}, qrels, ["ndcg@10"])["ndcg@10"] < 1


@pytest.mark.parametrize(
    ("line", "is_content"),
    [
        ("file_path: /home/ann/leave.pdf", False),
        ("source: C:\\Users\\ann\\leave.pdf", False),
        ("file_size: 2048", False),
        ("last_modified_date: 2024-05-01", False),
        ("doc_id: 7", False),
        ("key: 2f1c3b1e-9a55-4f6a-8a8b-0d9a9f1f2a33", False),
        ("fetched: 2024-05-01T10:00:00Z", False),
        ("author: Ann Smith", True),
        ("date: 2024-05-01", True),
        ("page_label: 3", True),
        ("topic: and/or", True),
    ],
)
def test_metadata_that_is_no_content(line: str, is_content: bool) -> None:
    passage = Passage("p", f"{line}\n\nLeave is booked in HELM.", content="Leave is booked in HELM.")
    assert bool(keys_without_content([passage])) is not is_content
