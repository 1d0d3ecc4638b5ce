"""The rules by which a comparison ends in one word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rag_ft.evaluation.significance import Difference

Verdict = Literal["ship", "keep-baseline", "inconclusive"]

ENOUGH_QUESTIONS = 50
WORTHWHILE = 0.01
CHANCE = 0.05


@dataclass(frozen=True)
class VerdictRules:
    """The rules of a verdict, which can be set.

    Attributes:
        enough_questions: under so many no verdict is given.
        worthwhile: gain in nDCG@10 that is not worth a change when it is ruled out.
        slower: times the baseline's time of a question that a candidate may take.
        larger: times the numbers in the baseline's vectors that a candidate's may have.
    """

    enough_questions: int = ENOUGH_QUESTIONS
    worthwhile: float = WORTHWHILE
    slower: float = 3.0
    larger: float = 3.0


@dataclass(frozen=True)
class Costs:
    """What a candidate takes, as times what the baseline takes.

    Attributes:
        time: of a question.
        size: of the index.
    """

    time: float = 1.0
    size: float = 1.0


KINDS = {
    "known": "new questions, known documents",
    "new": "new documents",
    "earlier": "earlier questions",
    "later": "later questions",
}
"""The kinds of held-out question, as people read them; the last two where a dataset was merged with an earlier one."""


def decide(
    difference: Difference,
    questions: int,
    kinds: Mapping[str, Difference] | None = None,
    *,
    rules: VerdictRules | None = None,
    costs: Costs | None = None,
    adjusted: float | None = None,
) -> tuple[Verdict, str]:
    """The verdict on a candidate, and its reason in one sentence.

    `ship`: the 95 % interval of the nDCG@10 difference lies above 0, and on no kind of held-out question it lies below
    0; where several candidates are compared, the p-value that Holm's method makes of it is under .05 too. What takes
    over 3 times the baseline's time of a question, or of its index, is left to a person: `inconclusive`.
    `keep-baseline`: the interval lies below 0.01, or the mean gain is not above 0. `inconclusive`: anything else, and
    always under 50 questions.

    Args:
        difference: in nDCG@10, over all questions.
        questions: how many.
        kinds: the difference for each kind of held-out question (`KINDS`); those that there are.
        rules: with other numbers than these.
        costs: of the candidate.
        adjusted: the p-value for several candidates (`holm`); None for one.

    Example:
        >>> from rag_ft.evaluation.significance import Difference
        >>> from rag_ft.evaluation.verdict import decide
        >>> decide(Difference(0.1, (0.05, 0.15), 0.001), questions=200)[0]
        'ship'
        >>> decide(Difference(0.1, (0.05, 0.15), 0.001), 200, {"new": Difference(-0.1, (-0.2, -0.01), 0.01)})[0]
        'inconclusive'
    """
    rules, costs = rules or VerdictRules(), costs or Costs()
    low, high = difference.ci95
    if questions < rules.enough_questions:
        return (
            "inconclusive",
            f"{questions} questions are too few to tell: at least {rules.enough_questions} are needed",
        )
    if low == float("-inf"):
        return "inconclusive", "the questions come from too few places: questions on more documents would tell"
    fell = [kind for kind, found in (kinds or {}).items() if found.ci95[1] < 0]
    apart = "; ".join(f"{KINDS[kind]}: {found}" for kind, found in (kinds or {}).items())
    if low > 0 and fell:
        return "inconclusive", f"nDCG@10 rose by {difference.mean:.3f} in all, and fell on {KINDS[fell[0]]} ({apart})"
    if low > 0 and adjusted is not None and adjusted >= CHANCE:
        return "inconclusive", (
            f"nDCG@10 rose by {difference.mean:.3f}, which may be chance where so many candidates are tried "
            f"(p {adjusted:.3f} after Holm's correction)"
        )
    if low > 0 and (costs.time > rules.slower or costs.size > rules.larger):
        dear = (
            f"each question takes {costs.time:.1f} times as long"
            if costs.time > rules.slower
            else f"the index is {costs.size:.1f} times as large"
        )
        return (
            "inconclusive",
            f"nDCG@10 rose by {difference.mean:.3f}, and {dear}: whether that is worth it is yours to say",
        )
    if low > 0:
        reason = f"nDCG@10 rose by {difference.mean:.3f}, and the 95 % interval lies above 0"
        return "ship", f"{reason} ({apart})" if len(kinds or {}) > 1 else reason
    if difference.mean <= 0:
        return "keep-baseline", f"nDCG@10 did not rise ({difference})"
    if high < rules.worthwhile:
        return "keep-baseline", f"a gain of {rules.worthwhile:g} in nDCG@10 is ruled out ({difference})"
    return "inconclusive", f"the gain in nDCG@10 may be chance ({difference}): more test questions would tell"
