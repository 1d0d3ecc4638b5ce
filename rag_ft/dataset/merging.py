"""Merge an earlier dataset with a later one, to train on both without forgetting or leaks."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TypeVar

from rag_ft.dataset.qa_dataset import QADataset, Qrels
from rag_ft.errors import InputError

T = TypeVar("T")

EARLIER_PREFIX = "earlier:"
"""Prefix for an id of the earlier dataset that the later one uses for another question or passage."""

REPLAY_ALL = 0.999
"""The `replay` that keeps all questions of the earlier dataset."""


def merge_datasets(earlier: QADataset, later: QADataset, replay: float = 0.3, seed: int = 0) -> QADataset:
    """Merge two datasets: all of the later one, and dev, test and a sample of the training questions of the earlier.

    Duplicates (the same id and text, or passages with the same text and document) are merged. A training question that
    nearly repeats a dev or test question is left out, and so is a dev question that nearly repeats a test question.

    Args:
        earlier: the dataset of the earlier training.
        later: the dataset of the new training.
        replay: fraction of all training questions that come from the earlier dataset, and the same for scored pairs;
            less if there are not enough.
        seed: seeds the random choice of earlier questions.

    Returns:
        The merged dataset. Its `info["earlier_questions"]` lists the questions that only the earlier dataset has.

    Raises:
        InputError: if replay is not from 0 to less than 1.

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
        raise InputError(f"replay is {replay:g}: pass a fraction from 0 to less than 1")
    earlier = _with_free_ids(earlier, later)
    train = later.qrels.get("train", {})
    only_earlier = {query: grades for query, grades in earlier.qrels.get("train", {}).items() if query not in train}
    replayed = set(_sample(sorted(only_earlier), len(train), replay, seed))
    earlier_qrels = earlier.qrels | {"train": {key: only_earlier[key] for key in only_earlier if key in replayed}}
    splits = dict.fromkeys([*later.qrels, *earlier_qrels])
    merged = QADataset(
        earlier.passages | later.passages,
        earlier.queries | later.queries,
        {split: earlier_qrels.get(split, {}) | later.qrels.get(split, {}) for split in splits},
        negatives={query: earlier.negatives[query] for query in earlier.negatives if query in replayed}
        | later.negatives,
        scored_pairs=_sample(earlier.scored_pairs, len(later.scored_pairs), replay, seed) + later.scored_pairs,
        negative_sources={
            query: sources
            for query, sources in earlier.negative_sources.items()
            if query in replayed and query not in later.negatives
        }
        | later.negative_sources,
    )
    merged = merged.with_qrels(_with_holders(merged))
    merged = merged.with_qrels(_without_leaks(merged))
    later_ids = {query for qrels in later.qrels.values() for query in qrels}
    earlier_ids = [query for qrels in merged.qrels.values() for query in qrels if query not in later_ids]
    earlier_ids += later.info.get("earlier_questions", ())  # of an even earlier dataset
    return merged.with_info(later.info | {"earlier_questions": list(dict.fromkeys(earlier_ids))})


def _with_holders(dataset: QADataset) -> dict[str, Qrels]:
    """Add the passages of the other corpus that hold the answer: documents may have been cut anew."""

    def extended(query: str, relevant: dict[str, int]) -> dict[str, int]:
        if not dataset.queries[query].one_answer:
            return relevant
        return relevant | {key: 1 for key in dataset.answering_passages(query, relevant) if key not in relevant}

    return {
        split: {query: extended(query, relevant) for query, relevant in qrels.items()}
        for split, qrels in dataset.qrels.items()
    }


def _with_free_ids(earlier: QADataset, later: QADataset) -> QADataset:
    """Rename the questions and passages whose id the later dataset uses for another text."""
    later_id = {(passage.text, passage.doc_id): key for key, passage in later.passages.items()}
    passage_id = {}
    for key, passage in earlier.passages.items():
        if key in later.passages and later.passages[key].text == passage.text:
            passage_id[key] = key
        else:
            # The ids of table rows are numbers, so passages are the same if text and document are.
            passage_id[key] = later_id.get((passage.text, passage.doc_id)) or _free_id(
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
        negatives={query_id[query]: [passage_id[key] for key in keys] for query, keys in earlier.negatives.items()},
        scored_pairs=earlier.scored_pairs,
        negative_sources={query_id[query]: renamed(sources) for query, sources in earlier.negative_sources.items()},
    )


def _free_id(key: str, later: Container[str], earlier: Container[str]) -> str:
    """Return an id that neither dataset uses for another text. Each may itself be a merged dataset."""
    new = key
    while new in later or (new != key and new in earlier):
        new = EARLIER_PREFIX + new
    return new


def _sample(items: Sequence[T], later: int, replay: float, seed: int) -> list[T]:
    """Sample items so that they are the `replay` fraction of all, in their order; all if there are no later ones."""
    count = min(len(items), round(later * replay / (1 - replay))) if later else len(items)
    return [items[position] for position in sorted(random.Random(seed).sample(range(len(items)), count))]


def _without_leaks(dataset: QADataset) -> dict[str, Qrels]:
    """Drop train questions that nearly repeat a dev or test question, and dev questions that repeat a test question."""
    qrels = dict(dataset.qrels)
    group = dataset.near_duplicate_queries(dict.fromkeys(query for grades in qrels.values() for query in grades))
    held_out: set[int] = set()
    for split in ("test", "dev", "train"):
        if split in qrels:
            qrels[split] = {q: grades for q, grades in qrels[split].items() if group[q] not in held_out}
            held_out |= {group[query] for query in qrels[split]}
    return qrels
