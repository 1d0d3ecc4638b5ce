"""Choose the method and the weight of a fusion on dev questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from rag_ft.errors import InputError
from rag_ft.evaluation.metrics import ndcg_of_gains
from rag_ft.retrieval.fusion import Fusion, Method, Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""Candidate weights of the embedding."""

TOLERANCE = 0.002
"""Difference in nDCG@10 up to which two weights, or two methods, count as equally good."""


@dataclass(frozen=True)
class LearnedFusion:
    """A fusion chosen on questions.

    Attributes:
        fusion: the fusion.
        questions: the number of questions that it was chosen on.
        curves: method -> nDCG@10 at each of `WEIGHTS`.
        question_hashes: hashes of these questions, so that no comparison uses them by mistake.
    """

    fusion: Fusion
    questions: int
    curves: dict[Method, list[float]] = field(default_factory=dict)
    question_hashes: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return what a model folder stores: the fusion and the hashes of its questions."""
        return self.fusion.to_dict() | {"asked": list(self.question_hashes)}


def learn_fusion(pools: Sequence[Pool], relevant: Sequence[Mapping[str, int]]) -> LearnedFusion:
    """Choose method and weight by nDCG@10 on dev questions.

    A flat optimum is preferred to a sharp one: each weight counts as the mean of itself and its two neighbours. Of the
    weights within .002 of the best, the one nearest to 0.5 is chosen.

    Args:
        pools: one pool for each question.
        relevant: passage -> grade, for each question.

    Raises:
        InputError: if there is no question.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.runs.fusion_learning import learn_fusion
        >>> from rag_ft.retrieval.fusion import Pool
        >>> pools = [Pool(["a", "b"], np.array([0.9, 0.1]), np.array([1.0, 2.0]))] * 20
        >>> learn_fusion(pools, [{"a": 1}] * 20).fusion.weight > 0.5
        True
    """
    if not pools:
        raise InputError("there is no question to learn a fusion on: use a dataset with a dev split")
    gains = [np.array([grades.get(key, 0) for key in pool.ids]) for pool, grades in zip(pools, relevant, strict=True)]
    ideals = [sorted(grades.values(), reverse=True) for grades in relevant]
    curves: dict[Method, list[float]] = {}
    for method in get_args(Method):
        normalised = [pool.normalised(method) for pool in pools]
        curves[method] = [
            float(
                np.mean(
                    [
                        _ndcg(weight * dense + (1 - weight) * sparse, gain, ideal)
                        for (dense, sparse), gain, ideal in zip(normalised, gains, ideals, strict=True)
                    ]
                )
            )
            for weight in WEIGHTS
        ]
    return LearnedFusion(Fusion(*_flattest_optimum(curves)), len(pools), curves)


def _flattest_optimum(curves: Mapping[Method, Sequence[float]]) -> tuple[Method, float]:
    """Return the method and the weight with the best smoothed nDCG@10."""
    best: tuple[Method, float] | None = None
    best_ndcg = 0.0
    for method in get_args(Method):
        padded = np.pad(np.array(curves[method]), 1, mode="edge")
        smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        equal = [position for position in range(len(WEIGHTS)) if smooth[position] >= smooth.max() - TOLERANCE]
        position = min(equal, key=lambda position: abs(WEIGHTS[position] - 0.5))
        if best is None or smooth[position] > best_ndcg + TOLERANCE:
            best, best_ndcg = (method, WEIGHTS[position]), float(smooth[position])
    assert best is not None
    return best


def _ndcg(scores: NDArray[np.float64], gains: NDArray[np.int_], ideal: Sequence[int]) -> float:
    return ndcg_of_gains(gains[np.argsort(-scores, kind="stable")[:10]], ideal, 10)
