"""Held-out documents and questions, and their near-duplicates, never reach training."""

import random
from collections import defaultdict
from dataclasses import dataclass

import pytest
from fakes.texts import WORDS, nearly
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft.dataset.qa_dataset import Passage, QADataset, Qrels, Query
from rag_ft.dataset.splitting import MAX_DEV_QUERIES, hold_out_dev, split_questions
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups


@dataclass(frozen=True)
class Corpus:
    """A dataset with known near-duplicates: ids with the same origin nearly repeat each other."""

    dataset: QADataset
    qrels: Qrels
    origin: dict[str, int]
    asked: dict[str, int]


def made_of(documents: int, passages: int, repeats: int, seed: int) -> Corpus:
    """Make a corpus with a number of documents, a maximum of passages in each, and a percentage of repeats."""
    draw = random.Random(seed)
    texts: list[str] = []
    questions: list[str] = []

    def new_or_near(seen: list[str], words: int, end: str) -> tuple[str, int]:
        if seen and draw.random() < repeats / 100:
            origin = draw.randrange(len(seen))
            return nearly(seen[origin], draw), origin
        seen.append(" ".join(draw.choices(WORDS, k=words)) + end)
        return seen[-1], len(seen) - 1

    corpus = Corpus(QADataset({}, {}, {}), {}, {}, {})
    keys = [(document, place) for document in range(documents) for place in range(draw.randint(1, passages))]
    draw.shuffle(keys)
    for document, place in keys:
        key = f"d{document}#{place}"
        text, corpus.origin[key] = new_or_near(texts, 60, ".")
        corpus.dataset.passages[key] = Passage(key, text, doc_id=f"d{document}")
        for _ in range(draw.randint(1, 2)):
            query = f"q{len(corpus.qrels)}"
            text, corpus.asked[query] = new_or_near(questions, 60, "?")
            corpus.dataset.queries[query] = Query(query, text)
            corpus.qrels[query] = {key: 1}
    return corpus


def corpora(fewest: int = 1) -> st.SearchStrategy[Corpus]:
    return st.builds(
        made_of,
        documents=st.integers(fewest, 40),
        passages=st.integers(1, 6),
        repeats=st.integers(0, 40),
        seed=st.integers(0, 10_000),
    )


