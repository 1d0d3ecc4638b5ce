"""What people's votes and picks say of two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import ENOUGH_QUESTIONS, Verdict

if TYPE_CHECKING:
    from rag_ft.feedback.tally import Tally


def judge_votes(tally: Tally, seed: int = 0, voters: str = "people") -> tuple[Verdict, str, Difference]:
    """The verdict on side b, by the statistics that decide a comparison: sessions are resampled, not single votes.

    Where people saw both sides, each question that somebody decided counts -1 (a), 0 (none) or 1 (b), and the mean is
    tested against 0. Where each session saw one side alone (`split`), nobody compares: the sessions' mean ratings of
    the two sides are compared by Welch's t-test, so that a side that was shown more often gains nothing by it. A
    session that its side failed belongs to that side, whoever answered.

    Args:
        tally: of a file of votes (`Votes.tally`).
        seed: of the bootstrap.
        voters: who they are, for the reason.

    Returns:
        (verdict, reason, mean credit of b over a with its interval).

    Example:
        >>> from rag_ft.ab.vote_verdict import judge_votes
        >>> from rag_ft.feedback.tally import Tally
        >>> credit = {f"user-{n}": [1.0, 1.0, 0.0, -1.0] for n in range(40)}
        >>> judge_votes(Tally(credit=credit))[0]
        'ship'
    """
    if tally.credit:
        values = [value for session in tally.credit.values() for value in session]
        groups = [session for session, found in tally.credit.items() for _ in found]
        difference = paired_bootstrap(np.array(values), groups, seed)
        count, sessions = len(values), len(tally.credit)
    else:
        difference = difference_of_groups(tally.ratings)
        count = sum(len(found) for side in tally.ratings.values() for found in side.values())
        sessions = sum(len(side) for side in tally.ratings.values())
    low, high = difference.ci95
    counted = f"{count} questions of {sessions} sessions: {difference} for b"
    if count < ENOUGH_QUESTIONS:
        return (
            "inconclusive",
            f"{count} questions of {sessions} sessions were decided, and at least {ENOUGH_QUESTIONS} are needed",
            difference,
        )
    if low == float("-inf"):
        return (
            "inconclusive",
            f"all votes on a side are of one session ({counted}): those of others would tell",
            difference,
        )
    if low > 0:
        return "ship", f"{voters} prefer b ({counted})", difference
    if high < 0 or difference.mean <= 0:
        return "keep-baseline", f"{voters} do not prefer b ({counted})", difference
    return "inconclusive", f"it may be chance ({counted}): more votes would tell", difference


def difference_of_groups(ratings: Mapping[str, Mapping[str, Sequence[float]]]) -> Difference:
    """Mean rating of b's sessions minus that of a's, by Welch's t-test over sessions, each of which counts once.

    Args:
        ratings: side -> session -> ratings.
    """
    from scipy.stats import ttest_ind

    a, b = (np.array([np.mean(found) for found in ratings.get(side, {}).values() if found]) for side in ("a", "b"))
    if not len(a) or not len(b):
        return Difference(0.0, (float("-inf"), float("inf")), 1.0)
    mean = float(b.mean() - a.mean())
    if len(a) < 2 or len(b) < 2:
        return Difference(mean, (float("-inf"), float("inf")), 1.0)
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Difference(mean, (mean, mean), float(mean == 0))
    test = ttest_ind(b, a, equal_var=False)
    interval = test.confidence_interval(0.95)
    return Difference(mean, (float(interval.low), float(interval.high)), float(test.pvalue))
