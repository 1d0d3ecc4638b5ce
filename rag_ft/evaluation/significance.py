"""Is a difference more than chance: a paired bootstrap over groups of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000

MOST_GROUPS = 1_000
"""Of more, several are resampled together: the quantile of Student's t is 1.962 there, and 1.960 without end."""


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline, on the same questions.

    Attributes:
        mean: over all questions.
        ci95: the interval that holds the true mean in 95 of 100 such comparisons.
        p_value: two-sided, against a difference of 0.
    """

    mean: float
    ci95: tuple[float, float]
    p_value: float

    def __str__(self) -> str:
        return f"{self.mean:+z.3f} [{self.ci95[0]:+z.3f}, {self.ci95[1]:+z.3f}]"


@dataclass(frozen=True)
class Evidence:
    """What else speaks for or against chance, beside the interval of the headline metric.

    Attributes:
        randomisation_p: of `paired_randomisation`.
        adjusted_p: of `holm` where several candidates are compared; None for one.
        smallest_effect: the gain that so many questions would show in 80 of 100 comparisons; None where it cannot be
            told.
    """

    randomisation_p: float
    adjusted_p: float | None = None
    smallest_effect: float | None = None


def paired_bootstrap(
    differences: NDArray[np.float64], groups: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Resample groups of questions with all that belongs to them, and look how the mean moves.

    Questions on one document are not independent: resampling single questions would promise too much. Documents
    beyond a thousand are joined at random into a thousand groups, which are as independent as they are. The interval
    is the bootstrap's t-interval (Efron and Tibshirani 1993, 12.5) with the group bootstrap's own standard error:
    percentiles of the plain bootstrap are too narrow for few groups.

    Args:
        differences: candidate minus baseline of each question, shape (questions,).
        groups: for each question what it is resampled with: its document.
        seed: of the draw.
        resamples: how many.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import paired_bootstrap
        >>> str(paired_bootstrap(np.full(60, 0.1), range(60)))
        '+0.100 [+0.100, +0.100]'
    """
    from scipy.stats import t

    differences = np.asarray(differences, dtype=float)
    mean = float(differences.mean()) if len(differences) else 0.0
    member = _members(groups, seed)
    count = int(member.max()) + 1 if len(member) else 0
    if count < 2:
        return Difference(mean, (float("-inf"), float("inf")) if mean else (0.0, 0.0), 1.0)
    sums, sizes = np.bincount(member, differences), np.bincount(member).astype(np.float64)
    error = _standard_error(sums, sizes, mean)
    if error < 1e-12:
        if np.ptp(differences) < 1e-12:
            # All alike: how often that many groups would fall on one side by chance (the sign test).
            p_value = 2.0 ** (1 - count) if abs(mean) > 1e-12 else 1.0
            told = p_value < 0.05 or not mean
            return Difference(mean, (mean, mean) if told else (float("-inf"), float("inf")), p_value)
        # Groups that happen to agree say nothing about their spread: single questions do.
        half = float(t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(len(differences)))
        return Difference(
            mean, (mean - half, mean + half), float(2 * t.sf(abs(mean) * t.ppf(0.975, count - 1) / half, count - 1))
        )
    residuals = sums - mean * sizes
    moments = np.column_stack([sizes, residuals, residuals**2, residuals * sizes, sizes**2])
    # The spread of each resample: the same formula, with each group counted as often as it was drawn.
    numbers, shift, *squares = (_draws(count, seed, resamples) @ moments).T
    shift /= numbers
    spread = squares[0] - 2 * shift * squares[1] + shift**2 * squares[2]
    errors = np.sqrt(np.maximum(spread, 0.0) * count / (count - 1)) / numbers
    pivots = np.divide(shift, errors, out=np.zeros_like(shift), where=errors > error * 1e-6)
    low, high = np.quantile(pivots, [0.025, 0.975])
    # Studentised pivots of very few groups have wild tails; Student's t is the floor of honesty there.
    floor = float(t.ppf(0.975, count - 1))
    low, high = min(float(low), -floor), max(float(high), floor)
    statistic = mean / error
    p_value = float(max((np.abs(pivots) >= abs(statistic)).mean(), 2 * t.sf(abs(statistic), count - 1)))
    return Difference(mean, (mean - high * error, mean - low * error), min(1.0, p_value))


def _members(groups: Sequence[object], seed: int) -> NDArray[np.int_]:
    """For each question the number of its group, from 0 on."""
    _, member = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    count = int(member.max()) + 1 if len(member) else 0
    if count > MOST_GROUPS:
        return np.asarray(np.random.default_rng(seed).permutation(count) % MOST_GROUPS)[member]
    return np.asarray(member)


@lru_cache(maxsize=2)
def _draws(count: int, seed: int, resamples: int) -> NDArray[np.float64]:
    """How often each group is drawn in each resample, shape (resamples, groups); one draw for all of a comparison."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples).astype(float)


def _standard_error(sums: NDArray[Any], sizes: NDArray[Any], mean: float) -> float:
    """Of a ratio estimate over groups (Cochran 1977, 6.3)."""
    count = len(sums)
    residuals = sums - mean * sizes
    return float(np.sqrt((residuals**2).sum() * count / (count - 1)) / sizes.sum())


def smallest_effect(differences: NDArray[np.float64], groups: Sequence[object], power: float = 0.8) -> float | None:
    """The gain that would show, in so many of a hundred comparisons, with differences that spread as these do.

    Args:
        differences: of each question, shape (questions,).
        groups: for each question what it is resampled with: its document.
        power: share of comparisons in which it shows.

    Returns:
        In the unit of the differences; None where all questions come from one place.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import smallest_effect
        >>> spread = np.random.default_rng(0).normal(0, 0.25, 400)
        >>> round(smallest_effect(spread, range(400)), 2)
        0.03
    """
    from scipy.stats import t

    _, member = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    count = int(member.max()) + 1 if len(member) else 0
    if count < 2:
        return None
    error = _standard_error(
        np.bincount(member, differences), np.bincount(member).astype(np.float64), float(np.mean(differences))
    )
    return float((t.ppf(0.975, count - 1) + t.ppf(power, count - 1)) * error)


def paired_randomisation(
    differences: NDArray[np.float64], groups: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> float:
    """How often a mean as far from 0 comes out where each group's sign is a coin's (Smucker et al. 2007).

    Args:
        differences: candidate minus baseline of each question, shape (questions,).
        groups: for each question what its sign is flipped with: its document.
        seed: of the coins.
        resamples: how many.

    Returns:
        The two-sided p-value; never 0, since what was measured is one of the outcomes.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.significance import paired_randomisation
        >>> paired_randomisation(np.full(60, 0.1), range(60)) < 0.001
        True
    """
    member = _members(groups, seed)
    if not len(member):
        return 1.0
    sums = np.bincount(member, np.asarray(differences, dtype=float))
    generator = np.random.default_rng(seed)
    signs = 2.0 * generator.integers(0, 2, size=(resamples, len(sums)), dtype=np.int8) - 1.0
    seen = abs(float(sums.sum())) - 1e-12
    return (1 + int((np.abs(signs @ sums) >= seen).sum())) / (resamples + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values of several comparisons, so that chance gets no more tries than one (Holm 1979).

    Example:
        >>> from rag_ft.evaluation.significance import holm
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, value * (len(p_values) - place)))
        adjusted[name] = round(highest, 12)
    return adjusted
