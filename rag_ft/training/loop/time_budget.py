"""How long a training will take, and how much of it fits a time."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_ft.embedding.encoding import USUAL_CHARACTERS_PER_TOKEN
from rag_ft.training.examples.pairs import TrainingExample
from rag_ft.training.loop.losses import in_batch, passages_are_shared
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.dev_set import copy_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

STEP = 4.5
"""A training step takes so many times the encoding of its texts: forward, backward (twice that), and batches too large
for a processor's caches."""

CACHED = 4 / 3
"""Times as much where a batch is cached: its texts go forward twice."""


def estimated_seconds(
    recipe: Recipe, pairs: Sequence[TrainingExample], max_length: int, dev_texts: Sequence[str], dev_seconds: float
) -> float:
    """About how long the epochs will take with their dev figures, told by how long the base model's figure took.

    Args:
        recipe: its epochs, shares, rounds and batches.
        pairs: what is trained on.
        max_length: tokens that are read of a text; 0 for all.
        dev_texts: what a dev figure reads.
        dev_seconds: how long that took.

    Example:
        >>> from rag_ft import Recipe
        >>> from rag_ft.training.loop.time_budget import estimated_seconds
        >>> from rag_ft.training.examples.pairs import TrainingExample
        >>> pairs = [TrainingExample("Who signs?", "The harbour master signs.")] * 100
        >>> once, twice = (estimated_seconds(Recipe(epochs=n), pairs, 256, ["A text."] * 10, 1.0) for n in (1, 2))
        >>> 1 < once < twice
        True
    """
    most = USUAL_CHARACTERS_PER_TOKEN * (max_length or 10**6)

    def size(texts: Sequence[str]) -> int:
        return sum(min(most, len(text)) for text in texts)

    passages = [pair.positive for pair in pairs]
    distinct = list(dict.fromkeys(passages))
    questions = size([pair.anchor for pair in pairs]) + size([text for pair in pairs for text in pair.negatives])
    epoch = STEP * (questions + size(distinct if passages_are_shared(recipe, pairs) else passages))
    if in_batch(recipe) and recipe.batch_size > recipe.inner_batch:
        epoch *= CACHED
    similar = size(distinct) if in_batch(recipe) and recipe.similar_per_batch > 1 else 0
    figures = recipe.epochs + sum(share != 1 for share in recipe.shares)
    per_character = dev_seconds / max(1, size(dev_texts))
    return recipe.rounds * ((recipe.epochs * epoch + similar) * per_character + figures * dev_seconds)


def in_words(seconds: float) -> str:
    """A duration as people say it.

    Example:
        >>> from rag_ft.training.loop.time_budget import in_words
        >>> in_words(20), in_words(95), in_words(8_000)
        ('less than a minute', 'about 2 minutes', 'about 2.2 hours')
    """
    if seconds < 50:
        return "less than a minute"
    if seconds < 5_400:
        minutes = max(1, round(seconds / 60))
        return f"about {minutes} minute{'s' * (minutes > 1)}"
    return f"about {seconds / 3600:.1f} hours"


def fitted_into(
    minutes: float, model: SentenceTransformer, recipe: Recipe, pairs: list[TrainingExample]
) -> tuple[Recipe, list[TrainingExample]]:
    """Fewer epochs, then fewer pairs, so that the steps fit a time; a few steps are run to measure one.

    Raises:
        KeyboardInterrupt: where somebody stops it.
    """
    base = copy_weights(model)
    batch = min(recipe.batch_size, recipe.inner_batch, len(pairs))
    probe = replace(recipe, learning_rate=1e-9, similar_per_batch=1, batch_size=max(2, batch), rounds=1)
    few = pairs[: 4 * batch]
    # What is loaded at first use is not counted; a GPU's steps are so short that two of them tell nothing.
    for steps in (1, 2) if model.device.type == "cpu" else (2, 20):
        measured = run_trainer(model, few, probe, max_steps=steps)
        if measured.interrupted:
            raise KeyboardInterrupt
    model.load_state_dict(base)
    per_pair = (2 + len(pairs[0].negatives)) / max(measured.texts_per_second, 1e-9)
    if in_batch(recipe) and min(recipe.batch_size, len(pairs)) > recipe.inner_batch:
        per_pair *= CACHED
    budget = int(minutes * 60 * 0.8 / per_pair) // recipe.rounds  # a fifth is for dev, loading and saving
    # Similar passages are found by encoding them once: about a third of an epoch.
    budget -= min(len(pairs), budget // 4) // 3 if recipe.similar_per_batch > 1 else 0
    plan = {"epochs": max(1, min(recipe.epochs, budget // len(pairs))), "pairs": min(len(pairs), max(budget, batch))}
    logger.info(
        "%.2f s for 100 pairs: %d epochs over %d of %d pairs fit %g minutes",
        per_pair * 100, plan["epochs"], plan["pairs"], len(pairs), minutes,
    )  # fmt: skip
    return planned_as(plan, recipe, pairs)


def planned_as(
    plan: dict[str, int], recipe: Recipe, pairs: list[TrainingExample]
) -> tuple[Recipe, list[TrainingExample]]:
    """What fits a time."""
    if plan["pairs"] < len(pairs):
        pairs = random.Random(recipe.seed).sample(pairs, plan["pairs"])
    return replace(recipe, epochs=plan["epochs"]), pairs
