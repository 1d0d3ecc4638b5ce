"""An honest split: whole documents held out, and questions held out on documents that training sees."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping

from rag_ft.dataset.qa_dataset import QADataset, Qrels
from rag_ft.dataset.text.groups import joined
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups

FEW_DOCUMENTS = 10
"""Below this many documents a split by document is too coarse: groups of neighbouring passages are used."""

NEIGHBOURS = 5
"""Passages in a group of neighbours."""

BOILERPLATE = 5
"""A passage that nearly repeats in more documents than this (a disclaimer, a footer) joins no documents: else all of
them would be one, and none could be held out. Questions on it are not asked (see `boilerplate`)."""

MOST_DEV = 1_000
"""Dev questions that are asked at most: more cost time after each epoch, and decide nothing else."""


def split_units(dataset: QADataset) -> dict[str, int]:
    """Passage id -> the unit that stays on one side of a split, and is resampled as a whole.

    A unit is a document, or, below 10 documents, a group of 5 neighbouring passages. Units that share a
    near-duplicate passage are one, unless it is boilerplate.
    """
    groups = dataset.near_duplicates
    common = boilerplate(dataset)
    by_document = len(dataset.documents) >= FEW_DOCUMENTS
    unit_of: dict[str, int] = {}
    units = 0
    for passages in dataset.documents.values():
        for place, passage in enumerate(passages):
            if place == 0 or (not by_document and place % NEIGHBOURS == 0):
                units += 1
            unit_of[passage] = units - 1
    first_unit: dict[int, int] = {}
    shared = [
        (first_unit.setdefault(groups[passage], unit), unit)
        for passage, unit in unit_of.items()
        if passage not in common
    ]
    whole = joined(units, shared)
    return {passage: whole[unit] for passage, unit in unit_of.items()}


def boilerplate(dataset: QADataset) -> set[str]:
    """The passages that nearly repeat in more than 5 documents: nobody asks for one of them in particular."""
    documents: dict[int, set[str]] = defaultdict(set)
    for passage, group in dataset.near_duplicates.items():
        documents[group].add(dataset.passages[passage].document)
    return {passage for passage, group in dataset.near_duplicates.items() if len(documents[group]) > BOILERPLATE}


def split_questions(
    dataset: QADataset,
    qrels: Qrels,
    new_documents: float = 0.2,
    new_questions: float = 0.15,
    dev: float = 0.15,
    seed: int = 0,
) -> dict[str, Qrels]:
    """Split questions into train, dev and test with both kinds of held-out question.

    Args:
        dataset: the passages that the questions are about.
        qrels: all questions with their relevant passages.
        new_documents: share of the units (see `split_units`) that go to test wholly.
        new_questions: share of the passages of the others whose questions go to test, with their near-duplicates.
        dev: share of the units, of those that training may see, whose questions go to dev.
        seed: of the draw.

    Returns:
        Split -> qrels. Near-repeated questions stay in one split: a paraphrase of a test question is not
        trained on. Questions on boilerplate are left out: its copies stand on all sides.
    """
    near = dataset.near_duplicates
    units = split_units(dataset)
    common = boilerplate(dataset)
    qrels = {query: relevant for query, relevant in qrels.items() if common.isdisjoint(relevant)}
    held_out = _drawn(units.values(), new_documents, seed)
    for_dev = _drawn((unit for unit in units.values() if unit not in held_out), dev, seed + 1)
    rest = sorted(p for p, unit in units.items() if unit not in held_out and unit not in for_dev)
    # A passage goes to test with its near-duplicates: else its copy in another document would be trained on.
    first_of: dict[int, str] = {}
    for passage in rest:
        first_of.setdefault(near[passage], passage)
    firsts = sorted(first_of.values())
    drawn = set(random.Random(seed + 2).sample(firsts, round(len(firsts) * new_questions)))
    for_test = {passage for passage in rest if first_of[near[passage]] in drawn}

    def side(relevant: Iterable[str]) -> str:
        passages = list(relevant)
        if any(units[passage] in held_out or passage in for_test for passage in passages):
            return "test"
        return "dev" if any(units[passage] in for_dev for passage in passages) else "train"

    ids = list(qrels)
    groups = near_duplicate_groups([dataset.queries[query].text for query in ids])
    sides: dict[int, set[str]] = defaultdict(set)
    for query, group in zip(ids, groups, strict=True):
        sides[group].add(side(qrels[query]))
    splits: dict[str, Qrels] = {"train": {}, "dev": {}, "test": {}}
    for query, group in zip(ids, groups, strict=True):
        own = side(qrels[query])
        # A near-repeat on two sides: the copy that would leak into training is left out, nothing is moved.
        strictest = next(name for name in ("test", "dev", "train") if name in sides[group])
        if own == strictest:
            splits[own][query] = qrels[query]
    return splits


def hold_out_dev(dataset: QADataset, share: float = 0.15, known: float = 0.1, seed: int = 0) -> QADataset:
    """Take a dev split out of train where the dataset has none, with both kinds of held-out question.

    Questions on documents that training does not see tell what a model does with new documents; single questions on
    documents that it sees tell what it learns about these. Either alone would choose badly for the other. Of very many
    questions about 1,000 are enough, and the shares are smaller. A training question may be like one of dev in words,
    as those of a template are ("Who signs form 3?"), since it has another answer: passages that nearly repeat each
    other are of one unit.

    Args:
        dataset: any dataset with a train split; one that has a dev split comes back as it is.
        share: of the units (documents; below 10 documents groups of neighbouring passages).
        known: share of the other questions, whose documents training still asks about; none below 10 documents, where
            the groups' documents are known anyway.
        seed: of the draw.
    """
    if dataset.qrels.get("dev") or not dataset.qrels.get("train"):
        return dataset
    train = dataset.qrels["train"]
    few = min(1.0, MOST_DEV / (len(train) * max(share + known, 1e-9)))
    share, known = share * few, known * few
    units = split_units(dataset)
    asked = sorted({units[passage] for relevant in train.values() for passage in relevant})
    for_dev = _drawn(asked, share, seed)
    common = boilerplate(dataset)
    dev = {
        query: relevant
        for query, relevant in train.items()
        if common.isdisjoint(relevant) and any(units[passage] in for_dev for passage in relevant)
    }
    left = {query: relevant for query, relevant in train.items() if query not in dev}
    if not left:
        return dataset
    moved = _on_known(dataset, left, units, known, seed) if len(dataset.documents) >= FEW_DOCUMENTS else set()
    dev = {query: relevant for query, relevant in train.items() if query in dev or query in moved}
    left = {query: relevant for query, relevant in train.items() if query not in dev}
    return dataset.with_qrels(dataset.qrels | {"train": left, "dev": dev})


def _on_known(dataset: QADataset, train: Qrels, units: Mapping[str, int], share: float, seed: int) -> set[str]:
    """Single questions, with their near-repeats, on units that the other questions still ask about."""
    of_unit: dict[int, set[str]] = defaultdict(set)
    for query, relevant in train.items():
        for passage in relevant:
            of_unit[units[passage]].add(query)
    repeats: dict[int, set[str]] = defaultdict(set)
    groups = near_duplicate_groups([dataset.queries[query].text for query in train])
    for query, group in zip(train, groups, strict=True):
        repeats[group].add(query)
    drawn = sorted(repeats)
    random.Random(seed).shuffle(drawn)
    moved: set[str] = set()
    for group in drawn:
        asked = {units[passage] for query in repeats[group] for passage in train[query]}
        if len(moved) + len(repeats[group]) <= share * len(train) and all(
            of_unit[unit] - moved - repeats[group] for unit in asked
        ):
            moved |= repeats[group]
    return moved


def _drawn(units: Iterable[int], share: float, seed: int) -> set[int]:
    """A share of the distinct units, at random; at least one where there are two or more and share > 0."""
    distinct = sorted(set(units))
    count = round(len(distinct) * share)
    if share > 0 and len(distinct) > 1:
        count = min(max(count, 1), len(distinct) - 1)
    return set(random.Random(seed).sample(distinct, count))
