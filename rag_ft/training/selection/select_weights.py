"""Select between the base model and models on the line from it to the tuned weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.training.selection.dev_score import MIN_PART
from rag_ft.training.selection.forgetting import ForgettingProbe
from rag_ft.training.selection.select import BASE, Candidate, Policy, Selection, select
from rag_ft.training.selection.weights import Weights, interpolate_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from rag_ft.training.selection.dev_set import Dev
    from rag_ft.training.selection.uncovered import UncoveredDocuments


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Tuned weights, and the alphas to try between them and the base.

    Attributes:
        weights: the weights at alpha 1.
        values: their dev values, shape (units,).
        alphas: the weights of the tuned model to try.
        prefix: prefix of the candidates' names, such as `round 2 `.
    """

    weights: Weights
    values: NDArray[np.float64]
    alphas: tuple[float, ...]
    prefix: str = ""


class WeightSelection:
    """Loads one candidate after the other into a model, measures it, and selects one.

    Args:
        model: the model. Its weights are replaced while candidates are measured; afterwards it has the selected ones.
        base: the base weights.
        dev: the dev set.
        uncovered: documents without questions, if a candidate must not lose on them.
    """

    def __init__(
        self, model: SentenceTransformer, base: Weights, dev: Dev, uncovered: UncoveredDocuments | None = None
    ) -> None:
        self._model, self._base, self._dev, self._uncovered = model, base, dev, uncovered
        self._probe = ForgettingProbe.shipped()
        self._source: dict[str, Tuned] = {}
        self._base_on_uncovered: NDArray[np.float64] | None = None
        self._base_values: NDArray[np.float64] | None = None

    def select(self, base_values: NDArray[np.float64], tuned: list[Tuned], policy: Policy | None = None) -> Selection:
        """Select a candidate and load its weights.

        Args:
            base_values: the base model's dev values, shape (units,).
            tuned: the weights of each round.
            policy: the proof that a candidate needs.
        """
        self._model.load_state_dict(self._base)
        self._base_values = base_values
        base = Candidate(name=BASE, alpha=0.0, values=base_values, general=self._probe.score(self._model))
        veto = self._loss_on_uncovered if self._uncovered is not None and self._uncovered.questions else None
        selection = select(base, self._candidates(tuned), self._dev, policy, veto)
        self._load(selection.name, selection.alpha)
        return selection

    def _candidates(self, tuned: list[Tuned]) -> Iterator[Candidate]:
        for each in tuned:
            for alpha in each.alphas:
                name = f"{each.prefix}alpha {alpha:g}"
                self._source[name] = each
                self._load(name, alpha)
                values = each.values if alpha == 1.0 else self._dev.values(self._model)
                yield Candidate(name=name, alpha=alpha, values=values, general=self._probe.score(self._model))

    def _load(self, name: str, alpha: float) -> None:
        weights = self._base if name == BASE else interpolate_weights(self._base, self._source[name].weights, alpha)
        self._model.load_state_dict(weights)

    def _loss_on_uncovered(self, candidate: Candidate) -> str:
        assert self._uncovered is not None
        assert self._uncovered.questions is not None
        questions = self._uncovered.questions
        if self._base_on_uncovered is None:
            self._load(BASE, 0.0)
            self._base_on_uncovered = questions.values(self._model)
        self._load(candidate.name, candidate.alpha)
        gain = questions.values(self._model) - self._base_on_uncovered
        return self._uncovered.objection_to(gain, self._gain_on_unseen(candidate))

    def _gain_on_unseen(self, candidate: Candidate) -> float | None:
        """Return the mean gain of the dev questions on unseen documents; None if there are few."""
        is_unseen = np.array([status == "unseen" for status in self._dev.documents], dtype=bool)
        if self._base_values is None or is_unseen.sum() < MIN_PART:
            return None
        return float((candidate.values - self._base_values)[is_unseen].mean())
