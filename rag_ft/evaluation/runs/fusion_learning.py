"""Choose the method and the weight of a fusion on dev questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from rag_ft.errors import InputError
from rag_ft.evaluation.metrics import first_gain, ndcg_of_gains
from rag_ft.retrieval.fusion import Fusion, Method, Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""Candidate weights of the embedding."""

TOLERANCE = 0.002
"""Difference in nDCG@10 up to which two weights, or two methods, count as equally good."""

FOLDS = 5
"""Number of folds in which a learned fusion is scored."""


@dataclass(frozen=True)
class LearnedFusion:
    """A fusion chosen on questions.

    Attributes:
        fusion: the fusion.
        questions: the number of questions that it was chosen on.
        curves: method -> nDCG@10 at each of `WEIGHTS`.
        question_hashes: hashes of these questions, so that no comparison uses them by mistake.
        values: method -> nDCG@10 of each question at each of `WEIGHTS`, shape (questions, weights).
    """

    fusion: Fusion
    questions: int
    curves: dict[Method, list[float]] = field(default_factory=dict)
    question_hashes: tuple[str, ...] = ()
    values: dict[Method, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    def to_record(self) -> dict[str, Any]:
        """Return what a model folder stores: the fusion and the hashes of its questions."""
        return self.fusion.to_dict() | {"asked": list(self.question_hashes)}

    def cross_validated(self, groups: Sequence[object]) -> NDArray[np.float64]:
        """Return nDCG@10 of each question under the fusion that the other folds choose, shape (questions,).

        Args:
            groups: the group of each question; a group is in one fold.
        """
        numbers = np.unique([str(group) for group in groups], return_inverse=True)[1]
        folds = np.random.default_rng(0).permutation(int(numbers.max()) + 1)[numbers] % FOLDS
        scores = np.empty(len(numbers))
        for fold in np.unique(folds):
            # With a single fold, the fusion is the one that was learned on all questions.
            others = folds != fold if (folds != fold).any() else folds == fold
            method, weight = _flattest_optimum(
                {name: table[others].mean(axis=0) for name, table in self.values.items()}
            )
            scores[folds == fold] = self.values[method][folds == fold, WEIGHTS.index(weight)]
        return scores


def learn_fusion(
    pools: Sequence[Pool], relevant: Sequence[Mapping[str, int]], one_answer: Sequence[bool] = ()
) -> LearnedFusion:
    """Choose method and weight by nDCG@10 on dev questions.

    A flat optimum is preferred to a sharp one: each weight counts as the mean of itself and its two neighbours. Of the
    weights within .002 of the best, the one nearest to 0.5 is chosen.

    Args:
        pools: one pool for each question.
        relevant: passage -> grade, for each question.
        one_answer: whether the relevant passages of each question all hold the same answer; none do if empty.

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
    one_answer = one_answer or [False] * len(pools)
    values = {method: _values(pools, relevant, one_answer, method) for method in get_args(Method)}
    curves = {method: table.mean(axis=0).tolist() for method, table in values.items()}
    return LearnedFusion(Fusion(*_flattest_optimum(curves)), len(pools), curves, values=values)


def _values(
    pools: Sequence[Pool], relevant: Sequence[Mapping[str, int]], one_answer: Sequence[bool], method: Method
) -> NDArray[np.float64]:
    """Return nDCG@10 of each question at each of `WEIGHTS`, shape (questions, weights)."""
    rows = []
    for pool, grades, one in zip(pools, relevant, one_answer, strict=True):
        dense, sparse = pool.normalised(method)
        gains = np.array([grades.get(key, 0) for key in pool.ids])
        ideal = sorted(grades.values(), reverse=True)
        rows.append([_ndcg(weight * dense + (1 - weight) * sparse, gains, ideal, one) for weight in WEIGHTS])
    return np.array(rows)


def _flattest_optimum(curves: Mapping[Method, Sequence[float] | NDArray[np.float64]]) -> tuple[Method, float]:
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


def _ndcg(scores: NDArray[np.float64], gains: NDArray[np.int_], ideal: Sequence[int], one_answer: bool) -> float:
    ranked = gains[np.argsort(-scores, kind="stable")[:10]]
    return ndcg_of_gains(first_gain(ranked.tolist()), [1], 10) if one_answer else ndcg_of_gains(ranked, ideal, 10)
