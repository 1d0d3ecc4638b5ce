"""The rules by which a comparison ends in one word."""

from __future__ import annotations

from typing import Literal

from rag_ft.evaluation.significance import Difference

Verdict = Literal["ship", "keep-baseline", "inconclusive"]

ENOUGH_QUESTIONS = 50
WORTHWHILE = 0.01


def decide(difference: Difference, questions: int) -> tuple[Verdict, str]:
    """The verdict on a candidate, and its reason in one sentence.

    `ship`: the 95 % interval of the nDCG@10 difference lies above 0. `keep-baseline`: it lies below 0.01,
    or the mean gain is not above 0. `inconclusive`: anything else, and always under 50 questions.

    Example:
        >>> from rag_ft.evaluation.significance import Difference
        >>> from rag_ft.evaluation.verdict import decide
        >>> decide(Difference(0.1, (0.05, 0.15), 0.001), questions=200)[0]
        'ship'
    """
    low, high = difference.ci95
    if questions < ENOUGH_QUESTIONS:
        return "inconclusive", f"{questions} questions are too few to tell: at least {ENOUGH_QUESTIONS} are needed"
    if low == float("-inf"):
        return "inconclusive", "all questions come from one place: questions on more documents would tell"
    if low > 0:
        return "ship", f"nDCG@10 rose by {difference.mean:.3f}, and the 95 % interval lies above 0"
    if difference.mean <= 0:
        return "keep-baseline", f"nDCG@10 did not rise ({difference})"
    if high < WORTHWHILE:
        return "keep-baseline", f"a gain of {WORTHWHILE} in nDCG@10 is ruled out ({difference})"
    return "inconclusive", f"the gain in nDCG@10 may be chance ({difference}): more test questions would tell"
