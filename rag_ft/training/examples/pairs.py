"""What training reads: questions with their passages, as texts, and what kind of questions they are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.cloze import without_copy
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.text.sketch import QUESTIONS, sketch_of
from rag_ft.errors import InputError
from rag_ft.training.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingExample:
    """A question and a passage, as texts, with what a loss needs beside them.

    Attributes:
        anchor: the query.
        positive: a passage that answers it.
        positive_ids: groups of near-duplicates (`near_duplicate_groups`) that answer the query. No passage of them may
            be its negative.
        negatives: passages that do not answer it. All examples of a training have equally many.
        in_batch_ids: groups of the passages that this example shows to the other rows of its batch.
        label: a score, one score for the positive and each negative, or the teacher's two vectors; None without labels.
    """

    anchor: str
    positive: str
    positive_ids: frozenset[object] = frozenset()
    negatives: tuple[str, ...] = ()
    in_batch_ids: frozenset[object] = frozenset()
    label: float | list[float] | NDArray[np.float32] | None = None


def pair_examples(dataset: QADataset, recipe: Recipe, max_pairs: int | None = None) -> list[TrainingExample]:
    """The pairs of the train split; a question that is a sentence of its passage is mostly taken out of it.

    Args:
        dataset: with a train split. Its negatives become those of its pairs; a question that has none, where others
            have, takes a passage at random, and is left out where too few answer other questions.
        recipe: its `cloze`, `negatives` and `seed`.
        max_pairs: a random sample of so many.
    """
    draw = random.Random(recipe.seed)
    pairs = dataset.pairs("train")
    if max_pairs is not None and max_pairs < len(pairs):
        pairs = [pairs[place] for place in sorted(draw.sample(range(len(pairs)), max_pairs))]
    texts = dataset.passage_texts
    found_for: dict[str, list[str]] = {}
    if recipe.negatives and dataset.negatives:
        # What is looked for in dev or test must not be pushed away in training.
        units, held_out = dataset.split_units, held_out_units(dataset)
        found_for = {
            query: [p for p in dataset.negatives.get(query, []) if units[p] not in held_out] for query, _ in pairs
        }
    count = min(recipe.negatives, max(map(len, found_for.values()), default=0))
    answering = [passage for query, _ in pairs for passage in dataset.qrels["train"][query]]
    used = list(dict.fromkeys([*answering, *(p for some in found_for.values() for p in some)]))
    group = dict(zip(used, near_duplicate_groups([texts[passage] for passage in used]), strict=True))
    positives = list(dict.fromkeys(passage for _, passage in pairs))
    found = []
    seen: set[tuple[str, int]] = set()
    for query_id, passage_id in pairs:
        # Of passages that nearly repeat each other one is enough.
        if (query_id, group[passage_id]) in seen:
            continue
        seen.add((query_id, group[passage_id]))
        query, passage = dataset.queries[query_id].text, texts[passage_id]
        rest = without_copy(query, passage)
        if rest is not None and draw.random() < recipe.cloze:
            passage = rest
        if not query.strip() or not passage.strip():
            continue
        answers = dataset.qrels["train"][query_id]
        keys: frozenset[object] = frozenset(group[answer] for answer in answers)
        against = [p for p in found_for.get(query_id, []) if group[p] not in keys and texts[p].strip()][:count]
        against += _others(positives, count - len(against), keys, group, draw) if count else []
        if len(against) == count:
            shown = frozenset([group[passage_id], *(group[p] for p in against)])
            found.append(TrainingExample(query, passage, keys, tuple(texts[p] for p in against), shown))
    return found


def held_out_units(dataset: QADataset) -> set[int]:
    """The units (`split_units`) that dev and test ask about, and training does not."""
    units = dataset.split_units
    asked = {
        split: {units[passage] for relevant in dataset.qrels.get(split, {}).values() for passage in relevant}
        for split in ("train", "dev", "test")
    }
    return (asked["dev"] | asked["test"]) - asked["train"]


def without_held_out(dataset: QADataset) -> QADataset:
    """The dataset without scored pairs whose question is one of dev or test, or nearly repeats one."""
    asked = [dataset.queries[query].text for split in ("dev", "test") for query in dataset.qrels.get(split, {})]
    pairs = dataset.scored_pairs
    if not asked or not pairs:
        return dataset
    group = near_duplicate_groups([*asked, *(pair.query for pair in pairs)])
    held_out = set(group[: len(asked)])
    kept = [pair for pair, place in zip(pairs, group[len(asked) :], strict=True) if place not in held_out]
    return replace(dataset, scored_pairs=kept)


def _others(
    passages: Sequence[str], count: int, keys: frozenset[object], group: dict[str, int], draw: random.Random
) -> list[str]:
    """Passages at random that answer other questions."""
    drawn = draw.sample(passages, min(len(passages), count + 10)) if count > 0 else []
    return [passage for passage in drawn if group[passage] not in keys][: max(0, count)]


def scored_examples(
    dataset: QADataset, binary: bool, max_pairs: int | None = None, seed: int = 0
) -> list[TrainingExample]:
    """The scored pairs of a dataset; as 1 and 0 where the loss knows yes and no alone.

    Raises:
        InputError: where the dataset has none.
    """
    pairs = dataset.scored_pairs
    if not pairs:
        raise InputError("the dataset has no scored pairs (scored_pairs.jsonl), which this loss learns from")
    if max_pairs is not None and max_pairs < len(pairs):
        pairs = [pairs[place] for place in sorted(random.Random(seed).sample(range(len(pairs)), max_pairs))]
    return [
        TrainingExample(pair.query, pair.passage, label=float(pair.score >= 0.5) if binary else pair.score)
        for pair in pairs
    ]


def question_styles(dataset: QADataset) -> dict[str, int]:
    """How many training questions of each style there are; those of an unknown making count as `given`."""
    styles: dict[str, int] = {}
    for query in dataset.qrels.get("train", {}):
        style = dataset.queries[query].source or "given"
        styles[style] = styles.get(style, 0) + 1
    return styles


def questions_sketch(dataset: QADataset, earlier: Sequence[str] = ()) -> list[str]:
    """The hashes of what is trained on, by which a comparison knows that it would ask what a model has seen.

    Args:
        dataset: its train split and scored pairs count.
        earlier: the sketch of the model that the training goes on from.
    """
    texts = [dataset.queries[query].text for query in dataset.qrels.get("train", {})]
    texts += [pair.query for pair in dataset.scored_pairs]
    return sorted({*sketch_of(texts, QUESTIONS), *earlier})[:QUESTIONS]


def is_generated(dataset: QADataset) -> bool:
    """Whether most training questions were generated: a style says how."""
    styles = question_styles(dataset)
    return sum(count for style, count in styles.items() if style not in ("given", HUMAN)) * 2 > sum(styles.values())