@given(corpus=corpora(fewest=10), seed=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_no_passage_of_a_held_out_document_is_in_training(corpus: Corpus, seed: int) -> None:
    splits = split_questions(corpus.dataset, corpus.qrels, unseen_questions=0.0, seed=seed)
    dataset = corpus.dataset.with_qrels(splits)
    held_out = {p for name in dataset.documents_of(splits["test"], "test") for p in dataset.documents[name]}
    repeats = {corpus.origin[passage] for passage in held_out}
    for split in ("train", "dev"):
        for relevant in splits[split].values():
            assert not held_out & set(relevant)
            assert not repeats & {corpus.origin[passage] for passage in relevant}
    assert dataset.seen_queries("test") == set()


@given(corpus=corpora(), seed=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_neither_a_test_passage_nor_its_near_duplicate_is_in_training(corpus: Corpus, seed: int) -> None:
    splits = split_questions(corpus.dataset, corpus.qrels, seed=seed)
    tested = {corpus.origin[passage] for relevant in splits["test"].values() for passage in relevant}
    for split in ("train", "dev"):
        assert not tested & {corpus.origin[passage] for relevant in splits[split].values() for passage in relevant}


@given(corpus=corpora(), seed=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_neither_a_held_out_question_nor_its_near_duplicate_is_in_training(corpus: Corpus, seed: int) -> None:
    splits = split_questions(corpus.dataset, corpus.qrels, seed=seed)
    asked = {split: {corpus.asked[query] for query in part} for split, part in splits.items()}
    assert not asked["test"] & (asked["train"] | asked["dev"])
    assert not asked["dev"] & asked["train"]


@given(corpus=corpora(), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_every_question_is_in_at_most_one_split_with_all_its_passages(corpus: Corpus, seed: int) -> None:
    splits = split_questions(corpus.dataset, corpus.qrels, seed=seed)
    together = [query for part in splits.values() for query in part]
    assert len(together) == len(set(together))
    assert all(part[query] == corpus.qrels[query] for part in splits.values() for query in part)
    if len(set(corpus.asked.values())) == len(corpus.asked):
        assert set(together) == set(corpus.qrels)


@given(
    corpus=st.builds(
        made_of,
        documents=st.integers(30, 45),
        passages=st.integers(4, 6),
        repeats=st.integers(0, 3),
        seed=st.integers(0, 999),
    ),
    seed=st.integers(0, 50),
)
@settings(max_examples=30, deadline=None)
def test_a_corpus_of_30_documents_has_test_questions_on_seen_and_unseen_documents(corpus: Corpus, seed: int) -> None:
    splits = split_questions(corpus.dataset, corpus.qrels, seed=seed)
    seen = corpus.dataset.with_qrels(splits).seen_queries("test")
    assert seen
    assert set(splits["test"]) - seen
    assert splits["train"]
    assert splits["dev"]
    assert 0.1 < len(splits["test"]) / len(corpus.qrels) < 0.6


@given(corpus=corpora(), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_split(corpus: Corpus, seed: int) -> None:
    first = split_questions(corpus.dataset, corpus.qrels, seed=seed)
    assert first == split_questions(corpus.dataset, corpus.qrels, seed=seed)
    dataset = corpus.dataset.with_qrels({"train": first["train"]})
    assert hold_out_dev(dataset, seed=seed).qrels == hold_out_dev(dataset, seed=seed).qrels


def test_another_seed_gives_another_split() -> None:
    corpus = made_of(40, 3, 0, seed=1)
    splits = [split_questions(corpus.dataset, corpus.qrels, seed=seed)["test"] for seed in range(5)]
    assert len({tuple(part) for part in splits}) == 5


def test_a_question_with_passages_in_two_splits_is_held_out() -> None:
    corpus = made_of(40, 3, 0, seed=1)
    everywhere = {key: 1 for key in corpus.dataset.passages if key.endswith("#0")}
    queries = corpus.dataset.queries | {"all": Query("all", "what holds everywhere in this place and beyond it")}
    splits = split_questions(
        QADataset(corpus.dataset.passages, queries, {}), corpus.qrels | {"all": everywhere}, seed=0
    )
    assert splits["test"]["all"] == everywhere


@given(documents=st.integers(10, 40), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_dev_has_15_percent_of_the_documents_and_10_percent_of_the_other_questions(documents: int, seed: int) -> None:
    corpus = made_of(documents, 4, 0, seed)
    held_out = hold_out_dev(corpus.dataset.with_qrels({"train": corpus.qrels}), seed=seed)
    train, dev = held_out.qrels["train"], held_out.qrels["dev"]
    seen = held_out.seen_queries("dev")
    unseen = held_out.documents_of([query for query in dev if query not in seen], "dev")
    assert len(unseen) == max(1, round(0.15 * documents))
    assert not unseen & held_out.documents_of(train, "train")
    assert train | dev == corpus.qrels
    assert set(train).isdisjoint(dev)
    others = len(seen) + len(train)
    assert len(seen) <= 0.1 * others
    if documents >= 20:
        assert seen


@given(documents=st.integers(1, 9), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_below_10_documents_dev_has_groups_of_neighbours(documents: int, seed: int) -> None:
    passages = {
        f"d{document}#{place}": Passage(
            f"d{document}#{place}", " ".join(random.Random(f"{document} {place} {seed}").choices(WORDS, k=40)), "",
            f"d{document}",
        )
        for document in range(documents)
        for place in range(20)
    }  # fmt: skip
    queries = {f"q {key}": Query(f"q {key}", f"what is {key}") for key in passages}
    dataset = QADataset(passages, queries, {"train": {f"q {key}": {key: 1} for key in passages}})
    held_out = hold_out_dev(dataset, seed=seed)
    places: dict[tuple[str, int], set[int]] = defaultdict(set)
    for _, passage in held_out.pairs("dev"):
        document, place = passage.split("#")
        places[document, int(place) // 5].add(int(place) % 5)
    assert all(group == {0, 1, 2, 3, 4} for group in places.values())
    assert len(places) == max(1, round(0.15 * 4 * documents))


def test_questions_of_a_template_stay_in_training() -> None:
    corpus = made_of(100, 1, 0, seed=4)
    queries = {f"q{n}": Query(f"q{n}", f"Who signs form {n} and where is it kept?") for n in range(100)}
    qrels = {query: {passage: 1} for query, passage in zip(queries, corpus.dataset.passages, strict=True)}
    held_out = hold_out_dev(QADataset(corpus.dataset.passages, queries, {"train": qrels}))
    assert len(held_out.qrels["dev"]) >= 15
    assert len(held_out.qrels["train"]) >= 70


def test_dev_has_about_1000_questions_at_most() -> None:
    corpus = made_of(400, 1, 0, seed=5)
    queries = {f"{key} {n}": Query(f"{key} {n}", f"{n}?") for key in corpus.dataset.passages for n in range(12)}
    qrels = {query: {query.rsplit(" ", 1)[0]: 1} for query in queries}
    held_out = hold_out_dev(QADataset(corpus.dataset.passages, queries, {"train": qrels}))
    assert len(qrels) > 4 * MAX_DEV_QUERIES
    assert MAX_DEV_QUERIES / 2 < len(held_out.qrels["dev"]) <= 1.2 * MAX_DEV_QUERIES


def test_an_existing_dev_split_is_kept() -> None:
    corpus = made_of(20, 2, 0, seed=3)
    queries = list(corpus.qrels)
    qrels = {
        "train": {query: corpus.qrels[query] for query in queries[2:]},
        "dev": {query: corpus.qrels[query] for query in queries[:2]},
    }
    dataset = corpus.dataset.with_qrels(qrels)
    assert hold_out_dev(dataset) is dataset


def test_a_single_passage_stays_in_training() -> None:
    dataset = QADataset({"p": Passage("p", "text")}, {"q": Query("q", "what")}, {"train": {"q": {"p": 1}}})
    held_out = hold_out_dev(dataset)
    assert held_out.qrels["train"] == {"q": {"p": 1}}
    assert not held_out.qrels.get("dev")


def test_documents_that_share_a_passage_are_one_unit() -> None:
    passages = {
        f"d{document}#0": Passage(f"d{document}#0", " ".join(random.Random(document).choices(WORDS, k=40)), "",
                                  f"d{document}")
        for document in range(12)
    }  # fmt: skip
    passages["d3#1"] = Passage("d3#1", passages["d7#0"].text.upper() + "!", "", "d3")
    units = QADataset(passages, {}, {}).split_units
    assert units["d3#0"] == units["d3#1"] == units["d7#0"]
    assert len(set(units.values())) == 11


@pytest.mark.parametrize("texts", [[], [""], ["", "?!"], ["a", "b"], ["!", "a", "?"]])
def test_empty_texts_are_grouped_without_a_failure(texts: list[str]) -> None:
    groups = near_duplicate_groups(texts)
    assert len(groups) == len(texts)
    assert all(group <= place for place, group in enumerate(groups))
