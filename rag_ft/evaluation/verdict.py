"""The rules by which a comparison ends in one word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rag_ft.evaluation.significance import Difference

Verdict = Literal["ship", "keep-baseline", "inconclusive"]

ENOUGH_QUESTIONS = 50
WORTHWHILE = 0.01


KINDS = {"known": "new questions, known documents", "new": "new documents"}
"""The two kinds of held-out question, as people read them."""


def decide(
    difference: Difference, questions: int, kinds: Mapping[str, Difference] | None = None
) -> tuple[Verdict, str]:
    """The verdict on a candidate, and its reason in one sentence.

    `ship`: the 95 % interval of the nDCG@10 difference lies above 0, and on no kind of held-out question it lies below
    0. `keep-baseline`: it lies below 0.01, or the mean gain is not above 0. `inconclusive`: anything else, and
    always under 50 questions.

    Args:
        difference: in nDCG@10, over all questions.
        questions: how many.
        kinds: the difference for each kind of held-out question, `known` and `new`; those that there are.

    Example:
        >>> from rag_ft.evaluation.significance import Difference
        >>> from rag_ft.evaluation.verdict import decide
        >>> decide(Difference(0.1, (0.05, 0.15), 0.001), questions=200)[0]
        'ship'
        >>> decide(Difference(0.1, (0.05, 0.15), 0.001), 200, {"new": Difference(-0.1, (-0.2, -0.01), 0.01)})[0]
        'inconclusive'
    """
    low, high = difference.ci95
    if questions < ENOUGH_QUESTIONS:
        return "inconclusive", f"{questions} questions are too few to tell: at least {ENOUGH_QUESTIONS} are needed"
    if low == float("-inf"):
        return "inconclusive", "all questions come from one place: questions on more documents would tell"
    fell = [kind for kind, found in (kinds or {}).items() if found.ci95[1] < 0]
    apart = "; ".join(f"{KINDS[kind]}: {found}" for kind, found in (kinds or {}).items())
    if low > 0 and fell:
        return "inconclusive", f"nDCG@10 rose by {difference.mean:.3f} in all, and fell on {KINDS[fell[0]]} ({apart})"
    if low > 0:
        reason = f"nDCG@10 rose by {difference.mean:.3f}, and the 95 % interval lies above 0"
        return "ship", f"{reason} ({apart})" if len(kinds or {}) > 1 else reason
    if difference.mean <= 0:
        return "keep-baseline", f"nDCG@10 did not rise ({difference})"
    if high < WORTHWHILE:
        return "keep-baseline", f"a gain of {WORTHWHILE} in nDCG@10 is ruled out ({difference})"
    return "inconclusive", f"the gain in nDCG@10 may be chance ({difference}): more test questions would tell"
