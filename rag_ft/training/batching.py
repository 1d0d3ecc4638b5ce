"""Batches in which passages are hard to tell apart, and none is a false negative of another row's question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 2048
"""Rows among which similar ones are looked for: time grows with the rows, not with their square."""


class ApartSampler(DefaultBatchSampler):
    """Random batches, or batches of random groups of similar rows, in which no two rows share a key.

    A row's keys are the passages that answer its question. The text alone does not tell: the same passage without one
    sentence is another text, and a negative that is none. Rows that do not fit wait for the next batch. A rest of less
    than a quarter of a batch is left out: it has hardly any negatives. Which rows it holds differs from epoch to epoch.
    """

    keys: Sequence[frozenset[object]] = ()
    vectors: NDArray[np.float32] | None = None
    together: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        generator = self.generator or torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        waiting = torch.randperm(len(self.keys), generator=generator).tolist()
        if self.vectors is not None:
            groups = similar_rows(waiting, self.vectors, self.keys, self.together)
            waiting = [row for place in torch.randperm(len(groups), generator=generator) for row in groups[place]]
        first = True
        while waiting:
            batch: list[int] = []
            taken: set[object] = set()
            left: list[int] = []
            for place, row in enumerate(waiting):
                if len(batch) == self.batch_size:
                    left += waiting[place:]
                    break
                if taken.isdisjoint(self.keys[row]):
                    taken |= self.keys[row]
                    batch.append(row)
                else:
                    left.append(row)
            if first or len(batch) * 4 >= self.batch_size:
                yield batch
            first = False
            waiting = left

    def __len__(self) -> int:
        return sum(1 for _ in self.__iter__())


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
        >>> from rag_ft.training.batching import similar_rows
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


def apart(
    keys: Sequence[frozenset[object]], vectors: NDArray[np.float32] | None = None, together: int = 1
) -> Callable[..., ApartSampler]:
    """A sampler for the Trainer that keeps rows with a common key out of each other's batch.

    Args:
        keys: the passages, by groups of near-duplicates, that answer each row's question.
        vectors: of each row's passage, of length 1, shape (rows, dimension); random batches where None.
        together: rows with similar passages that come into one batch.
    """

    def make(*args: Any, **kwargs: Any) -> ApartSampler:
        sampler = ApartSampler(*args, **kwargs)
        sampler.keys = keys
        sampler.vectors = vectors
        sampler.together = together
        return sampler

    return make
