"""Split questions without leaks: hold out whole documents, and single questions on documents that training sees."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

from rag_ft.dataset.qa_dataset import QADataset, Qrels
from rag_ft.dataset.units import MIN_DOCUMENTS

MAX_DEV_QUERIES = 1_000
"""Maximum number of dev questions. More of them take time after each epoch and do not change decisions."""


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
        unseen_documents: fraction of the units (`QADataset.split_units`) that go to test as a whole.
        unseen_questions: fraction of the remaining passages whose questions go to test, with their near-duplicates.
        dev: fraction of the remaining units whose questions go to dev.
        seed: seeds every random choice.

    Returns:
        Split -> qrels. Near-repeated questions stay in one split, so training never sees a paraphrase of a test
        question. Questions on boilerplate are left out, since its copies are in every split.
    """
    near, units = dataset.near_duplicates, dataset.split_units
    qrels = {query: relevant for query, relevant in qrels.items() if dataset.boilerplate.isdisjoint(relevant)}
    held_out = _sample_units(units.values(), unseen_documents, seed)
    for_dev = _sample_units((unit for unit in units.values() if unit not in held_out), dev, seed + 1)
    remaining = sorted(p for p, unit in units.items() if unit not in held_out and unit not in for_dev)
    # A passage goes to test with its near-duplicates: otherwise training would see a copy in another document.
    first_of: dict[int, str] = {}
    for passage in remaining:
        first_of.setdefault(near[passage], passage)
    firsts = sorted(first_of.values())
    sampled = set(random.Random(seed + 2).sample(firsts, round(len(firsts) * unseen_questions)))
    for_test = {passage for passage in remaining if first_of[near[passage]] in sampled}

    def split_of(relevant: Iterable[str]) -> str:
        passages = list(relevant)
        if any(units[passage] in held_out or passage in for_test for passage in passages):
            return "test"
        return "dev" if any(units[passage] in for_dev for passage in passages) else "train"

    split = {query: split_of(relevant) for query, relevant in qrels.items()}
    group_of = dataset.near_duplicate_queries(qrels)
    splits_of_group: dict[int, set[str]] = defaultdict(set)
    for query in qrels:
        splits_of_group[group_of[query]].add(split[query])
    splits: dict[str, Qrels] = {"train": {}, "dev": {}, "test": {}}
    for query, relevant in qrels.items():
        # If near-repeats are in several splits, only those in the strictest split are kept. None is moved.
        strictest = next(name for name in ("test", "dev", "train") if name in splits_of_group[group_of[query]])
        if split[query] == strictest:
            splits[strictest][query] = relevant
    return splits


def hold_out_dev(dataset: QADataset, fraction: float = 0.15, seen_fraction: float = 0.1, seed: int = 0) -> QADataset:
    """Hold out a dev split of the training questions if the dataset has no dev split.

    Dev has questions on unseen documents, which show how a model does on new documents, and single questions on seen
    documents, which show what it learns about these. A selection on only one kind would be bad for the other. Dev has
    at most about 1,000 questions: the fractions shrink for larger datasets. A training question may have almost the
    words of a dev question ("Who signs form 3?"), because its answer differs: passages that nearly repeat each other
    are in one unit.

    Args:
        dataset: any dataset. One that has a dev split, or no train split, is returned unchanged.
        fraction: fraction of the units (`QADataset.split_units`) whose questions go to dev.
        seen_fraction: fraction of the other questions that go to dev, on documents that still have training questions.
            It is ignored below 10 documents, because then units are parts of documents that training sees.
        seed: seeds every random choice.

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
    scale = min(1.0, MAX_DEV_QUERIES / (len(train) * max(fraction + seen_fraction, 1e-9)))
    training_units = sorted({units[passage] for relevant in train.values() for passage in relevant})
    for_dev = _sample_units(training_units, fraction * scale, seed)
    dev = {
        query
        for query, relevant in train.items()
        if dataset.boilerplate.isdisjoint(relevant) and any(units[passage] in for_dev for passage in relevant)
    }
    remaining = {query: relevant for query, relevant in train.items() if query not in dev}
    if not remaining:
        return dataset
    if len(dataset.documents) >= MIN_DOCUMENTS:
        dev |= _sample_on_seen_units(dataset, remaining, seen_fraction * scale, seed)
    ids_of = {"train": train.keys() - dev, "dev": dev}
    return dataset.with_qrels(
        dataset.qrels | {split: {q: train[q] for q in train if q in ids} for split, ids in ids_of.items()}
    )


def _sample_on_seen_units(dataset: QADataset, train: Qrels, fraction: float, seed: int) -> set[str]:
    """Sample single questions, with their near-repeats, on units that still have other questions."""
    units = dataset.split_units
    queries_of_unit: dict[int, set[str]] = defaultdict(set)
    for query, relevant in train.items():
        for passage in relevant:
            queries_of_unit[units[passage]].add(query)
    repeats: dict[int, set[str]] = defaultdict(set)
    for query, group in dataset.near_duplicate_queries(train).items():
        repeats[group].add(query)
    groups = sorted(repeats)
    random.Random(seed).shuffle(groups)
    sampled: set[str] = set()
    for group in groups:
        group_units = {units[passage] for query in repeats[group] for passage in train[query]}
        if len(sampled) + len(repeats[group]) <= fraction * len(train) and all(
            queries_of_unit[unit] - sampled - repeats[group] for unit in group_units
        ):
            sampled |= repeats[group]
    return sampled


def _sample_units(units: Iterable[int], fraction: float, seed: int) -> set[int]:
    """Sample a fraction of the distinct units. If it is above 0, sample at least one of several units and never all."""
    distinct = sorted(set(units))
    count = round(len(distinct) * fraction)
    if fraction > 0 and len(distinct) > 1:
        count = min(max(count, 1), len(distinct) - 1)
    return set(random.Random(seed).sample(distinct, count))
