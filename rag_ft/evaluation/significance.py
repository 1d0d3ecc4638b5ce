"""Paired significance tests that resample groups of questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000

MAX_GROUPS = 1_000
"""Maximum number of groups. More are merged: the quantile of Student's t is 1.962 here, and 1.960 in the limit."""

NEARLY_ONE = 1 - 1e-12
"""Fraction of the limit at which the scale of Fisher's z ends, because it is infinite at the limit itself."""


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline on the same questions.

    Attributes:
        mean: the mean over all questions.
        ci95: the 95 % confidence interval of the mean, within -`limit` and `limit`.
        p_value: the two-sided p-value of no difference.
        limit: the largest possible absolute mean.
    """

    mean: float
    ci95: tuple[float, float]
    p_value: float
    limit: float = 1.0

    @property
    def is_unknown(self) -> bool:
        """Whether the interval covers every possible difference, as it does if all questions are in one group."""
        return self.ci95[0] <= -self.limit and self.ci95[1] >= self.limit

    def __str__(self) -> str:
        interval = "not known" if self.is_unknown else f"{self.ci95[0]:+z.3f}, {self.ci95[1]:+z.3f}"
        return f"{self.mean:+z.3f} [{interval}]"


@dataclass(frozen=True)
class Evidence:
    """Evidence for a gain in the headline metric, besides its interval.

    Attributes:
        randomisation_p: p-value of `paired_randomisation`.
        adjusted_p: p-value after `holm`'s correction; None for a single candidate.
        smallest_effect: the gain that is significant in 80 of 100 comparisons with as many questions; None if unknown.
    """

    randomisation_p: float
    adjusted_p: float | None = None
    smallest_effect: float | None = None


def paired_bootstrap(
    differences: NDArray[np.float64],
    groups: Sequence[object],
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    limit: float = 1.0,
) -> Difference:
    """Estimate the mean difference and its interval, by resampling groups of questions.

    Questions about one document are not independent, so resampling single questions would give intervals that
    are too narrow. More than a thousand documents are merged at random into a thousand groups, which are just as
    independent.

    The interval is the bootstrap's t-interval (Efron and Tibshirani 1993, 12.5 and 12.6) on the scale of Fisher's z,
    transformed back. So it contains possible differences only. It is never narrower than Student's t-interval on this
    scale: percentiles of the plain bootstrap are too narrow for few groups. The standard error and the degrees of
    freedom allow for documents of unequal size.

    Args:
        differences: candidate minus baseline of each question, shape (questions,).
        groups: the group that each question is resampled with, for example its document.
        seed: seeds the resampling.
        resamples: the number of resamples.
        limit: the largest possible absolute mean. A single difference may be larger if it is weighted.

    Returns:
        The difference. Its interval covers all possible differences if there are no two groups.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import paired_bootstrap
        >>> str(paired_bootstrap(np.tile([0.0, 0.2], 30), range(60)))
        '+0.100 [+0.072, +0.128]'
    """
    from scipy.stats import t

    differences = np.asarray(differences, dtype=float)
    mean = float(differences.mean()) if len(differences) else 0.0
    member = _merged_groups(groups, seed)
    count = _count(member)
    if count < 2:
        return Difference(mean, (-limit, limit), 1.0, limit)
    sums, sizes = np.bincount(member, differences), np.bincount(member).astype(np.float64)
    error = _standard_error(sums, sizes, mean)
    if error < 1e-12:
        return _difference_of_equal_groups(differences, mean, count, limit)
    pivots = _pivots(sums - mean * sizes, sizes, _draws(count, seed, resamples), (mean, limit))
    low, high = np.quantile(pivots, [0.025, 0.975])
    # Studentised pivots of very few groups have wild tails: the interval is never narrower than Student's t.
    freedom = _degrees_of_freedom(sizes)
    floor = float(t.ppf(0.975, freedom))
    low, high = min(float(low), -floor), max(float(high), floor)
    z, slope = fisher_z(mean, limit)
    statistic = abs(z) * slope / error
    p_value = max(float((np.abs(pivots) >= statistic).mean()), float(2 * t.sf(statistic, freedom)))
    interval = from_fisher_z(z - high * error / slope, limit), from_fisher_z(z - low * error / slope, limit)
    return Difference(mean, interval, min(1.0, p_value), limit)


def _difference_of_equal_groups(differences: NDArray[np.float64], mean: float, count: int, limit: float) -> Difference:
    """Estimate the difference if all groups have the same mean, so that resampling them shows no spread."""
    from scipy.stats import t

    if np.ptp(differences) < 1e-12:
        # All questions have the same difference: the chance that so many groups have the same sign (the sign test), and
        # the interval of Clopper and Pearson (1934) for the fraction of groups with the opposite difference.
        p_value = 2.0 ** (1 - count) if abs(mean) > 1e-12 else 1.0
        half = 2 * abs(mean) * unseen_fraction(count)
        return Difference(mean, (max(-limit, mean - half), min(limit, mean + half)), p_value, limit)
    # The groups agree by coincidence, so the spread is estimated from single questions.
    z, slope = fisher_z(mean, limit)
    error = float(differences.std(ddof=1) / np.sqrt(len(differences))) / slope
    half = float(t.ppf(0.975, count - 1)) * error
    interval = from_fisher_z(z - half, limit), from_fisher_z(z + half, limit)
    return Difference(mean, interval, float(2 * t.sf(abs(z) / error, count - 1)), limit)


def fisher_z(mean: float, limit: float) -> tuple[float, float]:
    """Return Fisher's z of a mean, and the slope of the mean over z. The error of z is that of the mean over the slope.

    Example:
        >>> from rag_ft.evaluation.significance import fisher_z
        >>> z, slope = fisher_z(0.5, limit=1.0)
        >>> round(z, 3), round(slope, 3)
        (0.549, 0.75)
    """
    fraction = min(NEARLY_ONE, max(-NEARLY_ONE, mean / limit))
    return math.atanh(fraction), limit * (1 - fraction**2)


def from_fisher_z(z: float, limit: float) -> float:
    """Return the mean with this Fisher's z."""
    return limit * math.tanh(z)


