"""Paired significance tests that resample groups of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000

MAX_GROUPS = 1_000
"""Maximum number of groups. More are merged: the quantile of Student's t is 1.962 here, and 1.960 in the limit."""


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline on the same questions.

    Attributes:
        mean: the mean over all questions.
        ci95: the 95 % confidence interval of the mean.
        p_value: the two-sided p-value of no difference.
    """

    mean: float
    ci95: tuple[float, float]
    p_value: float

    def __str__(self) -> str:
        return f"{self.mean:+z.3f} [{self.ci95[0]:+z.3f}, {self.ci95[1]:+z.3f}]"


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
    differences: NDArray[np.float64], groups: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Estimate the mean difference and its interval, by resampling groups of questions.

    Questions about one document are not independent, so resampling single questions would give intervals that
    are too narrow. More than a thousand documents are merged at random into a thousand groups, which are just as
    independent. The interval is the bootstrap's t-interval (Efron and Tibshirani 1993, 12.5) with the group bootstrap's
    own standard error: percentiles of the plain bootstrap are too narrow for few groups.

    Args:
        differences: candidate minus baseline of each question, shape (questions,).
        groups: the group that each question is resampled with, for example its document.
        seed: seeds the resampling.
        resamples: the number of resamples.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import paired_bootstrap
        >>> str(paired_bootstrap(np.full(60, 0.1), range(60)))
        '+0.100 [+0.100, +0.100]'
    """
    from scipy.stats import t

    differences = np.asarray(differences, dtype=float)
    mean = float(differences.mean()) if len(differences) else 0.0
    member = _merged_groups(groups, seed)
    count = _count(member)
    if count < 2:
        return Difference(mean, (float("-inf"), float("inf")) if mean else (0.0, 0.0), 1.0)
    sums, sizes = np.bincount(member, differences), np.bincount(member).astype(np.float64)
    error = _standard_error(sums, sizes, mean)
    if error < 1e-12:
        return _difference_of_equal_groups(differences, mean, count)
    pivots = _pivots(sums - mean * sizes, sizes, error, _draws(count, seed, resamples))
    low, high = np.quantile(pivots, [0.025, 0.975])
    # Studentised pivots of very few groups have wild tails: the interval is never narrower than Student's t.
    floor = float(t.ppf(0.975, count - 1))
    low, high = min(float(low), -floor), max(float(high), floor)
    statistic = mean / error
    p_value = float(max((np.abs(pivots) >= abs(statistic)).mean(), 2 * t.sf(abs(statistic), count - 1)))
    return Difference(mean, (mean - high * error, mean - low * error), min(1.0, p_value))


def _difference_of_equal_groups(differences: NDArray[np.float64], mean: float, count: int) -> Difference:
    """Estimate the difference if all groups have the same mean, so that resampling them shows no spread."""
    from scipy.stats import t

    if np.ptp(differences) < 1e-12:
        # All questions have the same difference: the chance that so many groups have the same sign (the sign test).
        p_value = 2.0 ** (1 - count) if abs(mean) > 1e-12 else 1.0
        significant = p_value < 0.05 or not mean
        return Difference(mean, (mean, mean) if significant else (float("-inf"), float("inf")), p_value)
    # The groups agree by coincidence, so the spread is estimated from single questions.
    quantile = t.ppf(0.975, count - 1)
    half = float(quantile * differences.std(ddof=1) / np.sqrt(len(differences)))
    return Difference(mean, (mean - half, mean + half), float(2 * t.sf(abs(mean) * quantile / half, count - 1)))


def _pivots(
    residuals: NDArray[np.float64], sizes: NDArray[np.float64], error: float, draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the studentised shift of the mean in each resample, shape (resamples,)."""
    count = len(sizes)
    moments = np.column_stack([sizes, residuals, residuals**2, residuals * sizes, sizes**2])
    # The standard error of a resample has the same formula, with each group counted as often as it was drawn.
    numbers, shift, *squares = (draws @ moments).T
    shift /= numbers
    spread = squares[0] - 2 * shift * squares[1] + shift**2 * squares[2]
    errors = np.sqrt(np.maximum(spread, 0.0) * count / (count - 1)) / numbers
    return np.divide(shift, errors, out=np.zeros_like(shift), where=errors > error * 1e-6)


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
    """Return the standard error of a ratio estimate over groups (Cochran 1977, 6.3)."""
    count = len(sums)
    residuals = sums - mean * sizes
    return float(np.sqrt((residuals**2).sum() * count / (count - 1)) / sizes.sum())


def smallest_effect(differences: NDArray[np.float64], groups: Sequence[object], power: float = 0.8) -> float | None:
    """Return the gain that would be significant, given differences with this spread.

    Args:
        differences: candidate minus baseline of each question, shape (questions,).
        groups: the group that each question is resampled with, for example its document.
        power: fraction of comparisons in which the gain is significant.

    Returns:
        The gain in the unit of the differences; None if all questions are in one group.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import smallest_effect
        >>> spread = np.random.default_rng(0).normal(0, 0.25, 400)
        >>> round(smallest_effect(spread, range(400)), 2)
        0.03
    """
    from scipy.stats import t

    member = _group_numbers(groups)
    count = _count(member)
    if count < 2:
        return None
    sizes = np.bincount(member).astype(np.float64)
    error = _standard_error(np.bincount(member, differences), sizes, float(np.mean(differences)))
    return float((t.ppf(0.975, count - 1) + t.ppf(power, count - 1)) * error)


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
