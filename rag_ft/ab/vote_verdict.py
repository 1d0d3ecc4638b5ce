"""The verdict on variant b from votes and picks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import MIN_QUESTIONS, Verdict

if TYPE_CHECKING:
    from rag_ft.feedback.tally import Tally


def decide_from_votes(tally: Tally, seed: int = 0, voters: str = "people") -> tuple[Verdict, str, Difference]:
    """Return the verdict on variant b, with the statistics of a comparison. The bootstrap resamples whole sessions.

    If people saw both variants, each decided question counts -1 (a), 0 (neither) or 1 (b), and the mean is tested
    against 0. If each session saw one variant (`split`), Welch's t-test compares the sessions' mean ratings
    of the two variants, so that a variant gains nothing by being shown more often. A session counts for the variant
    that it was assigned to, even if that one failed and the other one answered.

    Args:
        tally: the tally of a vote log (`Votes.tally`).
        seed: seeds the bootstrap.
        voters: the name of the voters in the reason.

    Returns:
        (verdict, reason, mean credit of b over a with its confidence interval).

    Example:
        >>> from rag_ft.ab.vote_verdict import decide_from_votes
        >>> from rag_ft.feedback.tally import Tally
        >>> credit = {f"user-{n}": [1.0, 1.0, 0.0, -1.0] for n in range(40)}
        >>> decide_from_votes(Tally(credit=credit))[0]
        'ship'
    """
    if tally.credit:
        values = [value for session in tally.credit.values() for value in session]
        groups = [session for session, credits in tally.credit.items() for _ in credits]
        difference = paired_bootstrap(np.array(values), groups, seed)
        count, sessions = len(values), len(tally.credit)
    else:
        difference = difference_of_groups(tally.ratings)
        ratings = [values for by_session in tally.ratings.values() for values in by_session.values()]
        count, sessions = sum(map(len, ratings)), len(ratings)
    low, high = difference.ci95
    evidence = f"{count} questions of {sessions} sessions: {difference} for b"
    if count < MIN_QUESTIONS:
        reason = f"only {count} questions of {sessions} sessions were decided: a verdict needs at least {MIN_QUESTIONS}"
        return "inconclusive", reason, difference
    if low == float("-inf"):
        reason = f"all votes on a variant come from one session ({evidence}): collect votes from more sessions"
        return "inconclusive", reason, difference
    if low > 0:
        return "ship", f"{voters} prefer b ({evidence})", difference
    if high < 0 or difference.mean <= 0:
        return "keep-baseline", f"{voters} do not prefer b ({evidence})", difference
    return "inconclusive", f"the difference may be chance ({evidence}): collect more votes", difference


def difference_of_groups(ratings: Mapping[str, Mapping[str, Sequence[float]]]) -> Difference:
    """Return the mean rating of b's sessions minus that of a's, by Welch's t-test; each session counts once.

    Args:
        ratings: variant -> session -> ratings.
    """
    from scipy.stats import ttest_ind

    a, b = (
        np.array([np.mean(values) for values in ratings.get(variant, {}).values() if values]) for variant in ("a", "b")
    )
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
