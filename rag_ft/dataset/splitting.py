"""Honest splits: whole documents held out, and single questions held out on documents that training sees."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

from rag_ft.dataset.qa_dataset import QADataset, Qrels
from rag_ft.dataset.units import MIN_DOCUMENTS

MAX_DEV_QUERIES = 1_000
"""Maximum number of dev questions. More cost time after each epoch and change no decision."""


def split_questions(
    dataset: QADataset,
    qrels: Qrels,
    unseen_documents: float = 0.2,
    unseen_questions: float = 0.15,
    dev: float = 0.15,
    seed: int = 0,
) -> dict[str, Qrels]:
    """Split questions into train, dev and test. Test has questions on seen and on unseen documents.

    Args:
        dataset: the passages that the questions are about.
        qrels: all questions with their relevant passages.
        unseen_documents: share of the units (`QADataset.split_units`) that go to test as a whole.
        unseen_questions: share of the remaining passages whose questions go to test, with their near-duplicates.
        dev: share of the remaining units whose questions go to dev.
        seed: seeds the random choice.

    Returns:
        Split -> qrels. Near-repeated questions stay in one split, so training never sees a paraphrase of a test
        question. Questions on boilerplate are left out, since its copies are in every split.
    """
    near, units = dataset.near_duplicates, dataset.split_units
    qrels = {query: relevant for query, relevant in qrels.items() if dataset.boilerplate.isdisjoint(relevant)}
    held_out = _sample_units(units.values(), unseen_documents, seed)
    for_dev = _sample_units((unit for unit in units.values() if unit not in held_out), dev, seed + 1)
    rest = sorted(p for p, unit in units.items() if unit not in held_out and unit not in for_dev)
    # A passage goes to test with its near-duplicates: else training would see its copy in another document.
    first_of: dict[int, str] = {}
    for passage in rest:
        first_of.setdefault(near[passage], passage)
    firsts = sorted(first_of.values())
    drawn = set(random.Random(seed + 2).sample(firsts, round(len(firsts) * unseen_questions)))
    for_test = {passage for passage in rest if first_of[near[passage]] in drawn}

    def split_of(relevant: Iterable[str]) -> str:
        passages = list(relevant)
        if any(units[passage] in held_out or passage in for_test for passage in passages):
            return "test"
        return "dev" if any(units[passage] in for_dev for passage in passages) else "train"

    split = {query: split_of(relevant) for query, relevant in qrels.items()}
    group = dataset.near_duplicate_queries(qrels)
    splits_of_group: dict[int, set[str]] = defaultdict(set)
    for query in qrels:
        splits_of_group[group[query]].add(split[query])
    splits: dict[str, Qrels] = {"train": {}, "dev": {}, "test": {}}
    for query, relevant in qrels.items():
        # Of near-repeats in several splits, those that would leak into training are left out. None is moved.
        strictest = next(name for name in ("test", "dev", "train") if name in splits_of_group[group[query]])
        if split[query] == strictest:
            splits[strictest][query] = relevant
    return splits


def hold_out_dev(dataset: QADataset, share: float = 0.15, seen: float = 0.1, seed: int = 0) -> QADataset:
    """Move a dev split out of train if the dataset has none.

    Dev has questions on unseen documents, which show how a model does on new documents, and single questions on seen
    documents, which show what it learns about these. A selection on only one of them would be bad for the other. Dev
    has about 1,000 questions at most; these fractions shrink for larger datasets. A training question may resemble a
    dev question in words, as those of a template do ("Who signs form 3?"), because it has another answer: passages that
    nearly repeat each other are in one unit.

    Args:
        dataset: any dataset. One that has a dev split, or no train split, is returned as it is.
        share: share of the units (`QADataset.split_units`) whose questions go to dev.
        seen: share of the other questions that go to dev, on documents that training still asks about. It is ignored
            below 10 documents, where the units are parts of documents that training sees anyway.
        seed: seeds the random choice.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset import hold_out_dev
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form {n * 7919} is signed by master {n}.") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Who signs {n * 7919}?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> hold_out_dev(dataset)
        QADataset(20 passages of 20 documents; questions: train 17, dev 3)
    """
    if dataset.qrels.get("dev") or not dataset.qrels.get("train"):
        return dataset
    train, units = dataset.qrels["train"], dataset.split_units
    scale = min(1.0, MAX_DEV_QUERIES / (len(train) * max(share + seen, 1e-9)))
    share, seen = share * scale, seen * scale
    asked = sorted({units[passage] for relevant in train.values() for passage in relevant})
    for_dev = _sample_units(asked, share, seed)
    dev = {
        query
        for query, relevant in train.items()
        if dataset.boilerplate.isdisjoint(relevant) and any(units[passage] in for_dev for passage in relevant)
    }
    rest = {query: relevant for query, relevant in train.items() if query not in dev}
    if not rest:
        return dataset
    if len(dataset.documents) >= MIN_DOCUMENTS:
        dev |= _sample_on_seen_units(dataset, rest, seen, seed)
    parts = {"train": train.keys() - dev, "dev": dev}
    return dataset.with_qrels(
        dataset.qrels | {name: {q: train[q] for q in train if q in part} for name, part in parts.items()}
    )


def _sample_on_seen_units(dataset: QADataset, train: Qrels, share: float, seed: int) -> set[str]:
    """Draw single questions, with their near-repeats, on units that the other questions still ask about."""
    units = dataset.split_units
    of_unit: dict[int, set[str]] = defaultdict(set)
    for query, relevant in train.items():
        for passage in relevant:
            of_unit[units[passage]].add(query)
    repeats: dict[int, set[str]] = defaultdict(set)
    for query, group in dataset.near_duplicate_queries(train).items():
        repeats[group].add(query)
    groups = sorted(repeats)
    random.Random(seed).shuffle(groups)
    drawn: set[str] = set()
    for group in groups:
        asked = {units[passage] for query in repeats[group] for passage in train[query]}
        if len(drawn) + len(repeats[group]) <= share * len(train) and all(
            of_unit[unit] - drawn - repeats[group] for unit in asked
        ):
            drawn |= repeats[group]
    return drawn


def _sample_units(units: Iterable[int], share: float, seed: int) -> set[int]:
    """Draw a share of the distinct units, but at least one and not all if there are two or more and share > 0."""
    distinct = sorted(set(units))
    count = round(len(distinct) * share)
    if share > 0 and len(distinct) > 1:
        count = min(max(count, 1), len(distinct) - 1)
    return set(random.Random(seed).sample(distinct, count))
