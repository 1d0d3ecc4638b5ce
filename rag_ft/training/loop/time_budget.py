"""How long a training will take, and how much of it fits into a given time."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_ft.embedding.encoding import USUAL_CHARACTERS_PER_TOKEN
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.losses import has_in_batch_negatives, shares_passages
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.weights import copy_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

STEP_FACTOR = 4.5
"""Time of a training step as a multiple of the time to encode its texts: forward, backward (twice as long), and batches
too large for a processor's caches."""

CACHED_FACTOR = 4 / 3
"""Factor on the time of a cached batch: it has two forward passes."""

TRAINING_FRACTION = 0.8
"""Fraction of a time limit for training steps; the rest is for dev, loading and saving."""


def estimate_seconds(
    recipe: Recipe,
    examples: Sequence[TrainingExample],
    max_length: int,
    dev_texts: Sequence[str],
    dev_seconds: float,
    uncovered_texts: Sequence[str] = (),
) -> float:
    """Estimate the time of a training with its dev scores from the time of the base model's dev score.

    Args:
        recipe: the recipe; its epochs, alphas, rounds and batch sizes are used.
        examples: the training examples.
        max_length: maximum number of tokens read per text; 0 sets no limit.
        dev_texts: the texts that are encoded for a dev score.
        dev_seconds: how long it took to encode them.
        uncovered_texts: the texts that are encoded to check uncovered documents, for the base and for a candidate.

    Example:
        >>> from rag_ft import Recipe
        >>> from rag_ft.training.examples.training_example import TrainingExample
        >>> from rag_ft.training.loop.time_budget import estimate_seconds
        >>> examples = [TrainingExample("Who signs?", "The harbour master signs.")] * 100
        >>> once, twice = (estimate_seconds(Recipe(epochs=n), examples, 256, ["A text."] * 10, 1.0) for n in (1, 2))
        >>> 1 < once < twice
        True
    """
    max_characters = USUAL_CHARACTERS_PER_TOKEN * (max_length or 10**6)

    def size(texts: Sequence[str]) -> int:
        return sum(min(max_characters, len(text)) for text in texts)

    positives = [each.positive for each in examples]
    distinct = list(dict.fromkeys(positives))
    others = size([text for each in examples for text in (each.anchor, *each.negatives)])
    epoch = STEP_FACTOR * (others + size(distinct if shares_passages(recipe, examples) else positives))
    if has_in_batch_negatives(recipe) and recipe.batch_size > recipe.inner_batch:
        epoch *= CACHED_FACTOR
    similar = size(distinct) if has_in_batch_negatives(recipe) and recipe.similar_per_batch > 1 else 0
    dev_scores = recipe.epochs + sum(alpha != 1 for alpha in recipe.alphas)
    per_character = dev_seconds / max(1, size(dev_texts))
    training = recipe.rounds * ((recipe.epochs * epoch + similar) * per_character + dev_scores * dev_seconds)
    return training + 2 * size(uncovered_texts) * per_character


def in_words(seconds: float) -> str:
    """Express a duration in words.

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


def fit_to_minutes(
    minutes: float, model: SentenceTransformer, recipe: Recipe, examples: list[TrainingExample]
) -> tuple[Recipe, list[TrainingExample]]:
    """Reduce the epochs, then the examples, to fit a training into a time limit. A few steps are run and timed.

    Raises:
        KeyboardInterrupt: if the user stops these steps.
    """
    seconds = _seconds_per_example(model, recipe, examples)
    budget = int(minutes * 60 * TRAINING_FRACTION / seconds) // recipe.rounds
    if recipe.similar_per_batch > 1:
        # To find similar passages, all of them are encoded once, which takes about a third of an epoch.
        budget -= min(len(examples), budget // 4) // 3
    min_examples = min(recipe.batch_size, recipe.inner_batch, len(examples))
    plan = {
        "epochs": max(1, min(recipe.epochs, budget // len(examples))),
        "pairs": min(len(examples), max(budget, min_examples)),
    }
    logger.info(
        "%.2f s for 100 pairs: %d epochs over %d of %d pairs fit into %g minutes",
        seconds * 100, plan["epochs"], plan["pairs"], len(examples), minutes,
    )  # fmt: skip
    return apply_limits(plan, recipe, examples)


def apply_limits(
    plan: dict[str, int], recipe: Recipe, examples: list[TrainingExample]
) -> tuple[Recipe, list[TrainingExample]]:
    """Apply the number of epochs and pairs that fit into a time limit, as stored in a training's `plan.json`."""
    if plan["pairs"] < len(examples):
        examples = random.Random(recipe.seed).sample(examples, plan["pairs"])
    return replace(recipe, epochs=plan["epochs"]), examples


def _seconds_per_example(model: SentenceTransformer, recipe: Recipe, examples: list[TrainingExample]) -> float:
    """Measure the time per example in a training step; the model is restored afterwards."""
    base = copy_weights(model)
    batch = min(recipe.batch_size, recipe.inner_batch, len(examples))
    trial = replace(recipe, learning_rate=1e-9, similar_per_batch=1, batch_size=max(2, batch), rounds=1)
    # The first trial is a warm-up. A GPU's steps are too short to time two of them.
    for steps in (1, 2) if model.device.type == "cpu" else (2, 20):
        result = run_trainer(model, examples[: 4 * batch], trial, max_steps=steps)
        if result.interrupted:
            raise KeyboardInterrupt
    model.load_state_dict(base)
    seconds = (2 + len(examples[0].negatives)) / max(result.texts_per_second, 1e-9)
    if has_in_batch_negatives(recipe) and min(recipe.batch_size, len(examples)) > recipe.inner_batch:
        seconds *= CACHED_FACTOR
    return seconds
