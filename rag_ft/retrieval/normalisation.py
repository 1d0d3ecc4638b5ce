"""Normalise the scores of one retriever, so that they can be fused: z-score, min-max and reciprocal rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""


def zscore(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the scores minus their mean, divided by their standard deviation; shape (passages,).

    Example:
        >>> import numpy as np
        >>> from rag_ft.retrieval.normalisation import zscore
        >>> zscore(np.array([1.0, 3.0])).tolist()
        [-1.0, 1.0]
    """
    scores = scores.astype(np.float64)
    return (scores - scores.mean()) / max(float(scores.std()), 1e-9) if len(scores) else scores


def min_max(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the scores scaled so that the lowest is 0 and the highest is 1; shape (passages,).

    Example:
        >>> import numpy as np
        >>> from rag_ft.retrieval.normalisation import min_max
        >>> min_max(np.array([1.0, 2.0, 3.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    scores = scores.astype(np.float64)
    return (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9) if len(scores) else scores


def rrf_scores(scores: NDArray[Any], in_list: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return 1 / (60 + rank) of each score; equal scores share a rank.

    Args:
        scores: shape (passages,).
        in_list: mask of the passages that the retriever returned, shape (passages,); the others get 0. All if None.

    Example:
        >>> import numpy as np
        >>> from rag_ft.retrieval.normalisation import rrf_scores
        >>> (1 / rrf_scores(np.array([0.9, 0.1]))).tolist()
        [61.0, 62.0]
    """
    if not len(scores):
        return scores.astype(np.float64)
    ranks = np.searchsorted(np.sort(-scores), -scores) + 1
    scored = 1 / (RRF_K + ranks)
    return scored if in_list is None else np.where(in_list, scored, 0.0)
