"""Which weights are shipped: the base is a candidate, dev decides, and what is not sure to be better stays out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.training.selection.dev_score import FEWEST, dev_score, gain_of
from rag_ft.training.selection.dev_set import Dev, State, interpolate_weights
from rag_ft.training.selection.forgetting import ForgettingProbe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from rag_ft.training.selection.uncovered import UncoveredDocuments

logger = logging.getLogger(__name__)

SURE = 0.1
"""One-sided p-value of a gain on dev, over which the base model stays. The same dev questions chose epoch and share, so
that it promises a little less than it says; the comparison on test questions is what a verdict rests on."""


@dataclass(frozen=True)
class Selection:
    """What the guard chose.

    Attributes:
        share: of the tuned weights; 0 is the base model.
        weights: the ones to ship.
        scores: dev figure by candidate.
        gain: of the chosen one on dev; None for the base.
        refused: candidate -> why it was not taken, though dev liked it.
        general: candidate -> how sure it is of general questions (`ForgettingProbe`).
        values: of the weights on dev, shape (units,); None for the base's.
    """

    share: float
    weights: State
    scores: dict[str, float] = field(default_factory=dict)
    gain: Difference | None = None
    refused: dict[str, str] = field(default_factory=dict)
    general: dict[str, float] = field(default_factory=dict)
    values: NDArray[np.float64] | None = None


def select(
    model: SentenceTransformer,
    base: State,
    tuned: State,
    shares: Sequence[float],
    dev: Dev,
    forgetting: float,
    base_values: NDArray[np.float64],
    tuned_values: NDArray[np.float64],
    uncovered: UncoveredDocuments | None = None,
) -> Selection:
    """Choose how much of the tuned weights to ship.

    A candidate is taken where its dev figure is higher than the base's and that is more than chance, where no making
    of dev questions speaks against it, nor those on known or those on new documents, where it has not forgotten
    more than it may, and where it does not lose on the documents that nobody asks about. The best of those is
    shipped; where there is none, the base model.

    Args:
        model: whose weights are changed in place; it has the chosen ones afterwards.
        base: the base model's weights.
        tuned: those after training.
        shares: the candidates.
        dev: what they are measured by.
        forgetting: how much surer of general questions the base may be (`ForgettingProbe.score`, from 0 to 1).
        base_values: of the base weights on dev, shape (units,).
        tuned_values: of the tuned ones.
        uncovered: the documents that neither train nor dev asks about; None where they are few.
    """
    probe = ForgettingProbe.shipped()
    model.load_state_dict(base)
    general = {"base": probe.score(model)}
    scores = {"base": dev_score(base_values, dev)}
    refused: dict[str, str] = {}
    eligible: list[tuple[float, float, Difference, NDArray[np.float64]]] = []
    for share in shares:
        name = _name(share)
        model.load_state_dict(interpolate_weights(base, tuned, share))
        general[name] = probe.score(model)
        values = tuned_values if share == 1.0 else dev.values(model)
        scores[name] = dev_score(values, dev)
        if not scores[name] > scores["base"]:  # nor where it is not a number
            continue
        gain = gain_of(values - base_values, dev)
        if reason := objection_to(values - base_values, gain, dev):
            refused[name] = reason
            continue
        if not general["base"] - general[name] <= forgetting:
            refused[name] = f"forgets: {general['base']:.3f} -> {general[name]:.3f} on general questions"
            continue
        eligible.append((scores[name], share, gain, values))
    chosen = Selection(0.0, base, scores, None, refused, general)
    before: NDArray[np.float64] | None = None
    for _, share, gain, values in sorted(eligible, key=lambda candidate: -candidate[0]):
        weights = interpolate_weights(base, tuned, share)
        if uncovered is not None and uncovered.questions is not None:
            if before is None:
                model.load_state_dict(base)
                before = uncovered.questions.values(model)
            model.load_state_dict(weights)
            if reason := loss_elsewhere(
                uncovered.questions.values(model) - before, uncovered.questions, uncovered.foreign
            ):
                refused[_name(share)] = reason
                continue
        chosen = replace(chosen, share=share, weights=weights, gain=gain, values=values)
        break
    model.load_state_dict(chosen.weights)
    for name, reason in refused.items():
        logger.info("%s is not taken: %s", name, reason)
    return chosen


def _name(share: float) -> str:
    return f"share {share:g}"


def loss_elsewhere(differences: NDArray[np.float64], questions: Dev, foreign: bool) -> str:
    """Why a model is not fit for the documents that neither train nor dev asks about; empty where it is.

    Args:
        differences: candidate minus base of each question on them, shape (questions,).
        questions: what was measured.
        foreign: whether they are unlike the documents asked about. Then it is not enough not to lose on them.
    """
    found = paired_bootstrap(differences, questions.groups)
    if found.ci95[1] < 0:
        return f"it loses on the documents that neither train nor dev asks about ({found})"
    if foreign and (found.mean <= 0 or found.p_value / 2 > SURE):
        return f"the documents that neither train nor dev asks about are unlike the others, and may not gain ({found})"
    return ""


def gain_to_dict(gain: Difference | None) -> dict[str, Any] | None:
    """A gain as `rag_ft.json` has it; a bound that is not known is null."""
    if gain is None:
        return None
    bounds = [round(bound, 4) if math.isfinite(bound) else None for bound in gain.ci95]
    return {"mean": round(gain.mean, 4), "ci95": bounds}


def why_base(dev: Dev | None, shares: Sequence[float], refused: Mapping[str, str]) -> str:
    """Why the base model stays, where it does.

    Args:
        dev: what chose, if anything.
        shares: of the tuned weights that were allowed.
        refused: candidates that did better on dev, and why they were not taken.

    Example:
        >>> from rag_ft.training.selection.select import why_base
        >>> why_base(None, (1.0,), {})
        'too little can be held out to tell whether a tuned model is better'
    """
    if dev is None:
        return "too little can be held out to tell whether a tuned model is better"
    if not shares:
        return "the base model is at home in this corpus, and generated questions would teach it nothing"
    return "nothing that beat the base model on dev was taken" if refused else "nothing beat the base model on dev"


def objection_to(differences: NDArray[np.float64], gain: Difference, dev: Dev) -> str:
    """Why a gain on dev is not believed; empty where it is.

    Args:
        differences: candidate minus base of each unit, shape (units,).
        gain: their mean over the parts of dev, with its interval.
        dev: what was measured.
    """
    for words, labels in (("of one making ({})", dev.sources), ("on {} documents", dev.kinds)):
        for label in dict.fromkeys(labels):
            chosen = np.asarray(labels) == label
            if chosen.sum() >= FEWEST:
                groups = [group for group, wanted in zip(dev.groups, chosen, strict=True) if wanted]
                part = paired_bootstrap(differences[chosen], groups)
                if part.ci95[1] < 0:
                    return f"it loses on the dev questions {words.format(label)}: {part}"
    if gain.mean <= 0 or gain.p_value / 2 > SURE:
        return f"its gain on dev may be chance ({gain})"
    return ""
