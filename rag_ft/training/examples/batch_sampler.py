"""Batches of similar passages, in which no row is a false negative of another row."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LENGTH_WINDOW = 8
"""Number of batches within which rows are sorted by length."""

MAX_ROWS_PER_PASSAGE = 4
"""Maximum number of rows of one passage in a unit: with more, a batch would have too few passages."""

MAX_TRIES = 16
"""Maximum number of units tried for a batch, as a multiple of the batch size. It bounds the time if few rows fit."""

MAX_SMALL_BATCHES = 16
"""Maximum number of consecutive batches that are too small, after which the remaining rows are left out."""

MIN_USED = 0.9
"""Minimum fraction of the rows that are in a batch; below it the sampler logs a warning."""

SIMILARITY_WINDOW = 2048
"""Number of rows among which similar ones are searched, so that the time grows linearly with the rows."""

SMALL_BATCH = 4
"""A batch with less than 1/4 of the rows of the largest batch is left out, because it has few negatives."""


@dataclass(frozen=True, kw_only=True)
class SamplerRows:
    """The properties of the rows of the training data that the sampler uses.

    Attributes:
        positive_ids: the groups of near-duplicate passages that answer each row's query.
        in_batch_ids: the groups of the passages that each row adds to its batch; `positive_ids` if None.
        passages: the positive of each row. Up to `MAX_ROWS_PER_PASSAGE` rows of one passage share a batch; if empty,
            rows are not grouped by passage.
        vectors: unit vectors of the positives, shape (rows, dimension); if None, batches are random.
        similar_per_batch: number of rows with similar passages that share a batch.
        lengths: the length of each row's longest text; if empty, rows are not sorted by length.
    """

    positive_ids: Sequence[frozenset[object]]
    in_batch_ids: Sequence[frozenset[object]] | None = None
    passages: Sequence[object] = ()
    vectors: NDArray[np.float32] | None = None
    similar_per_batch: int = 1
    lengths: Sequence[int] = ()


class NoFalseNegativesBatchSampler(DefaultBatchSampler):
    """Random batches of rows, or of groups of similar rows, without false negatives.

    No row of a batch adds a passage that answers the query of another row. Ids are compared, not texts: a passage
    without one of its sentences is a different text, but still an answer. A row that does not fit waits for the next
    batch. Batches that are too small are left out, so epochs may use different rows, but the same number of batches.

    Rows of similar length share a batch, because padding costs time.

    Args:
        rows: the properties of the rows.
        *args: the arguments of `DefaultBatchSampler`.
        **kwargs: the keyword arguments of `DefaultBatchSampler`.
    """

    def __init__(self, *args: Any, rows: SamplerRows, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows = rows
        self.positive_ids = rows.positive_ids
        self.in_batch_ids = rows.positive_ids if rows.in_batch_ids is None else rows.in_batch_ids
        self._count: int | None = None

    def __iter__(self) -> Iterator[list[int]]:
        # The Trainer counts the batches once and relies on that number when it resumes.
        batches = self._make_batches(self.epoch)
        count = len(self)
        yield from (batches * (count // len(batches) + 1))[:count]

    def __len__(self) -> int:
        if self._count is None:
            batches = self._make_batches(0)
            self._count = len(batches)
            total, used = len(self.positive_ids), sum(map(len, batches))
            if used + self.batch_size // SMALL_BATCH < MIN_USED * total:  # the last batch is often too small
                logger.warning(
                    "%d of %d pairs do not fit into any batch: their passages nearly repeat each other, or answer the "
                    "same questions. Remove repeated pairs", total - used, total,
                )  # fmt: skip
        return self._count

    def _make_batches(self, epoch: int) -> list[list[int]]:
        generator = self.generator or torch.Generator()
        generator.manual_seed(self.seed + epoch)
        waiting = deque(self._shuffled_units(generator))
        batches: list[list[int]] = []
        largest = small_in_a_row = 0
        while waiting and small_in_a_row < MAX_SMALL_BATCHES:
            batch = self._take_batch(waiting)
            largest = max(largest, len(batch))
            if len(batch) * SMALL_BATCH >= largest and (len(batch) > 1 or not batches):
                batches.append(batch)
                small_in_a_row = 0
            else:
                small_in_a_row += 1
        if not self.rows.lengths:
            return batches
        # In sorted order, training would see short texts first.
        return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]

    def _shuffled_units(self, generator: torch.Generator) -> list[list[int]]:
        """Return rows in random order, as units that share a batch; units of similar passages are neighbours."""
        units = self._units(torch.randperm(len(self.positive_ids), generator=generator).tolist())
        unit_of = {unit[0]: unit for unit in units}
        groups = [[row] for row in unit_of]
        if self.rows.vectors is not None:
            groups = similar_rows(list(unit_of), self.rows.vectors, self.positive_ids, self.rows.similar_per_batch)
            groups = [groups[number] for number in torch.randperm(len(groups), generator=generator)]
        return [unit_of[row] for group in self._sorted_by_length(groups) for row in group]

    def _units(self, order: Sequence[int]) -> list[list[int]]:
        """Group the rows of one passage, up to `MAX_ROWS_PER_PASSAGE` of them, in the order of their first row."""
        if not self.rows.passages:
            return [[row] for row in order]
        last_unit: dict[object, list[int]] = defaultdict(list)
        units = []
        for row in order:
            passage = self.rows.passages[row]
            if len(last_unit[passage]) % MAX_ROWS_PER_PASSAGE == 0:
                last_unit[passage] = []
                units.append(last_unit[passage])
            last_unit[passage].append(row)
        return units

    def _sorted_by_length(self, groups: list[list[int]]) -> list[list[int]]:
        """Sort groups by length within a few batches at a time, so that batches stay random."""
        if not self.rows.lengths:
            return groups
        per_batch = self.rows.similar_per_batch if self.rows.vectors is not None else 1
        window = max(1, LENGTH_WINDOW * self.batch_size // per_batch)
        longest = [max(self.rows.lengths[row] for row in group) for group in groups]
        return [
            groups[number]
            for start in range(0, len(groups), window)
            for number in sorted(range(start, min(start + window, len(groups))), key=longest.__getitem__)
        ]

    def _take_batch(self, waiting: deque[list[int]]) -> list[int]:
        """Take the units that fit into one batch out of the queue; those that do not fit stay in it."""
        batch: list[int] = []
        answers: set[object] = set()
        passages: set[object] = set()
        skipped: list[list[int]] = []
        while waiting and len(batch) < self.batch_size and len(skipped) < MAX_TRIES * self.batch_size:
            unit = waiting.popleft()
            positives = frozenset().union(*(self.positive_ids[row] for row in unit))
            in_batch = self.in_batch_ids[unit[0]]
            if not answers.isdisjoint(in_batch) or not passages.isdisjoint(positives):
                skipped.append(unit)
                continue
            answers |= positives
            passages |= in_batch
            free = self.batch_size - len(batch)
            batch += unit[:free]
            if unit[free:]:
                skipped.append(unit[free:])
        if len(batch) < self.batch_size and waiting:
            waiting.extend(skipped)  # none of them fits, so others are tried first
        else:
            waiting.extendleft(reversed(skipped))
        return batch


def similar_rows(
    order: Sequence[int], vectors: NDArray[np.float32], positive_ids: Sequence[frozenset[object]], size: int
) -> list[list[int]]:
    """Group each row with the most similar rows that are not in a group yet and share no positive with it.

    Args:
        order: the rows, in the order in which groups are formed.
        vectors: unit vectors of the rows' passages, shape (rows, dimension).
        positive_ids: the groups of near-duplicate passages that answer each row's query.
        size: maximum number of rows in a group.

    Example:
        >>> import numpy as np
        >>> from rag_ft.training.examples.batch_sampler import similar_rows
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
        >>> similar_rows([0, 1, 2, 3], vectors, [frozenset([row]) for row in range(4)], size=2)
        [[0, 2], [1, 3]]
    """
    groups: list[list[int]] = []
    for start in range(0, len(order), SIMILARITY_WINDOW):
        rows = np.asarray(order[start : start + SIMILARITY_WINDOW])
        similarity = vectors[rows] @ vectors[rows].T
        free = np.ones(len(rows), dtype=bool)
        for index in range(len(rows)):
            if not free[index]:
                continue
            group, answered = [index], set(positive_ids[rows[index]])
            free[index] = False
            scores = np.where(free, similarity[index], -np.inf)
            for other in np.argsort(-scores, kind="stable"):
                if len(group) == size or scores[other] == -np.inf:
                    break
                if answered.isdisjoint(positive_ids[rows[other]]):
                    answered |= positive_ids[rows[other]]
                    group.append(int(other))
                    free[other] = False
            groups.append(rows[group].tolist())
    return groups
