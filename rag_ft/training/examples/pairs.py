"""Training examples from the train questions and the scored pairs of a dataset."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from rag_ft.dataset.qa_dataset import QADataset, ScoredPair
from rag_ft.dataset.text.cloze import without_copy
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.errors import InputError
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.recipe import Recipe

T = TypeVar("T")

SPARE_DRAWS = 10
"""Number of additional passages drawn as random negatives, in case some of them answer the query."""


def pair_examples(dataset: QADataset, recipe: Recipe, max_pairs: int | None = None) -> list[TrainingExample]:
    """Make an example of each pair of a training question and a relevant passage.

    If the question is a sentence of its passage, this sentence is usually removed from the passage (`Recipe.cloze`).

    Args:
        dataset: a dataset with a train split. If some questions have hard negatives, a question without one gets random
            passages, and is left out if too few passages answer other questions.
        recipe: the recipe; its `cloze`, `negatives` and `seed` are used.
        max_pairs: maximum number of pairs; more are sampled.
    """
    draw = random.Random(recipe.seed)
    pairs = _sample(dataset.pairs("train"), max_pairs, draw)
    texts, train = dataset.passage_texts, dataset.require("train")
    negatives_of: dict[str, list[str]] = {}
    if recipe.negatives and dataset.negatives:
        # Training must not push away passages of held-out documents.
        held_out, units = dataset.held_out_units, dataset.split_units
        negatives_of = {
            query: [p for p in dataset.negatives.get(query, []) if units[p] not in held_out] for query, _ in pairs
        }
    count = min(recipe.negatives, max(map(len, negatives_of.values()), default=0))
    answering = {
        query: dataset.answering_passages(query, train[query]) for query in dict.fromkeys(query for query, _ in pairs)
    }
    used = [*answering.values(), *negatives_of.values()]
    group = _near_duplicates(dataset.own_texts, [passage for passages in used for passage in passages])
    positives = list(dict.fromkeys(passage for _, passage in pairs))
    examples = []
    seen: set[tuple[str, int]] = set()
    for query_id, passage_id in pairs:
        # One of several near-duplicate passages is enough.
        if (query_id, group[passage_id]) in seen:
            continue
        seen.add((query_id, group[passage_id]))
        query, passage = dataset.queries[query_id].text, texts[passage_id]
        without_sentence = without_copy(query, passage)
        if without_sentence is not None and draw.random() < recipe.cloze:
            passage = without_sentence
        if not query.strip() or not passage.strip():
            continue
        answers: frozenset[object] = frozenset(group[answer] for answer in answering[query_id])
        negatives = [p for p in negatives_of.get(query_id, []) if group[p] not in answers and texts[p].strip()][:count]
        if missing := count - len(negatives):
            drawn = draw.sample(positives, min(len(positives), missing + SPARE_DRAWS))
            negatives += [p for p in drawn if group[p] not in answers][:missing]
        if len(negatives) == count:
            in_batch = frozenset([group[passage_id], *(group[p] for p in negatives)])
            examples.append(TrainingExample(query, passage, answers, tuple(texts[p] for p in negatives), in_batch))
    return examples


def scored_examples(
    pairs: Sequence[ScoredPair], binary: bool, max_pairs: int | None = None, seed: int = 0
) -> list[TrainingExample]:
    """Make an example of each scored pair.

    Args:
        pairs: scored pairs.
        binary: round the scores to 0 and 1, for a loss that needs binary labels.
        max_pairs: maximum number of pairs; more are sampled.
        seed: seeds the sample.

    Raises:
        InputError: if there are none.
    """
    if not pairs:
        raise InputError("this loss learns from scored pairs, and the dataset has no scored_pairs.jsonl")
    return [
        TrainingExample(pair.query, pair.passage, label=float(pair.score >= 0.5) if binary else pair.score)
        for pair in _sample(pairs, max_pairs, random.Random(seed))
    ]


def without_held_out(pairs: Sequence[ScoredPair], held_out: Sequence[str]) -> list[ScoredPair]:
    """Return the scored pairs whose query neither is nor nearly repeats a held-out question."""
    if not held_out or not pairs:
        return list(pairs)
    groups = near_duplicate_groups([*held_out, *(pair.query for pair in pairs)])
    held_out_groups = set(groups[: len(held_out)])
    return [pair for pair, group in zip(pairs, groups[len(held_out) :], strict=True) if group not in held_out_groups]


def _sample(rows: Sequence[T], count: int | None, draw: random.Random) -> Sequence[T]:
    """Sample rows without changing their order."""
    if count is None or count >= len(rows):
        return rows
    return [rows[number] for number in sorted(draw.sample(range(len(rows)), count))]


def _near_duplicates(texts: dict[str, str], passages: Sequence[str]) -> dict[str, int]:
    """Map passage ids to their group of near-duplicates."""
    distinct = list(dict.fromkeys(passages))
    return dict(zip(distinct, near_duplicate_groups([texts[passage] for passage in distinct]), strict=True))
