"""The rules for the verdict on a candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rag_ft.evaluation.retriever_choice import MARGIN
from rag_ft.evaluation.significance import Difference
from rag_ft.evaluation.slices import SLICE_TITLES

Verdict = Literal["ship", "keep-baseline", "inconclusive"]

MIN_QUESTIONS = 50
"""Minimum number of questions for a verdict."""

MIN_GAIN = 0.01
"""Gain in nDCG@10 that is worth a change."""

SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class VerdictRules:
    """The limits of a verdict.

    Attributes:
        min_questions: minimum number of questions; with fewer the verdict is `inconclusive`.
        min_gain: gain in nDCG@10 that is worth a change. The baseline stays if the interval lies below it.
        max_slowdown: maximum time of a query, as a multiple of the baseline's.
        max_growth: maximum size of a vector, as a multiple of the baseline's.
        margin: loss in nDCG@10 up to which a simpler retriever is preferred to the best one.

    Example:
        >>> from rag_ft.evaluation import CompareOptions, VerdictRules
        >>> CompareOptions(rules=VerdictRules(min_questions=200)).rules.min_gain
        0.01
    """

    min_questions: int = MIN_QUESTIONS
    min_gain: float = MIN_GAIN
    max_slowdown: float = 3.0
    max_growth: float = 3.0
    margin: float = MARGIN


@dataclass(frozen=True)
class Costs:
    """What a candidate costs, as multiples of the baseline.

    Attributes:
        time: time of a query.
        size: size of the index.
    """

    time: float = 1.0
    size: float = 1.0


def decide(
    difference: Difference,
    questions: int,
    slices: Mapping[str, Difference] | None = None,
    *,
    rules: VerdictRules | None = None,
    costs: Costs | None = None,
    adjusted_p: float | None = None,
    few_documents: bool = False,
) -> tuple[Verdict, str]:
    """Return the verdict on a candidate.

    `ship`: the 95 % interval of the difference in nDCG@10 lies above 0, and on no slice does it lie below 0. With
    several candidates, the p-value after Holm's correction is below .05 too. The gain must be larger than losses that
    are too rare to be among the questions. A candidate that takes over 3 times the baseline's time or index size is
    `inconclusive`: people decide whether the gain is worth it.
    `keep-baseline`: the interval lies below 0.01, or the mean difference is not above 0. `inconclusive`: anything else,
    and always with under 50 questions.

    Args:
        difference: difference in nDCG@10 over all questions.
        questions: the number of questions.
        slices: difference on each slice of held-out questions (see `SLICE_TITLES`).
        rules: other limits than these.
        costs: what the candidate costs.
        adjusted_p: p-value after Holm's correction (`holm`); None for a single candidate.
        few_documents: whether the questions are about too few documents to tell about others. Then the reason says that
            the verdict is about these documents.

    Returns:
        The verdict, and its reason in one sentence.

    Example:
        >>> from rag_ft.evaluation.significance import Difference
        >>> from rag_ft.evaluation.verdict import decide
        >>> decide(Difference(0.1, (0.05, 0.15), 0.001), questions=200)[0]
        'ship'
        >>> decide(Difference(0.1, (0.05, 0.15), 0.001), 200, {"new": Difference(-0.1, (-0.2, -0.01), 0.01)})[0]
        'inconclusive'
    """
    rules, slices = rules or VerdictRules(), slices or {}
    here = " on these documents" if few_documents else ""
    low, high = difference.ci95
    if questions < rules.min_questions:
        return "inconclusive", too_few(questions, rules.min_questions)
    if difference.is_unknown:
        return "inconclusive", "the questions are about too few documents: add questions about other documents"
    if low > 0:
        rise = f"nDCG@10 rose by {difference.mean:.3f}{here}"
        objection = _objection(slices, rules, costs or Costs(), adjusted_p) or _unseen_losses(difference, questions)
        if objection:
            return "inconclusive", rise + objection
        by_slice = f" ({_list_slices(slices)})" if len(slices) > 1 else ""
        return "ship", f"{rise}, and the 95 % interval lies above 0{by_slice}"
    if difference.mean <= 0:
        return "keep-baseline", f"nDCG@10 did not rise{here} ({difference})"
    if high < rules.min_gain:
        return "keep-baseline", f"a gain of {rules.min_gain:g} in nDCG@10 is ruled out{here} ({difference})"
    return "inconclusive", f"the gain in nDCG@10{here} may be chance ({difference}): add test questions"


def too_few(questions: int, minimum: int) -> str:
    """Return the reason of a verdict on too few questions."""
    count = "1 question is" if questions == 1 else f"{questions} questions are"
    return f"{count} too few for a verdict: at least {minimum} are needed"


def _objection(
    slices: Mapping[str, Difference], rules: VerdictRules, costs: Costs, adjusted_p: float | None
) -> str | None:
    """Return why a candidate with a significant gain is not shipped, or None if nothing speaks against it."""
    fell = next((name for name, change in slices.items() if change.ci95[1] < 0), None)
    if fell is not None:
        return f" overall, but fell on {SLICE_TITLES[fell]} ({_list_slices(slices)})"
    if adjusted_p is not None and adjusted_p >= SIGNIFICANCE_LEVEL:
        return f", which may be chance with so many candidates (p {adjusted_p:.3f} after Holm's correction)"
    if costs.time > rules.max_slowdown:
        return f", and each question takes {costs.time:.1f} times as long: decide whether that is worth it"
    if costs.size > rules.max_growth:
        return f", and the index is {costs.size:.1f} times as large: decide whether that is worth it"
    return None


def _unseen_losses(difference: Difference, questions: int) -> str | None:
    """Return why a significant gain is too small for so few questions, or None.

    If one in `questions` loses everything, a sample of so many questions often shows no such loss. The spread of these
    losses adds (1 / questions)² to the variance of the mean, and twice its root to the interval.
    """
    below = difference.mean - difference.ci95[0]
    if difference.mean > math.hypot(below, 2 * difference.limit / questions):
        return None
    return f", but {questions} questions may show no rare large loss, which could undo so small a gain: add questions"


def _list_slices(slices: Mapping[str, Difference]) -> str:
    return "; ".join(f"{SLICE_TITLES[name]}: {difference}" for name, difference in slices.items())
