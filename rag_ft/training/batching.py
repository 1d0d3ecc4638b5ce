"""Batches in which no passage is a false negative of another row's question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler


class ApartSampler(DefaultBatchSampler):
    """Random batches whose rows share no key: a row's keys are the passages that answer its question.

    The text alone does not tell: the same passage without one sentence is another text, and a negative
    that is none. Rows that do not fit wait for the next batch. A rest of less than a quarter of a batch is left
    out: it has hardly any negatives. Which rows it holds differs from epoch to epoch.
    """

    keys: Sequence[frozenset[object]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        generator = self.generator or torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        waiting = torch.randperm(len(self.keys), generator=generator).tolist()
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


def apart(keys: Sequence[frozenset[object]]) -> Callable[..., ApartSampler]:
    """A sampler for the Trainer that keeps rows with a common key out of each other's batch."""

    def make(*args: Any, **kwargs: Any) -> ApartSampler:
        sampler = ApartSampler(*args, **kwargs)
        sampler.keys = keys
        return sampler

    return make
