"""The verdict on variant b from votes and picks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.significance import Difference, fisher_z, from_fisher_z, paired_bootstrap, unseen_fraction
from rag_ft.evaluation.verdict import MIN_QUESTIONS, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.feedback.tally import Tally

MAX_RATING = 1.0
"""Largest rating; the smallest is -1 (`Tally.ratings`)."""

MAX_DIFFERENCE = 2 * MAX_RATING


def decide_from_votes(tally: Tally, seed: int = 0, voters: str = "people") -> tuple[Verdict, str, Difference]:
    """Return the verdict on variant b, with the statistics of a comparison. The bootstrap resamples whole sessions.

    If people saw both variants, each decided question counts -1 (a), 0 (neither) or 1 (b), and the mean is tested
    against 0. If each session saw one variant (`split`), the sessions' mean ratings of the two variants are
    compared (`difference_of_groups`), so that a variant gains nothing by being shown more often. A session counts for
    the variant that it was assigned to, even if that one failed and the other one answered.

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
    if difference.is_unknown:
        reason = f"almost all votes on a variant come from one session ({evidence}): collect votes from more sessions"
        return "inconclusive", reason, difference
    if low > 0:
        return "ship", f"{voters} prefer b ({evidence})", difference
    if high < 0 or difference.mean <= 0:
        return "keep-baseline", f"{voters} do not prefer b ({evidence})", difference
    return "inconclusive", f"the difference may be chance ({evidence}): collect more votes", difference


def difference_of_groups(ratings: Mapping[str, Mapping[str, Sequence[float]]]) -> Difference:
    """Return the mean rating of b's sessions minus that of a's; each session counts once.

    The interval combines those of the two means (MOVER, Zou and Donner 2008), which need not have the same spread. It
    contains possible differences only, and all of them if a variant was rated in fewer than two sessions.

    Args:
        ratings: variant -> session -> ratings from -1 to 1.

    Example:
        >>> from rag_ft.ab.vote_verdict import difference_of_groups
        >>> ratings = {"a": {f"u{n}": [0.0, -1.0] for n in range(9)}, "b": {f"v{n}": [1.0] for n in range(9)}}
        >>> str(difference_of_groups(ratings))
        '+1.500 [+0.659, +1.668]'
    """
    a, b = (
        np.array([np.mean(values) for values in ratings.get(variant, {}).values() if values]) for variant in ("a", "b")
    )
    mean = float(b.mean() - a.mean()) if len(a) and len(b) else 0.0
    if len(a) < 2 or len(b) < 2:
        return Difference(mean, (-MAX_DIFFERENCE, MAX_DIFFERENCE), 1.0, MAX_DIFFERENCE)
    return Difference(mean, _interval_of_difference(a, b, 0.05), _p_value(a, b), MAX_DIFFERENCE)


def _interval_of_difference(a: NDArray[np.float64], b: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Combine the intervals of two means into that of b's mean minus a's."""
    (low_a, high_a), (low_b, high_b) = (_interval_of_mean(values, level) for values in (a, b))
    mean_a, mean_b = float(a.mean()), float(b.mean())
    mean = mean_b - mean_a
    return mean - math.hypot(mean_b - low_b, high_a - mean_a), mean + math.hypot(high_b - mean_b, mean_a - low_a)


def _interval_of_mean(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the interval of a mean rating: Student's t-interval on the scale of Fisher's z, transformed back."""
    from scipy.stats import t

    count, mean = len(values), float(values.mean())
    if np.ptp(values) < 1e-12:
        unseen = unseen_fraction(count, level)
        return mean - unseen * (mean + MAX_RATING), mean + unseen * (MAX_RATING - mean)
    z, slope = fisher_z(mean, MAX_RATING)
    half = float(t.ppf(1 - level / 2, count - 1) * values.std(ddof=1)) / math.sqrt(count) / slope
    return from_fisher_z(z - half, MAX_RATING), from_fisher_z(z + half, MAX_RATING)


def _p_value(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the largest level at which the interval of the difference contains 0, by bisection."""
    contains, excludes = 0.0, 1.0
    for _ in range(40):
        level = (contains + excludes) / 2
        low, high = _interval_of_difference(a, b, level)
        contains, excludes = (level, excludes) if low <= 0 <= high else (contains, level)
    return excludes
