"""Two lists of passages become one: how dense scores and those of BM25 are mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rag_ft.errors import InputError
from rag_ft.retrieval.normalisation import min_max, reciprocal_rank, zscore

if TYPE_CHECKING:
    from numpy.typing import NDArray

Method = Literal["zscore", "min_max", "rrf"]

STORED_NAMES: dict[Method, str] = {"zscore": "standardised", "min_max": "relative", "rrf": "reciprocal-rank"}
"""Method -> its name in `comparison.json`, model folders and index pointers."""

DEPTH = 100
"""Passages taken from each side."""

FEATURES = ("length", "rarest word", "agreement", "dense lead", "bm25 lead")
"""What a weight for each question goes by; all between 0 and about 1."""

AGREE = 10


@dataclass(frozen=True)
class Pool:
    """What either side found for one question, scored by both.

    Attributes:
        ids: passages, shape (n,).
        dense: cosine similarity of each, shape (n,).
        sparse: BM25's score of each, shape (n,); 0 without a common word.
        words: how many different words of the question BM25 knows.
        rarest: share of the passages that do not have the question's rarest known word; 0 where none is known.
    """

    ids: Sequence[str]
    dense: NDArray[np.float32]
    sparse: NDArray[np.float32]
    words: int = 0
    rarest: float = 0.0

    @property
    def features(self) -> NDArray[np.float64]:
        """The question in numbers, in the order of `FEATURES`."""
        dense, sparse = (set(np.argsort(-side, kind="stable")[:AGREE].tolist()) for side in (self.dense, self.sparse))
        known = {place for place in sparse if self.sparse[place] > 0}
        agreement = len(dense & known) / max(1, min(AGREE, len(self.ids)))
        return np.array([min(self.words, 20) / 20, self.rarest**20, agreement, _lead(self.dense), _lead(self.sparse)])


@dataclass(frozen=True)
class Fusion:
    """How two lists become one.

    `zscore`: scores minus their mean, divided by their standard deviation, over the question's pool.
    `min_max`: scores scaled to 0 for the lowest of the pool and 1 for the highest. `rrf`: 1 / (60 + rank).

    Attributes:
        method: one of these three.
        weight: of the dense side, from 0 (BM25 alone) to 1 (the embedding alone).
        by_question: an offset and a factor for each of `FEATURES`: the logit of a question's weight; empty where one
            weight serves all.
        depth: passages taken from each side.

    Example:
        >>> import numpy as np
        >>> from rag_ft.retrieval.fusion import Fusion, Pool
        >>> pool = Pool(["a", "b", "c"], np.array([0.9, 0.1, 0.5]), np.array([0.0, 9.0, 8.0]))
        >>> Fusion("zscore", 0.5).ranked(pool)[0][0]
        'c'
    """

    method: Method = "rrf"
    weight: float = 0.5
    by_question: tuple[float, ...] = ()
    depth: int = DEPTH

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(f"fusion method {self.method!r}: use one of {', '.join(get_args(Method))}")
        if not 0 <= self.weight <= 1:
            raise InputError(f"fusion weight {self.weight}: from 0 (BM25 alone) to 1 (the embedding alone)")
        if self.depth < 1:
            raise InputError(f"fusion depth {self.depth}: at least 1 passage of each side")
        if self.by_question and len(self.by_question) != len(FEATURES) + 1:
            raise InputError(
                f"{len(self.by_question)} numbers for the weight of a question: {len(FEATURES) + 1} needed"
            )

    def weight_for(self, pool: Pool) -> float:
        """The weight of the dense side for one question."""
        if not self.by_question:
            return self.weight
        return float(sigmoid(self.by_question[0] + pool.features @ np.array(self.by_question[1:])))

    def scores(self, pool: Pool) -> NDArray[np.float64]:
        """The mixed score of each passage, shape (n,)."""
        weight, side = self.weight_for(pool), NORMALISE[self.method]
        return weight * side(pool.dense, np.ones(len(pool.ids), dtype=bool)) + (1 - weight) * side(
            pool.sparse, pool.sparse > 0
        )

    def ranked(self, pool: Pool) -> list[tuple[str, float]]:
        """(passage, score), best first; where one side has no say, passages that only it knows nothing of are left."""
        scores = self.scores(pool)
        # In an order that does not depend on who found a passage first: offline and in an app it is the same.
        keys = (-pool.sparse, -pool.dense, -scores)
        order = np.lexsort(keys)
        if np.logical_and.reduce([np.diff(key[order]) == 0 for key in keys]).any():
            order = np.lexsort((np.asarray(pool.ids, dtype=str), *keys))
        if not self.by_question and self.weight == 0:
            order = order[pool.sparse[order] > 0]
        return [(pool.ids[place], float(scores[place])) for place in order]

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self) | {"method": STORED_NAMES[self.method], "by_question": list(self.by_question)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fusion:
        """From `to_dict`.

        Raises:
            InputError: where it is none.
        """
        try:
            stored = {name: method for method, name in STORED_NAMES.items()}
            return cls(
                stored.get(values["method"], values["method"]),
                float(values["weight"]),
                tuple(float(value) for value in values.get("by_question", ())),
                int(values.get("depth", DEPTH)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"no description of a fusion ({error}): learn it again") from error

    def __str__(self) -> str:
        if self.by_question:
            return f"{self.method}, a weight for each question"
        return f"{self.method}, weight {self.weight:g} for the embedding"


def _lead(scores: NDArray[Any]) -> float:
    """How far the first stands before the tenth, as a share of the first."""
    top = np.sort(scores)[::-1][:AGREE]
    return float((top[0] - top[-1]) / top[0]) if len(top) and top[0] > 0 else 0.0


def sigmoid(value: float) -> float:
    """From a logit to a weight between 0 and 1."""
    return float(1 / (1 + np.exp(-value)))


NORMALISE: dict[Method, Callable[[NDArray[Any], NDArray[np.bool_]], NDArray[np.float64]]] = {
    "zscore": lambda scores, _: zscore(scores),
    "min_max": lambda scores, _: min_max(scores),
    "rrf": reciprocal_rank,
}
"""Method -> how it makes one retriever's scores comparable, given which passages that retriever returned."""
