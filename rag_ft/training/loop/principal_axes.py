"""The axes along which vectors differ most. Vectors rotated onto them lose little if the last numbers are cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def principal_axes(queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the principal axes of vectors, shape (d, d): unit vectors as columns, the largest variance first.

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
    # Not centred, because cosines are measured from the origin.
    _, axes = np.linalg.eigh(queries.T @ queries + passages.T @ passages)  # ascending: the largest come last
    # An axis has two directions. Fix one, so that a training that resumes after a kill gets the same.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))] < 0, -1, 1).astype(axes.dtype)
    return np.ascontiguousarray(axes[:, ::-1])


def onto_principal_axes(
    queries: NDArray[np.float32], passages: NDArray[np.float32], dimension: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Project vectors onto their first principal axes, and normalise them.

    Args:
        queries: shape (queries, d).
        passages: shape (passages, d).
        dimension: number of axes to keep; d or more changes nothing.
    """
    if dimension >= passages.shape[1]:
        return queries, passages
    axes = principal_axes(queries, passages)[:, :dimension]
    return unit_vectors(queries @ axes), unit_vectors(passages @ axes)


def unit_vectors(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors, shape (n, d), to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
