"""Vectors turned onto the axes along which they differ most, so that what is cut off them afterwards says least."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.embedding.encoding import encode
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import Dev, DevQuestions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

logger = logging.getLogger(__name__)

ENOUGH_TEXTS = 500
"""Queries and passages that the axes are taken from before training."""

ENOUGH_PASSAGES = 2_000
"""That they are taken from afterwards."""


def principal_axes(queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.float32]:
    """The axes of some vectors, shape (d, d): in each column one of length 1, the one with the most of them first.

    Args:
        queries: shape (queries, d).
        passages: shape (passages, d).

    Example:
        >>> import numpy as np
        >>> from rag_ft.training.loop.principal_axes import principal_axes
        >>> vectors = np.array([[0.1, 1.0], [-0.1, 1.0]], dtype=np.float32)
        >>> principal_axes(vectors, vectors).round(1).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    # Not centred: cosines are taken from the origin.
    _, axes = np.linalg.eigh(queries.T @ queries + passages.T @ passages)  # the largest come last
    # An axis has two directions: a training that goes on after a kill must take the same one.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))] < 0, -1, 1).astype(axes.dtype)
    return np.ascontiguousarray(axes[:, ::-1])


def onto_principal_axes(
    queries: NDArray[np.float32], passages: NDArray[np.float32], dimension: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn vectors onto their principal axes, keep the first ones, and make their length 1.

    Args:
        queries: shape (queries, d).
        passages: shape (passages, d).
        dimension: how many axes stay; nothing is done where that is d.
    """
    if dimension >= passages.shape[1]:
        return queries, passages
    kept = principal_axes(queries, passages)[:, :dimension]
    return _unit(queries @ kept), _unit(passages @ kept)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def add_rotation(model: SentenceTransformer, queries: Sequence[str], passages: Sequence[str]) -> Dense | None:
    """Let a model end with a rotation onto the principal axes of some texts: no cosine changes by that.

    Of vectors that are cut more is left (MiniLM's on covidqa, 128 of 384 numbers: .94 of the nDCG@10 in place of .85),
    and training for cut vectors (Matryoshka) begins there.

    Args:
        model: changed in place.
        queries: some of those it will be asked.
        passages: those it will find; what nobody asks about has its axes too (.94 with all of them, .91 of training's).

    Returns:
        The module that was added; None where the model ends with a linear map already, from a training like this.
    """
    import torch
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Normalize

    end = len(model) - isinstance(model[-1], Normalize)
    if isinstance(model[end - 1], Dense):
        return None
    axes = principal_axes(
        encode(model, _some(queries, ENOUGH_TEXTS), "query"), encode(model, _some(passages, ENOUGH_TEXTS), "document")
    )
    size = len(axes)
    rotation = Dense(size, size, bias=False, activation_function=None, init_weight=torch.from_numpy(axes.T.copy()))
    model.insert(end, rotation.to(model.device))
    return rotation


def turn_again(model: SentenceTransformer, passages: Sequence[str], dev: Dev | None, dimensions: Sequence[int]) -> bool:
    """Turn a tuned model's vectors onto the axes of what they are now, where dev finds more in what is cut then.

    Training moves the vectors and leaves the axes behind: tuned on covidqa, 128 of 384 numbers kept .89 of the nDCG@10,
    and .95 turned again. The axes of questions, or of passages and questions alike, keep less (.91, .93).

    Args:
        model: changed in place; it ends with a linear map.
        passages: those it will find.
        dev: the questions that choose; nothing is done with another dev.
        dimensions: that vectors are cut to.

    Returns:
        Whether they were turned.
    """
    import torch

    end = _linear_end(model)
    if end is None or not isinstance(dev, DevQuestions):
        return False
    vectors = encode(model, _some(passages, ENOUGH_PASSAGES), "document")
    axes = principal_axes(vectors[:0], vectors)
    queries, shown = encode(model, dev.query_texts, "query"), encode(model, dev.passage_texts, "document")

    def found(queries: NDArray[np.float32], passages: NDArray[np.float32]) -> float:
        cuts = [(_unit(queries[:, :size]), _unit(passages[:, :size])) for size in dimensions]
        return float(np.mean([dev_score(dev.values_of(*cut), dev) for cut in cuts]))

    before, after = found(queries, shown), found(queries @ axes, shown @ axes)
    logger.info("vectors cut to %s: dev %.3f, turned again %.3f", list(dimensions), before, after)
    if after <= before:
        return False
    with torch.no_grad():
        end.linear.weight.copy_(torch.from_numpy(axes.T.copy()).to(end.linear.weight) @ end.linear.weight)
    return True


def _linear_end(model: SentenceTransformer) -> Dense | None:
    """The linear map that a model's vectors come out of, if any."""
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Normalize
    from torch import nn

    last = model[len(model) - 1 - isinstance(model[-1], Normalize)]
    linear = isinstance(last, Dense) and last.linear.bias is None and isinstance(last.activation_function, nn.Identity)
    return last if linear else None


def _some(texts: Sequence[str], most: int) -> list[str]:
    distinct = list(dict.fromkeys(texts))
    return distinct[:: -(-len(distinct) // most)]


def remove_rotation(model: SentenceTransformer, rotation: Dense) -> None:
    """Take an added rotation away again."""
    del model[next(place for place, module in enumerate(model) if module is rotation)]
