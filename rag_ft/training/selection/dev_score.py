"""Combine the values of a dev set's units into one score, in which no part of dev outweighs another."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.significance import Difference, paired_bootstrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_ft.training.selection.dev_set import Dev

MIN_PART = 20
"""Minimum number of units of a part that is weighted separately, and that can reject a candidate."""


def dev_parts(dev: Dev) -> list[str]:
    """Return the part of dev of each unit: its source, split by seen and unseen documents if both are many.

    A model that memorises documents gains on seen documents and loses on unseen ones.
    """
    sources = _large_sources(dev.sources)
    documents: Sequence[str] = dev.documents or [""] * len(dev.sources)
    counts = Counter(zip(sources, documents, strict=True))
    split = {name for name in set(sources) if min(counts[name, "seen"], counts[name, "unseen"]) >= MIN_PART}
    return [
        f"{source}, {status} documents" if source in split else source
        for source, status in zip(sources, documents, strict=True)
    ]


def _large_sources(sources: Sequence[str]) -> list[str]:
    """Merge small sources into the most frequent one, so that three questions are not half of the score."""
    counts = Counter(sources)
    largest = max(counts, key=counts.__getitem__, default="")
    return [source if counts[source] >= MIN_PART else largest for source in sources]


def unit_weights(dev: Dev) -> NDArray[np.float64]:
    """Return the weight of each unit, shape (units,); they sum to 1.

    Sources of 20 units or more count equally, although there are more key phrases than other questions. The parts of
    each source count equally too: the number of questions about unseen documents depends on how dev was drawn, not on
    what users will ask.

    Example:
        >>> from types import SimpleNamespace
        >>> from rag_ft.training.selection.dev_score import unit_weights
        >>> weights = unit_weights(SimpleNamespace(sources=["key phrases"] * 80 + ["real"] * 20, documents=[]))
        >>> weights[0].round(5), weights[-1].round(5)
        (np.float64(0.00625), np.float64(0.025))
    """
    parts, sources = dev_parts(dev), _large_sources(dev.sources)
    units, source_of = Counter(parts), dict(zip(parts, sources, strict=True))
    parts_of_source = Counter(source_of.values())
    return np.array([1 / (units[part] * parts_of_source[source_of[part]] * len(parts_of_source)) for part in parts])


def dev_score(values: NDArray[np.float64], dev: Dev) -> float:
    """Return the weighted mean of the units' values.

    Args:
        values: the value of each unit, shape (units,).
        dev: the dev set that was measured.
    """
    return float(values @ unit_weights(dev))


def dev_gain(differences: NDArray[np.float64], dev: Dev, seed: int = 0) -> Difference:
    """Return the weighted mean of differences with its confidence interval.

    Args:
        differences: candidate minus base for each unit, shape (units,).
        dev: the dev set that was measured.
        seed: seeds the bootstrap.
    """
    # The nDCG@10 of a question lies between 0 and 1. Only what a pair adds to Spearman's correlation can differ by more
    # than 1. The correlation itself lies between -1 and 1.
    limit = 1.0 if np.abs(differences).max(initial=0.0) <= 1 + 1e-9 else 2.0
    return paired_bootstrap(differences * unit_weights(dev) * len(differences), dev.groups, seed, limit=limit)
