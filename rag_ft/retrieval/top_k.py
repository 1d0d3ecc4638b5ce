"""Positions of the highest scores: the top-k that search, mining and evaluation share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_RANK = 100
"""Maximum length of a ranking."""

BLOCK = 64
"""Number of scores in a block. Blocks whose maximum is too low are skipped."""


def top_k(scores: NDArray[Any], k: int, above: float = float("-inf")) -> NDArray[np.intp]:
    """Return the positions of the k highest scores, best first; equal scores keep their order.

    Args:
        scores: one score for each passage, shape (passages,); NaN comes last.
        k: maximum number of positions.
        above: only scores above this count.

    Returns:
        Positions, shape (k,) or fewer.

    Example:
        >>> import numpy as np
        >>> from rag_ft.retrieval.top_k import top_k
        >>> top_k(np.array([0.2, 0.9, 0.9, 0.1]), 2).tolist(), top_k(np.array([0.0, 1.0]), 2, above=0.0).tolist()
        ([1, 2], [1])
    """
    if np.isnan(scores).any():
        scores = np.where(np.isnan(scores), -np.inf, scores)
    if len(scores) > BLOCK * k:
        # The k-th highest block maximum is at most the k-th highest score, so anything below it is left out.
        maxima = np.maximum.reduceat(scores, np.arange(0, len(scores), BLOCK))
        positions = np.flatnonzero(scores >= np.partition(maxima, len(maxima) - k)[len(maxima) - k])
    else:
        positions = np.arange(len(scores))
    if above > float("-inf"):
        positions = positions[scores[positions] > above]
    return positions[np.argsort(-scores[positions], kind="stable")][:k]


def top_k_rows(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Apply `top_k` to each row.

    Args:
        scores: shape (queries, passages).
        k: maximum number of positions in each row.

    Returns:
        Positions, shape (queries, min(k, passages)).

    Example:
        >>> import numpy as np
        >>> from rag_ft.retrieval.top_k import top_k_rows
        >>> top_k_rows(np.array([[0.1, 0.3, 0.2], [0.9, 0.0, 0.5]]), 2).tolist()
        [[1, 2], [0, 2]]
    """
    return np.stack([top_k(row, k) for row in scores]) if len(scores) else np.zeros((0, 0), dtype=np.intp)