def unseen_fraction(count: int, level: float = 0.05) -> float:
    """Return the largest fraction of unlike groups that a sample of like groups may have missed (Clopper-Pearson).

    Example:
        >>> from rag_ft.evaluation.significance import unseen_fraction
        >>> round(unseen_fraction(60), 3)
        0.06
    """
    return float(1 - (level / 2) ** (1 / count))


def _pivots(
    residuals: NDArray[np.float64],
    sizes: NDArray[np.float64],
    draws: NDArray[np.float64],
    mean_and_limit: tuple[float, float],
) -> NDArray[np.float64]:
    """Return the studentised shift of Fisher's z of the mean in each resample, shape (resamples,)."""
    count, (mean, limit) = len(sizes), mean_and_limit
    moments = np.column_stack([sizes, residuals, residuals**2, residuals * sizes, sizes**2])
    # The standard error of a resample has the same formula, with each group counted as often as it was drawn.
    numbers, shift, *squares = (draws @ moments).T
    shift /= numbers
    spread = squares[0] - 2 * shift * squares[1] + shift**2 * squares[2]
    errors = np.sqrt(np.maximum(spread, 0.0) * count / (count - 1)) / numbers
    fractions = np.clip((mean + shift) / limit, -NEARLY_ONE, NEARLY_ONE)
    shifts_of_z = (np.arctanh(fractions) - fisher_z(mean, limit)[0]) * limit * (1 - fractions**2)
    smallest = np.sqrt((residuals**2).sum()) / sizes.sum() * 1e-6
    return np.divide(shifts_of_z, errors, out=np.zeros_like(shift), where=errors > smallest)


