"""The values of a dev measure's units -> one figure, in which no part of dev drowns another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.significance import Difference, paired_bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.training.selection.dev_set import Dev

FEWEST = 20
"""Units of a part that count by themselves, and can speak against a candidate."""


def parts_of(dev: Dev) -> list[str]:
    """The part of dev that each unit is in: its making, and whether training sees its document, where both are many.

    What learns documents by heart gains on the known ones and loses on the new ones.
    """
    sources, kinds = _many(dev.sources), dev.kinds or [""] * len(dev.sources)
    counts = Counter(zip(sources, kinds, strict=True))
    apart = {source for source in set(sources) if min(counts[source, "known"], counts[source, "new"]) >= FEWEST}
    return [
        f"{source}, {kind} documents" if source in apart else source
        for source, kind in zip(sources, kinds, strict=True)
    ]


def _many(sources: Sequence[str]) -> list[str]:
    """Makings of a few units are counted with the most frequent one: three questions must not be half of the figure."""
    counts = Counter(sources)
    most = max(counts, key=counts.__getitem__, default="")
    return [source if counts[source] >= FEWEST else most for source in sources]


def weights_of(dev: Dev) -> NDArray[np.float64]:
    """What each unit counts, shape (units,); the sum is 1.

    Makings of 20 units or more count alike, since key phrases are many, and so do the parts of each: how many
    questions on new documents dev holds is a matter of how it was drawn, not of what will be asked.

    Example:
        >>> from types import SimpleNamespace
        >>> from rag_ft.training.selection.dev_score import weights_of
        >>> weights = weights_of(SimpleNamespace(sources=["key phrases"] * 80 + ["real"] * 20, kinds=[]))
        >>> weights[0].round(5), weights[-1].round(5)
        (np.float64(0.00625), np.float64(0.025))
    """
    parts, sources = parts_of(dev), _many(dev.sources)
    units, of_source = Counter(parts), dict(zip(parts, sources, strict=True))
    parts_in = Counter(of_source.values())
    return np.array([1 / (units[part] * parts_in[of_source[part]] * len(parts_in)) for part in parts])


def dev_score(values: NDArray[np.float64], dev: Dev) -> float:
    """The figure of dev.

    Args:
        values: of each unit, shape (units,).
        dev: what was measured.
    """
    return float(values @ weights_of(dev))


def gain_of(differences: NDArray[np.float64], dev: Dev, seed: int = 0) -> Difference:
    """The mean of differences, each part of dev counting as `weights_of` says, with its interval.

    Args:
        differences: candidate minus base of each unit, shape (units,).
        dev: what was measured.
        seed: of the resampling.
    """
    return paired_bootstrap(differences * weights_of(dev) * len(differences), dev.groups, seed)
