"""Fuse the scores of an embedding and of BM25 into one ranking."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rag_ft.errors import InputError
from rag_ft.retrieval.normalisation import min_max, rrf_scores, zscore
from rag_ft.retrieval.top_k import MAX_RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Method = Literal["zscore", "min_max", "rrf"]

STORED_NAMES: dict[Method, str] = {"zscore": "standardised", "min_max": "relative", "rrf": "reciprocal-rank"}
"""Method -> its name in `comparison.json`, model folders and index pointers."""

NORMALISE: dict[Method, Callable[[NDArray[Any], NDArray[np.bool_]], NDArray[np.float64]]] = {
    "zscore": lambda scores, _: zscore(scores),
    "min_max": lambda scores, _: min_max(scores),
    "rrf": rrf_scores,
}
"""Method -> function that normalises one retriever's scores, given which passages that retriever returned."""


@dataclass(frozen=True)
class Pool:
    """The passages that either retriever found for one query, each scored by both.

    Attributes:
        ids: passage ids, shape (n,).
        dense: cosine similarity of each passage, shape (n,).
        sparse: BM25 score of each passage, shape (n,); 0 without a shared word.
    """

    ids: Sequence[str]
    dense: NDArray[np.float32]
    sparse: NDArray[np.float32]

    def normalised(self, method: Method) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the dense and the sparse scores, normalised for a fusion method; each of shape (n,)."""
        normalise = NORMALISE[method]
        return normalise(self.dense, np.ones(len(self.ids), dtype=bool)), normalise(self.sparse, self.sparse > 0)


@dataclass(frozen=True)
class Fusion:
    """How the rankings of an embedding and of BM25 are fused.

    `zscore`: scores minus their mean, divided by their standard deviation, over the query's pool. `min_max`: scores
    scaled to 0 for the lowest of the pool and 1 for the highest. `rrf`: 1 / (60 + rank). The default, if nothing can be
    learned, is the z-score with equal weights: it did better than `rrf` on all collections that were measured.

    Attributes:
        method: one of these three.
        weight: weight of the embedding, from 0 (BM25 alone) to 1 (the embedding alone).
        depth: number of passages taken from each retriever.

    Example:
        >>> import numpy as np
        >>> from rag_ft.retrieval.fusion import Fusion, Pool
        >>> pool = Pool(["a", "b", "c"], np.array([0.9, 0.1, 0.5]), np.array([0.0, 9.0, 8.0]))
        >>> Fusion("zscore", 0.5).rank(pool)[0][0]
        'c'
    """

    method: Method = "zscore"
    weight: float = 0.5
    depth: int = MAX_RANK

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(f"fusion method {self.method!r}: use one of {', '.join(get_args(Method))}")
        if not 0 <= self.weight <= 1:
            raise InputError(f"fusion weight {self.weight}: use 0 (BM25 alone) to 1 (the embedding alone)")
        if self.depth < 1:
            raise InputError(f"fusion depth {self.depth}: use at least 1 passage from each retriever")

    def scores(self, pool: Pool) -> NDArray[np.float64]:
        """Return the fused score of each passage, shape (n,)."""
        dense, sparse = pool.normalised(self.method)
        return self.weight * dense + (1 - self.weight) * sparse

    def rank(self, pool: Pool) -> list[tuple[str, float]]:
        """Return (passage id, score), best first. With weight 0, passages without a shared word are left out."""
        scores = self.scores(pool)
        # Ties must not be broken by the order of the pool, which differs between evaluation and an app.
        keys = (-pool.sparse, -pool.dense, -scores)
        order = np.lexsort(keys)
        if np.logical_and.reduce([np.diff(key[order]) == 0 for key in keys]).any():
            order = np.lexsort((np.asarray(pool.ids, dtype=str), *keys))
        if self.weight == 0:
            order = order[pool.sparse[order] > 0]
        return [(pool.ids[position], float(scores[position])) for position in order]

    def to_dict(self) -> dict[str, Any]:
        """Return the fusion as JSON values. `by_question` is always empty, as older versions expect it."""
        return {"method": STORED_NAMES[self.method], "weight": self.weight, "by_question": [], "depth": self.depth}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fusion:
        """Read what `to_dict` returned.

        Raises:
            InputError: if the values do not describe a fusion.
        """
        try:
            methods = {stored: method for method, stored in STORED_NAMES.items()}
            method = methods.get(values["method"], values["method"])
            fusion = cls(method, float(values["weight"]), int(values.get("depth", MAX_RANK)))
            if values.get("by_question"):
                _log_weights_of_queries()
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is not a description of a fusion ({error}): learn it again") from error
        return fusion

    def __str__(self) -> str:
        return f"{self.method}, weight {self.weight:g} for the embedding"


@cache
def _log_weights_of_queries() -> None:
    """Log, once in a process, that a stored fusion has weights for single queries, which are no longer supported."""
    logger.warning(
        "a stored fusion has weights for single questions, which are no longer supported: its overall weight is used"
    )