def _merged_groups(groups: Sequence[object], seed: int) -> NDArray[np.int_]:
    """Return the number of each question's group, from 0 on, with at most `MAX_GROUPS` groups."""
    member = _group_numbers(groups)
    count = _count(member)
    if count > MAX_GROUPS:
        return np.asarray(np.random.default_rng(seed).permutation(count) % MAX_GROUPS)[member]
    return member


def _group_numbers(groups: Sequence[object]) -> NDArray[np.int_]:
    return np.asarray(np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)[1])


def _count(member: NDArray[np.int_]) -> int:
    return int(member.max()) + 1 if len(member) else 0


@lru_cache(maxsize=2)
def _draws(count: int, seed: int, resamples: int) -> NDArray[np.float64]:
    """Return how often each group is drawn in each resample, shape (resamples, groups)."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples).astype(float)


def _standard_error(sums: NDArray[Any], sizes: NDArray[Any], mean: float) -> float:
    """Return the jackknife's standard error of the mean: each group is left out once (Efron and Tibshirani 1993, 11.5).

    With groups of equal size it is the standard error of the groups' mean. A large group pulls the mean towards itself,
    which hides its deviation. Leaving it out shows the deviation.
    """
    count = len(sums)
    shifts = (sums - mean * sizes) / (sizes.sum() - sizes)
    return float(np.sqrt((shifts**2).sum() * (count - 1) / count))


def _degrees_of_freedom(sizes: NDArray[np.float64]) -> float:
    """Return the number of groups of equal size that say as much about the mean (Kish 1965, 8.2), less one."""
    return max(1e-3, float(sizes.sum() ** 2 / (sizes**2).sum()) - 1)


def smallest_effect(
    differences: NDArray[np.float64], groups: Sequence[object], power: float = 0.8, *, limit: float = 1.0
) -> float | None:
    """Return the gain that would be significant, given differences with this spread.

    Args:
        differences: candidate minus baseline of each question, shape (questions,).
        groups: the group that each question is resampled with, for example its document.
        power: fraction of comparisons in which the gain is significant.
        limit: the largest possible gain.

    Returns:
        The gain in the unit of the differences; None if all questions are in one group, or if no possible gain is
        significant that often.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import smallest_effect
        >>> spread = np.random.default_rng(0).normal(0, 0.25, 400)
        >>> round(smallest_effect(spread, range(400)), 2)
        0.03
    """
    from scipy.stats import t

    member = _group_numbers(groups)
    if _count(member) < 2:
        return None
    sizes = np.bincount(member).astype(np.float64)
    error = _standard_error(np.bincount(member, differences), sizes, float(np.mean(differences)))
    freedom = _degrees_of_freedom(sizes)
    effect = float((t.ppf(0.975, freedom) + t.ppf(power, freedom)) * error)
    return effect if effect <= limit else None


def paired_randomisation(
    differences: NDArray[np.float64], groups: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> float:
    """Test a difference by flipping the sign of each group at random (Smucker et al. 2007).

    Args:
        differences: candidate minus baseline of each question, shape (questions,).
        groups: the group whose sign is flipped as one, for each question; for example its document.
        seed: seeds the signs.
        resamples: the number of resamples.

    Returns:
        The two-sided p-value. It is never 0, because the measured outcome counts too.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import paired_randomisation
        >>> paired_randomisation(np.full(60, 0.1), range(60)) < 0.001
        True
    """
    member = _merged_groups(groups, seed)
    if not len(member):
        return 1.0
    sums = np.bincount(member, np.asarray(differences, dtype=float))
    generator = np.random.default_rng(seed)
    signs = 2.0 * generator.integers(0, 2, size=(resamples, len(sums)), dtype=np.int8) - 1.0
    measured = abs(float(sums.sum())) - 1e-12
    return (1 + int((np.abs(signs @ sums) >= measured).sum())) / (resamples + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct the p-values of several comparisons for multiple testing (Holm 1979).

    Example:
        >>> from rag_ft.evaluation.significance import holm
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for position, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, value * (len(p_values) - position)))
        adjusted[name] = round(highest, 12)
    return adjusted
