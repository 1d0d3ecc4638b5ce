"""Select the model to ship: the base is a candidate, and any other needs the proof that a policy asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from rag_ft.evaluation.significance import Difference, holm, paired_bootstrap
from rag_ft.training.selection.dev_score import MIN_PART, dev_gain, dev_parts, dev_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.training.selection.dev_set import Dev

logger = logging.getLogger(__name__)

MAX_P_VALUE = 0.1
"""Maximum one-sided p-value of a gain on dev. The same dev questions selected the epoch and the alpha, so the true
error rate is somewhat higher. Verdicts come from the comparison on test questions."""

BASE = "base"

Rule = Literal["significant", "not-worse", "dev"]

SelectBy = Literal["safe", "dev"]
"""How `train_model` selects: `safe` asks for proof (the rule `significant`), `dev` takes the best dev score."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that may be shipped.

    Attributes:
        name: `base`, `alpha 0.5`, `pull 10`, ...
        alpha: weight of the tuned model, from 0 (the base) to 1.
        values: its dev values, shape (units,).
        general: its score on general questions (`ForgettingProbe`); None if it was not measured.
    """

    name: str
    alpha: float
    values: NDArray[np.float64]
    general: float | None = None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How much proof a candidate needs to replace the base.

    Attributes:
        rule: `significant` asks for a significant gain on dev, and no significant loss on any source of dev questions
            or on seen or unseen documents; `dev` selects the best score above the base's, and `not-worse` also one
            that equals it.
        max_forgetting: maximum drop of the score on general questions.
        reject_any_loss: reject a candidate that loses on a part of dev at all, even if the loss is not significant.
        correct_for_multiple: correct the p-values for the number of candidates (Holm), as for independent attempts.
        seed: seeds the bootstrap.
    """

    rule: Rule = "significant"
    max_forgetting: float = 1.0
    reject_any_loss: bool = False
    correct_for_multiple: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected candidate, and why others were rejected.

    Attributes:
        name: the selected candidate.
        alpha: its weight of the tuned model; 0 is the base.
        scores: dev score by candidate.
        gain: of the selected candidate over the base, on dev; None for the base, and if the policy asks for no proof.
        refused: candidates that beat the base on dev -> why they were rejected.
        refused_gains: rejected candidates -> what they would have gained on dev.
        general: score on general questions by candidate.
        values: the selected candidate's dev values, shape (units,); None for the base.
    """

    name: str = BASE
    alpha: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    gain: Difference | None = None
    refused: dict[str, str] = field(default_factory=dict)
    refused_gains: dict[str, Difference] = field(default_factory=dict)
    general: dict[str, float] = field(default_factory=dict)
    values: NDArray[np.float64] | None = None


def select(
    base: Candidate,
    candidates: Iterable[Candidate],
    dev: Dev,
    policy: Policy | None = None,
    veto: Callable[[Candidate], str] | None = None,
) -> Selection:
    """Select the candidate with the best dev score among those that a policy accepts; the base if there is none.

    Args:
        base: the base model.
        candidates: the other candidates. The first of equal scores is preferred. A generator may measure them lazily.
        dev: the dev set that their values were measured on.
        policy: the proof that a candidate needs.
        veto: a last check, called for the best candidates first. It returns why a candidate is rejected, or "".

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> from rag_ft.training.selection.select import Candidate, select
        >>> dev = SimpleNamespace(sources=["real"] * 60, documents=[], groups=list(range(60)))
        >>> values = np.random.default_rng(0).uniform(0.2, 0.6, 60)
        >>> base = Candidate(name="base", alpha=0.0, values=values)
        >>> select(base, [Candidate(name="alpha 1", alpha=1.0, values=values + 0.2)], dev).name
        'alpha 1'
    """
    policy = policy or Policy()
    candidates = list(candidates)
    by_name = {candidate.name: candidate for candidate in (base, *candidates)}
    scores = {name: dev_score(candidate.values, dev) for name, candidate in by_name.items()}
    accepted = [each for each in candidates if scores[each.name] > scores[base.name]]
    refused: dict[str, str] = {}
    if policy.rule == "not-worse":
        accepted = [each for each in candidates if scores[each.name] >= scores[base.name]]
    elif policy.rule == "significant":
        refused = _chance_findings(base, candidates, dev, policy) | _objections(base, accepted, dev, policy)
        accepted = [each for each in accepted if each.name not in refused]
    chosen = base
    for candidate in sorted(accepted, key=lambda each: -scores[each.name]):
        if veto is not None and (reason := veto(candidate)):
            refused[candidate.name] = reason
            continue
        chosen = candidate
        break
    for name, reason in refused.items():
        logger.debug("%s rejected: %s", name, reason)
    is_base, has_gain = chosen is base, policy.rule != "not-worse"
    return Selection(
        name=chosen.name,
        alpha=chosen.alpha,
        scores=scores,
        gain=None if is_base or not has_gain else dev_gain(chosen.values - base.values, dev, policy.seed),
        refused=refused,
        refused_gains={name: dev_gain(by_name[name].values - base.values, dev, policy.seed) for name in refused},
        general={name: each.general for name, each in by_name.items() if each.general is not None},
        values=None if is_base else chosen.values,
    )


def _objections(base: Candidate, better: Iterable[Candidate], dev: Dev, policy: Policy) -> dict[str, str]:
    """Return candidate -> why its gain is not accepted."""
    reasons = {each.name: _objection(base, each, dev, policy) for each in better}
    return {name: reason for name, reason in reasons.items() if reason}


def _objection(base: Candidate, candidate: Candidate, dev: Dev, policy: Policy) -> str:
    differences = candidate.values - base.values
    if policy.reject_any_loss and (reason := _losing_part(differences, dev)):
        return reason
    if reason := objection_to(differences, dev, policy.seed):
        return reason
    if base.general is None or candidate.general is None or base.general - candidate.general <= policy.max_forgetting:
        return ""
    return f"forgets: {base.general:.3f} -> {candidate.general:.3f} on general questions"


def objection_to(differences: NDArray[np.float64], dev: Dev, seed: int = 0) -> str:
    """Return why a gain on dev is not accepted, or "".

    Args:
        differences: candidate minus base for each unit, shape (units,).
        dev: the dev set that was measured.
        seed: seeds the bootstrap.
    """
    for template, labels in (("from source {!r}", dev.sources), ("about {} documents", dev.documents)):
        for label in dict.fromkeys(labels):
            part = np.asarray(labels) == label
            if part.sum() >= MIN_PART:
                groups = [group for group, is_part in zip(dev.groups, part, strict=True) if is_part]
                difference = paired_bootstrap(differences[part], groups)
                if difference.ci95[1] < 0:
                    return f"it loses on the dev questions {template.format(label)} ({difference})"
    gain = dev_gain(differences, dev, seed)
    if gain.mean <= 0 or gain.p_value / 2 > MAX_P_VALUE:
        return f"its gain on dev may be chance ({gain})"
    return ""


def _losing_part(differences: NDArray[np.float64], dev: Dev) -> str:
    parts = np.asarray(dev_parts(dev))
    for part in dict.fromkeys(parts.tolist()):
        in_part = parts == part
        if in_part.sum() >= MIN_PART and (mean := float(differences[in_part].mean())) < 0:
            return f"it loses on one part of the dev questions ({part}: {mean:+.3f})"
    return ""


def _chance_findings(base: Candidate, candidates: Iterable[Candidate], dev: Dev, policy: Policy) -> dict[str, str]:
    """Return candidate -> why its gain may be chance, given how many candidates were tried."""
    if not policy.correct_for_multiple:
        return {}
    gains = {each.name: dev_gain(each.values - base.values, dev, policy.seed) for each in candidates}
    # One-sided, like `MAX_P_VALUE`. A candidate that loses counts as an attempt too.
    attempts = {name: gain.p_value / 2 if gain.mean > 0 else 1.0 for name, gain in gains.items()}
    return {
        name: f"its gain on dev may be chance, because {len(attempts)} candidates were tried ({gains[name]})"
        for name, p_value in holm(attempts).items()
        if p_value > MAX_P_VALUE and gains[name].mean > 0
    }


def why_base(dev: Dev | None, alphas: Iterable[float], refused: Mapping[str, str]) -> str:
    """Return why the base model stays.

    Args:
        dev: the dev set, if there is one.
        alphas: the weights of the tuned model that were allowed.
        refused: candidates that beat the base on dev -> why they were rejected.

    Example:
        >>> from rag_ft.training.selection.select import why_base
        >>> why_base(None, (1.0,), {})
        'too few questions can be held out to test whether a tuned model is better'
    """
    if dev is None:
        return "too few questions can be held out to test whether a tuned model is better"
    if not tuple(alphas):
        return "the base model already does well on this corpus, so generated questions would not help"
    if refused:
        return "every candidate that beat the base model on dev was rejected"
    return "no candidate beat the base model on dev"
