"""Split questions without leaks: hold out whole documents, and single questions on documents that training sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from rag_ft.dataset.qa_dataset import QADataset, Qrels, best_graded
from rag_ft.dataset.units import MIN_DOCUMENTS, PASSAGES_PER_UNIT
from rag_ft.files import sha256_of

T = TypeVar("T")

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
        question. Questions on boilerplate are left out, since its copies are in every split, and so is a question with
        one answer that stands in passages of several splits.
    """
    units = dataset.split_units
    qrels = {query: relevant for query, relevant in qrels.items() if dataset.boilerplate.isdisjoint(relevant)}
    held_out = _sample_units(dataset, units.values(), unseen_documents, seed)
    for_dev = _sample_units(dataset, (unit for unit in units.values() if unit not in held_out), dev, seed + 1)
    remaining = [p for p, unit in units.items() if unit not in held_out and unit not in for_dev]
    for_test = _sample_passages(dataset, qrels, remaining, unseen_questions, seed + 2)

    def split_of_passage(passage: str) -> str:
        if units[passage] in held_out or passage in for_test:
            return "test"
        return "dev" if units[passage] in for_dev else "train"

    def split_of(query: str) -> str:
        relevant = qrels[query]
        if dataset.queries[query].one_answer:
            # What training never uses as an answer, such as a larger passage, may be in another split.
            found = {split_of_passage(passage) for passage in best_graded(relevant)}
            return found.pop() if len(found) == 1 else ""
        found = {split_of_passage(passage) for passage in relevant}
        return next(name for name in ("test", "dev", "train") if name in found)

    split = {query: name for query in qrels if (name := split_of(query))}
    qrels = {query: qrels[query] for query in split}
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
    training_units = {units[passage] for relevant in train.values() for passage in relevant}
    for_dev = _sample_units(dataset, training_units, fraction * scale, seed)
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


def _sample_passages(dataset: QADataset, qrels: Qrels, passages: list[str], fraction: float, seed: int) -> set[str]:
    """Sample passages with their near-duplicates: otherwise training would see a copy in another document.

    Neighbours that hold the same answers, because they overlap, are sampled in runs of up to five. Alone, nearly each
    of their questions would also be answered in a passage of another split.
    """
    near = dataset.near_duplicates
    overlapping = {
        passage
        for query, relevant in qrels.items()
        if dataset.queries[query].one_answer and len(best := best_graded(relevant)) > 1
        for passage in best
        if any(near[passage] != near[other] for other in best)
    }
    runs: dict[str, list[str]] = {}
    before = ""
    for passage in passages:
        follows = before and {before, passage} <= overlapping and _document(dataset, before, passage)
        run = runs[before] if follows and len(runs[before]) < PASSAGES_PER_UNIT else []
        runs[passage] = run
        run.append(passage)
        before = passage
    first_of: dict[int, str] = {}
    for passage in passages:
        first_of.setdefault(near[passage], runs[passage][0])
    firsts = list(dict.fromkeys(first_of.values()))
    texts = dataset.passages
    sampled = set(draw(firsts, lambda passage: texts[passage].own_text, round(len(firsts) * fraction), seed))
    return {passage for passage in passages if first_of[near[passage]] in sampled}


def _document(dataset: QADataset, one: str, other: str) -> bool:
    return dataset.passages[one].document == dataset.passages[other].document


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
    first_texts = {group: min(dataset.queries[query].text for query in queries) for group, queries in repeats.items()}
    sampled: set[str] = set()
    for group in draw(repeats, first_texts.__getitem__, len(repeats), seed):
        group_units = {units[passage] for query in repeats[group] for passage in train[query]}
        if len(sampled) + len(repeats[group]) <= fraction * len(train) and all(
            queries_of_unit[unit] - sampled - repeats[group] for unit in group_units
        ):
            sampled |= repeats[group]
    return sampled


def _sample_units(dataset: QADataset, units: Iterable[int], fraction: float, seed: int) -> set[int]:
    """Sample a fraction of the distinct units. If it is above 0, sample at least one of several units and never all."""
    distinct = set(units)
    count = round(len(distinct) * fraction)
    if fraction > 0 and len(distinct) > 1:
        count = min(max(count, 1), len(distinct) - 1)
    return set(draw(distinct, dataset.unit_keys.__getitem__, count, seed))


def draw(items: Iterable[T], key: Callable[[T], str], count: int, seed: int) -> list[T]:
    """Draw items by a hash of their keys: the same keys are drawn in any order, and beside a few other items.

    Args:
        items: the items.
        key: returns the key of an item: what it says, not a random id.
        count: number of items to draw.
        seed: seeds the draw.

    Example:
        >>> from rag_ft.dataset.splitting import draw
        >>> draw(["leave", "badges", "pay"], str, 2, seed=0) == draw(["pay", "leave", "badges"], str, 2, seed=0)
        True
    """
    return sorted(items, key=lambda item: sha256_of(str(seed), key(item)))[:count]
