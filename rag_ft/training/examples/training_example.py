"""`TrainingExample`: one row of the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingExample:
    """A query and a passage, as texts, with the negatives and the label that a loss needs.

    Attributes:
        anchor: the query.
        positive: a passage that answers it.
        positive_ids: the groups of near-duplicate passages that answer the query. They must not be its negatives.
        negatives: passages that do not answer it. All examples of a training have the same number.
        in_batch_ids: the groups of the passages that this example adds to its batch.
        label: a score, one score for the positive and each negative, or a teacher's vectors of anchor and positive,
            shape (2, dimension); None for a loss without labels.
    """

    anchor: str
    positive: str
    positive_ids: frozenset[object] = frozenset()
    negatives: tuple[str, ...] = ()
    in_batch_ids: frozenset[object] = frozenset()
    label: float | list[float] | NDArray[np.float32] | None = None
