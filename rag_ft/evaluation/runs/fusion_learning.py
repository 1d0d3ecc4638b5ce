"""The mix of an embedding and BM25, chosen on dev questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from rag_ft.errors import InputError
from rag_ft.evaluation.metrics import ndcg_of_gains
from rag_ft.retrieval.fusion import NORMALISE, Fusion, Method, Pool, sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))

FEWEST = 100
"""Dev questions under which no weight for each question is tried."""

FOLDS = 5
WORTH_A_WEIGHT_EACH = 0.005
AS_GOOD = 0.002
SHARPNESS = 3.0
"""Factor of standardised scores in the softmax of the fit."""

PULL = 0.02
"""Towards one weight for all, for each factor's square."""


@dataclass(frozen=True)
class LearnedFusion:
    """A fusion chosen on questions, and what it was chosen among.

    Attributes:
        fusion: the one.
        questions: it was chosen on.
        curves: method -> nDCG@10 at each of `WEIGHTS`.
        by_question: nDCG@10 of a weight for each question, on questions that it was not fitted to; None: not tried.
        asked: hashes of the questions that it was chosen on, so that nobody is misled by asking them again.
    """

    fusion: Fusion
    questions: int
    curves: dict[Method, list[float]] = field(default_factory=dict)
    by_question: float | None = None
    asked: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For `rag_ft.json` and the report."""
        return asdict(self) | {"fusion": self.fusion.to_dict(), "weights": list(WEIGHTS), "asked": list(self.asked)}

    def to_record(self) -> dict[str, Any]:
        """What a model folder keeps: the fusion, and which questions chose it."""
        return self.fusion.to_dict() | {"asked": list(self.asked)}


def learn_fusion(
    pools: Sequence[Pool], relevant: Sequence[Mapping[str, int]], groups: Sequence[object] = (), seed: int = 0
) -> LearnedFusion:
    """Choose method and weight by nDCG@10 on dev questions.

    A flat optimum is preferred to a sharp one: at each weight the mean with its two neighbours counts, and among
    weights that are as good within .002 the one nearest to the middle. A weight for each question (logistic in
    `FEATURES`, fitted by the listwise softmax loss of ListNet, Cao and others 2007) is taken where it does better by
    .005 on questions that it was not fitted to, in five folds of whole documents.

    Args:
        pools: one for each question.
        relevant: passage -> grade, one for each question.
        groups: for each question its document; each question by itself where empty.
        seed: of the folds.

    Raises:
        InputError: without a question.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.runs.fusion_learning import learn_fusion
        >>> from rag_ft.retrieval.fusion import Pool
        >>> pools = [Pool(["a", "b"], np.array([0.9, 0.1]), np.array([1.0, 2.0]))] * 20
        >>> learn_fusion(pools, [{"a": 1}] * 20).fusion.weight > 0.5
        True
    """
    if not pools:
        raise InputError("a fusion needs questions to be learned on: give a dev split")
    sides = {
        method: [
            (side(pool.dense, np.ones(len(pool.ids), dtype=bool)), side(pool.sparse, pool.sparse > 0)) for pool in pools
        ]
        for method, side in NORMALISE.items()
    }
    gains = [np.array([grades.get(each, 0) for each in pool.ids]) for pool, grades in zip(pools, relevant, strict=True)]
    ideals = [sorted(grades.values(), reverse=True) for grades in relevant]
    curves = {
        method: [
            float(np.mean([_ndcg(w * one + (1 - w) * other, found, ideal) for (one, other), found, ideal in zip(
                pairs, gains, ideals, strict=True)]))
            for w in WEIGHTS
        ]
        for method, pairs in sides.items()
    }  # fmt: skip
    method, weight, level = _flattest(curves)
    fusion = Fusion(method, weight)
    if len(pools) < FEWEST:
        return LearnedFusion(fusion, len(pools), curves)
    features = np.stack([pool.features for pool in pools])
    fold = _folds(groups or range(len(pools)), seed)
    apart = np.zeros(len(pools))
    for part in range(FOLDS):
        others = np.flatnonzero(fold != part)
        found = _fit([sides[method][i] for i in others], [gains[i] for i in others], features[others], weight)
        for i in np.flatnonzero(fold == part):
            w = sigmoid(found[0] + features[i] @ found[1:])
            one, other = sides[method][i]
            apart[i] = _ndcg(w * one + (1 - w) * other, gains[i], ideals[i])
    by_question = float(apart.mean())
    if by_question > level + WORTH_A_WEIGHT_EACH:
        found = _fit(sides[method], gains, features, weight)
        fusion = Fusion(method, weight, tuple(round(float(value), 4) for value in found))
    return LearnedFusion(fusion, len(pools), curves, by_question)


def _flattest(curves: Mapping[Method, Sequence[float]]) -> tuple[Method, float, float]:
    """(method, weight, smoothed nDCG@10) of the best flat place."""
    best: tuple[Method, float, float] | None = None
    for method in get_args(Method):
        padded = np.pad(np.array(curves[method]), 1, mode="edge")
        smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        near = [place for place in range(len(WEIGHTS)) if smooth[place] >= smooth.max() - AS_GOOD]
        place = min(near, key=lambda place: abs(WEIGHTS[place] - 0.5))
        if best is None or smooth[place] > best[2] + AS_GOOD:
            best = (method, WEIGHTS[place], float(smooth[place]))
    assert best is not None
    return best


def _fit(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    gains: Sequence[NDArray[np.int_]],
    features: NDArray[np.float64],
    weight: float,
) -> NDArray[np.float64]:
    """Offset and factors of the logit of a question's weight, shape (1 + features,)."""
    from scipy.optimize import minimize

    known = [place for place, grades in enumerate(gains) if grades.any()]
    start = np.zeros(1 + features.shape[1])
    start[0] = np.log(np.clip(weight, 0.05, 0.95) / np.clip(1 - weight, 0.05, 0.95))
    if not known:
        return start

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total, slope = PULL * float(values[1:] @ values[1:]), np.concatenate([[0.0], 2 * PULL * values[1:]])
        for i in known:
            one, other = pairs[i]
            w = sigmoid(values[0] + features[i] @ values[1:])
            scores = SHARPNESS * (w * one + (1 - w) * other)
            scores -= scores.max()
            chances = np.exp(scores) / np.exp(scores).sum()
            target = gains[i] / gains[i].sum()
            total -= float(target @ (scores - np.log(np.exp(scores).sum()))) / len(known)
            by_weight = SHARPNESS * float((chances - target) @ (one - other)) * w * (1 - w) / len(known)
            slope += by_weight * np.concatenate([[1.0], features[i]])
        return total, slope

    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)


def _folds(groups: Sequence[object], seed: int) -> NDArray[np.int_]:
    """A fold for each question, the same for all of one document."""
    _, member = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(member.max()) + 1)
    return np.asarray(order[member] % FOLDS)


def _ndcg(scores: NDArray[np.float64], gains: NDArray[np.int_], ideal: Sequence[int]) -> float:
    return ndcg_of_gains(gains[np.argsort(-scores, kind="stable")[:10]], ideal, 10)
