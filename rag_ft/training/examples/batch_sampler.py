"""Batches in which passages are hard to tell apart, and none is a false negative of another row's question."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LENGTH_WINDOW = 8
"""Batches among which rows are put in the order of their length."""

SHARED = 4
"""Questions on one passage that come into a batch together: more would leave it too few passages."""

LOOKED_THROUGH = 16
"""Times a batch's rows that are tried for it at most: where few go together, time grows with the rows all the same."""

IN_VAIN = 16
"""Batches that stay too small, one after the other, after which what is left is given up."""

WELL_USED = 0.9
"""Share of the rows that batches hold, under which it is said."""

WINDOW = 2048
"""Rows among which similar ones are looked for: time grows with the rows, not with their square."""


class NoFalseNegativesBatchSampler(DefaultBatchSampler):
    """Random batches, or batches of random groups of similar rows, in which no row shows what answers another's.

    A row's keys are the passages that answer its question; what it shows are its own passage and its negatives. The
    text alone does not tell: the same passage without one sentence is another text, and a negative that is none. Rows
    that do not fit wait for the next batch. A rest of one row, or of less than a quarter of the largest batch,
    is left out: it has hardly any negatives. Which rows it holds differs from epoch to epoch; how many batches there
    are does not.

    Rows of similar length come together where lengths differ: what is padded is computed for nothing.
    """

    keys: Sequence[frozenset[object]] = ()
    shown: Sequence[frozenset[object]] = ()
    passages: Sequence[object] = ()
    vectors: NDArray[np.float32] | None = None
    lengths: Sequence[int] = ()
    similar_per_batch: int = 1
    _batches: int | None = None

    def __iter__(self) -> Iterator[list[int]]:
        # The Trainer counts the batches once and goes by that when it resumes.
        batches = list(self._made(self.epoch))
        count = len(self)
        yield from (batches * (count // len(batches) + 1))[:count]

    def _made(self, epoch: int) -> Iterator[list[int]]:
        generator = self.generator or torch.Generator()
        generator.manual_seed(self.seed + epoch)
        rows_of = {
            rows[0]: rows for rows in self._sharing(torch.randperm(len(self.keys), generator=generator).tolist())
        }
        order = list(rows_of)
        if self.vectors is not None:
            groups = similar_rows(order, self.vectors, self.keys, self.similar_per_batch)
            groups = [groups[place] for place in torch.randperm(len(groups), generator=generator)]
        else:
            groups = [[row] for row in order]
        waiting = deque(rows_of[row] for group in self._by_length(groups) for row in group)
        batches: list[list[int]] = []
        largest = in_vain = 0
        while waiting and in_vain < IN_VAIN:
            batch: list[int] = []
            answers: set[object] = set()
            shown: set[object] = set()
            left: list[list[int]] = []
            while waiting and len(batch) < self.batch_size and len(left) < LOOKED_THROUGH * self.batch_size:
                rows = waiting.popleft()
                mine = frozenset().union(*(self.keys[row] for row in rows))
                if answers.isdisjoint(self.shown[rows[0]]) and shown.isdisjoint(mine):
                    answers |= mine
                    shown |= self.shown[rows[0]]
                    room = self.batch_size - len(batch)
                    batch += rows[:room]
                    if rows[room:]:
                        left.append(rows[room:])
                else:
                    left.append(rows)
            if len(batch) < self.batch_size and waiting:
                waiting.extend(left)  # none of them fits, so that others have their turn first
            else:
                waiting.extendleft(reversed(left))
            # Few passages make small batches: all of them count.
            largest = max(largest, len(batch))
            if len(batch) * 4 >= largest and (len(batch) > 1 or not batches):
                batches.append(batch)
                in_vain = 0
            else:
                in_vain += 1
        # In the order of their length they would teach short texts first.
        mixed = torch.randperm(len(batches), generator=generator).tolist() if self.lengths else range(len(batches))
        yield from (batches[place] for place in mixed)

    def _sharing(self, order: Sequence[int]) -> list[list[int]]:
        """Rows of one passage together, up to `SHARED` of them, in the order of their first."""
        if not self.passages:
            return [[row] for row in order]
        found: dict[object, list[list[int]]] = defaultdict(list)
        units = []
        for row in order:
            mine = found[self.passages[row]]
            if not mine or len(mine[-1]) == SHARED:
                mine.append([])
                units.append(mine[-1])
            mine[-1].append(row)
        return units

    def _by_length(self, groups: list[list[int]]) -> list[list[int]]:
        """Groups in the order of their length, within a few batches at a time, so that batches stay random."""
        if not self.lengths:
            return groups
        window = max(1, LENGTH_WINDOW * self.batch_size // self.similar_per_batch)
        longest = [max(self.lengths[row] for row in group) for group in groups]
        return [
            groups[place]
            for start in range(0, len(groups), window)
            for place in sorted(range(start, min(start + window, len(groups))), key=longest.__getitem__)
        ]

    def __len__(self) -> int:
        if self._batches is None:
            batches = list(self._made(0))
            self._batches = len(batches)
            rows, read = len(self.keys), sum(map(len, batches))
            if read + self.batch_size // 4 < WELL_USED * rows:  # a rest that is too small a batch is usual
                logger.warning(
                    "%d of %d pairs fit into no batch: their passages nearly repeat each other, or answer the same "
                    "questions", rows - read, rows,
                )  # fmt: skip
        return self._batches


def similar_rows(
    order: Sequence[int], vectors: NDArray[np.float32], keys: Sequence[frozenset[object]], size: int
) -> list[list[int]]:
    """Put each row together with those most like it that are still free and share no key with it.

    Args:
        order: rows, in the order in which they choose.
        vectors: of each row's passage, of length 1, shape (rows, dimension).
        keys: of each row.
        size: of a group at most.

    Example:
        >>> import numpy as np
        >>> from rag_ft.training.examples.batch_sampler import similar_rows
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
        >>> similar_rows([0, 1, 2, 3], vectors, [frozenset([row]) for row in range(4)], size=2)
        [[0, 2], [1, 3]]
    """
    groups: list[list[int]] = []
    for start in range(0, len(order), WINDOW):
        rows = np.asarray(order[start : start + WINDOW])
        similarity = vectors[rows] @ vectors[rows].T
        free = np.ones(len(rows), dtype=bool)
        for place in range(len(rows)):
            if not free[place]:
                continue
            group, taken = [place], set(keys[rows[place]])
            free[place] = False
            scores = np.where(free, similarity[place], -np.inf)
            for other in np.argsort(-scores, kind="stable"):
                if len(group) == size or scores[other] == -np.inf:
                    break
                if taken.isdisjoint(keys[rows[other]]):
                    taken |= keys[rows[other]]
                    group.append(int(other))
                    free[other] = False
            groups.append(rows[group].tolist())
    return groups


def batch_sampler_factory(
    keys: Sequence[frozenset[object]],
    vectors: NDArray[np.float32] | None = None,
    similar_per_batch: int = 1,
    shown: Sequence[frozenset[object]] | None = None,
    lengths: Sequence[int] = (),
    passages: Sequence[object] = (),
) -> Callable[..., NoFalseNegativesBatchSampler]:
    """A sampler for the Trainer that keeps what answers a row's question out of the rest of its batch.

    Args:
        keys: the passages, by groups of near-duplicates, that answer each row's question.
        vectors: of each row's passage, of length 1, shape (rows, dimension); random batches where None.
        similar_per_batch: rows with similar passages that come into one batch.
        shown: the passages, by groups, that each row brings into its batch; its keys where None.
        lengths: of each row's texts; rows are not sorted by length where there are none.
        passages: of each row; rows of one passage, up to `SHARED`, come into a batch together. None do where empty.
    """

    def make(*args: Any, **kwargs: Any) -> NoFalseNegativesBatchSampler:
        sampler = NoFalseNegativesBatchSampler(*args, **kwargs)
        sampler.keys = keys
        sampler.shown = keys if shown is None else shown
        sampler.vectors = vectors
        sampler.similar_per_batch = similar_per_batch if vectors is not None else 1
        sampler.lengths = lengths
        sampler.passages = passages
        return sampler

    return make
