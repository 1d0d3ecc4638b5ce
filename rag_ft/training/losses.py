"""Which loss teaches a model: by its name, and by what fits into memory. All are sentence-transformers'."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError
from rag_ft.training.recipe import Recipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

DIRECTIONS = ("query_to_doc", "doc_to_query")
"""Each question among all passages, and each passage among all questions."""


def loss_for(model: SentenceTransformer, recipe: Recipe) -> nn.Module:
    """The loss of a recipe over pairs of a question and a passage.

    | loss | what it does | source |
    |---|---|---|
    | `mnr` | every other passage of the batch is a negative, in both directions | Henderson et al. 2017 |
    | `gist` | one direction, without negatives that the base model finds nearer than the right one | Solatorio 2024 |

    Batches larger than `inner_batch` are cached (Gao et al. 2021): the gradients are those of the whole batch, memory
    is that of the inner one. With `dimensions`, the loss is the sum over vectors that are cut to each of them
    (Kusupati et al. 2022).

    Args:
        model: the model to be trained; `gist` takes a copy of it as its guide.
        recipe: its `loss`, `scale`, `batch_size`, `inner_batch` and `dimensions`.

    Example:
        >>> from rag_ft import Recipe
        >>> from rag_ft.embedding.loading import load_sentence_transformer
        >>> from rag_ft.training.losses import loss_for
        >>> model = load_sentence_transformer("local")
        >>> type(loss_for(model, Recipe(batch_size=1024))).__name__
        'CachedMultipleNegativesRankingLoss'
    """
    from sentence_transformers.sentence_transformer.losses import (
        CachedGISTEmbedLoss,
        CachedMultipleNegativesRankingLoss,
        GISTEmbedLoss,
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )

    cached: dict[str, Any] = {"mini_batch_size": recipe.inner_batch} if recipe.batch_size > recipe.inner_batch else {}
    loss: nn.Module
    if recipe.loss == "gist":
        guide = copy.deepcopy(model).eval().requires_grad_(False)
        kind = CachedGISTEmbedLoss if cached else GISTEmbedLoss
        loss = kind(model, guide, temperature=1 / recipe.scale, **cached)
    else:
        kind = CachedMultipleNegativesRankingLoss if cached else MultipleNegativesRankingLoss
        loss = kind(model, scale=recipe.scale, directions=DIRECTIONS, **cached)
    if not recipe.dimensions:
        return loss
    full = model.get_embedding_dimension() or max(recipe.dimensions)
    return MatryoshkaLoss(model, loss, sorted({*recipe.dimensions, full}, reverse=True))


def check_dimensions(model: SentenceTransformer, recipe: Recipe) -> None:
    """Make sure that a model has as many dimensions as it is to be cut to.

    Raises:
        InputError: where it has fewer.
    """
    full = model.get_embedding_dimension() or 0
    if recipe.dimensions and max(recipe.dimensions) > full:
        raise InputError(f"dimensions are {list(recipe.dimensions)}: the model's vectors have {full}")
