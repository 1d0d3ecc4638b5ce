"""How much of a batch is in memory at once, and how to reduce it if memory runs out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_ft.training.loop.losses import has_in_batch_negatives, is_row_wise
from rag_ft.training.recipe import Recipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

MIN_INNER_BATCH = 4
"""Minimum number of pairs in memory at once; below it gradient checkpointing is the next step."""


@dataclass(frozen=True)
class MemoryUse:
    """How much of a batch is in memory at once.

    Attributes:
        recipe: the recipe; its `inner_batch` limits memory for losses with in-batch negatives.
        parts: number of parts of a batch whose gradients are added up, for row-wise losses.
        gradient_checkpointing: whether activations are recomputed in the backward pass.
    """

    recipe: Recipe
    parts: int = 1
    gradient_checkpointing: bool = False

    def reduced(self, pairs: int) -> MemoryUse | None:
        """Return the next step to less memory; None if there is none.

        Args:
            pairs: number of training pairs.
        """
        in_batch = has_in_batch_negatives(self.recipe)
        batch_size = min(self.recipe.batch_size, pairs)
        half = (min(self.recipe.inner_batch, batch_size) if in_batch else batch_size // self.parts) // 2
        if half >= MIN_INNER_BATCH and (in_batch or is_row_wise(self.recipe)):
            logger.warning("out of memory: retrying with %d pairs in memory at once", half)
            if in_batch:
                return replace(self, recipe=replace(self.recipe, inner_batch=half))
            return replace(self, parts=2 * self.parts)
        if self.gradient_checkpointing:
            return None
        logger.warning("out of memory: retrying with gradient checkpointing, which is slower")
        return replace(self, gradient_checkpointing=True)


def enable_gradient_checkpointing(model: SentenceTransformer) -> None:
    """Let a transformer recompute its activations in the backward pass; other models stay unchanged."""
    inner = getattr(model[0], "auto_model", None)
    if inner is not None:
        # transformers 5.20 and later use the first name.
        getattr(inner, "activation_checkpointing_enable", inner.gradient_checkpointing_enable)()
