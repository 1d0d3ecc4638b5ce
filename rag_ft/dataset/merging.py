"""Merge an earlier dataset with a later one, to train on both without forgetting and without leaks between them."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TypeVar

from rag_ft.dataset.qa_dataset import QADataset, Qrels
from rag_ft.errors import InputError

T = TypeVar("T")

EARLIER_PREFIX = "earlier:"
"""Prefix for an id of the earlier dataset that the later one uses for something else."""

REPLAY_ALL = 0.999
"""The `replay` that keeps all questions of the earlier dataset."""


def merge_datasets(earlier: QADataset, later: QADataset, replay: float = 0.3, seed: int = 0) -> QADataset:
    """Merge two datasets: all of the later one, and dev, test and a share of the training questions of the earlier one.

    What the two have in common (an id with the same text, a passage with the same text and document) appears once. A
    training question of one that nearly repeats a dev or test question of the other is left out, and so is a dev
    question that repeats a test question.

    Args:
        earlier: what a model was trained on.
        later: what it is trained on now.
        replay: share of the earlier questions in all training questions, and of the earlier scored pairs in all scored
            pairs; less if there are not enough.
        seed: seeds the random choice of earlier questions.

    Returns:
        A dataset whose `info["earlier_questions"]` names the questions that the later dataset does not have.

    Raises:
        InputError: if replay is not from 0 to below 1.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset.merging import merge_datasets
        >>> old = QADataset({"p": Passage("p", "A claim is a form.")}, {"q": Query("q", "What is a claim?")},
        ...                 {"test": {"q": {"p": 1}}})
        >>> new = QADataset({"p": Passage("p", "Leave is asked for.")}, {"q": Query("q", "How do I get leave?")},
        ...                 {"test": {"q": {"p": 1}}})
        >>> merged = merge_datasets(old, new)
        >>> merged, merged.info["earlier_questions"]
        (QADataset(2 passages of 2 documents; questions: test 2), ['earlier:q'])
    """
    if not 0 <= replay < 1:
        raise InputError(f"replay is {replay:g}: give a share from 0 to below 1")
    earlier = _with_free_ids(earlier, later)
    train = later.qrels.get("train", {})
    replayed = {query: grades for query, grades in earlier.qrels.get("train", {}).items() if query not in train}
    kept = set(_sample(sorted(replayed), len(train), replay, seed))
    before = earlier.qrels | {"train": {query: grades for query, grades in replayed.items() if query in kept}}
    splits = dict.fromkeys([*later.qrels, *before])
    merged = QADataset(
        earlier.passages | later.passages,
        earlier.queries | later.queries,
        {split: before.get(split, {}) | later.qrels.get(split, {}) for split in splits},
        negatives={query: earlier.negatives[query] for query in earlier.negatives if query in kept} | later.negatives,
        scored_pairs=_sample(earlier.scored_pairs, len(later.scored_pairs), replay, seed) + later.scored_pairs,
        negative_sources={
            query: sources
            for query, sources in earlier.negative_sources.items()
            if query in kept and query not in later.negatives
        }
        | later.negative_sources,
    )
    merged = merged.with_qrels(_without_leaks(merged))
    asked_later = {query for qrels in later.qrels.values() for query in qrels}
    names = [query for qrels in merged.qrels.values() for query in qrels if query not in asked_later]
    names += later.info.get("earlier_questions", ())  # of an even earlier dataset
    return merged.with_info(later.info | {"earlier_questions": list(dict.fromkeys(names))})


def _with_free_ids(earlier: QADataset, later: QADataset) -> QADataset:
    """Rename what has an id that the later dataset uses for something else."""
    same = {(passage.text, passage.doc_id): key for key, passage in later.passages.items()}
    passage_id = {}
    for key, passage in earlier.passages.items():
        if key in later.passages and later.passages[key].text == passage.text:
            passage_id[key] = key
        else:
            # Rows of a table have numbers for ids: the same text of the same document is the same passage.
            passage_id[key] = same.get((passage.text, passage.doc_id)) or _free_id(
                key, later.passages, earlier.passages
            )
    query_id = {
        key: key
        if key in later.queries and later.queries[key].text == query.text
        else _free_id(key, later.queries, earlier.queries)
        for key, query in earlier.queries.items()
    }

    def renamed(grades: dict[str, T]) -> dict[str, T]:
        return {passage_id[passage]: value for passage, value in grades.items()}

    return QADataset(
        {passage_id[key]: replace(passage, id=passage_id[key]) for key, passage in earlier.passages.items()},
        {query_id[key]: replace(query, id=query_id[key]) for key, query in earlier.queries.items()},
        {
            split: {query_id[query]: renamed(grades) for query, grades in qrels.items()}
            for split, qrels in earlier.qrels.items()
        },
        negatives={query_id[query]: [passage_id[p] for p in found] for query, found in earlier.negatives.items()},
        scored_pairs=earlier.scored_pairs,
        negative_sources={query_id[query]: renamed(sources) for query, sources in earlier.negative_sources.items()},
    )


def _free_id(key: str, later: Container[str], earlier: Container[str]) -> str:
    """Return an id that neither dataset uses for something else: each may be a merged one itself."""
    new = key
    while new in later or (new != key and new in earlier):
        new = EARLIER_PREFIX + new
    return new


def _sample(items: Sequence[T], later: int, replay: float, seed: int) -> list[T]:
    """Draw so many that they are the `replay` share beside the later ones, in their order; all if there are none."""
    count = min(len(items), round(later * replay / (1 - replay))) if later else len(items)
    return [items[place] for place in sorted(random.Random(seed).sample(range(len(items)), count))]


def _without_leaks(dataset: QADataset) -> dict[str, Qrels]:
    """Leave out of train what nearly repeats a question of dev or test, and out of dev what repeats one of test."""
    qrels = dict(dataset.qrels)
    group = dataset.near_duplicate_queries(dict.fromkeys(query for part in qrels.values() for query in part))
    held_out: set[int] = set()
    for split in ("test", "dev", "train"):
        if split in qrels:
            qrels[split] = {q: grades for q, grades in qrels[split].items() if group[q] not in held_out}
            held_out |= {group[query] for query in qrels[split]}
    return qrels
