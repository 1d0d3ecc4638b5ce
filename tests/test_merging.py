"""An earlier dataset and a later one: nothing lost, nothing leaked, and a share of the old questions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft import InputError, Passage, QADataset, Query, merge_datasets, train_model
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups

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


def test_a_share_of_the_old_questions_is_trained_on_again() -> None:
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


@pytest.mark.slow
def test_each_side_brings_its_own_dev(tmp_path: Path) -> None:
    def side(name: str, dev: bool) -> QADataset:
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

    first = train_model(side("old", True), tmp_path / "first", "local", max_length=32, epochs=1, shares=(1.0,))
    trained = train_model(
        side("new", False),
        tmp_path / "second",
        continue_from=first.folder,
        earlier=side("old", True),
        max_length=32,
        epochs=1,
        shares=(1.0,),
    )
    assert trained.record["training"]["dev_makings"] == {"earlier other": 6, "other": 6}
