"""Fit a map over vectors with a contrastive loss over all passages at once, and a pull towards the identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from rag_ft.adapters.recipe import AdapterRecipe
from rag_ft.embedding.adapter_maps import apply_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALE = 20.0
"""Scale of the cosine in the loss (1 / temperature)."""

STEPS, BATCH_SIZE, LEARNING_RATE = 100, 512, 1e-3
"""Number of Adam steps for the strongest pull (half as many for the others), pairs per step, peak learning rate."""

MAX_NEGATIVES = 8_192
"""Maximum number of negative passages in a step. If there are more, each step samples them."""

PULLED = 512
"""Number of passages in a step that are pulled towards their original vectors."""


@dataclass(frozen=True, kw_only=True)
class AdapterExamples:
    """Training examples of a map, as unit vectors.

    Attributes:
        queries: the question of each pair of a question and a passage that answers it, shape (pairs, dimension).
        passages: the passages that are used as negatives, shape (passages, dimension).
        positives: the index in `passages` of each pair's passage, shape (pairs,).
        answers: (row, index in `passages`) of each passage that answers the row's question, or nearly repeats one that
            does. These are not used as negatives of the row. Shape (entries, 2), in the order of the rows.
    """

    queries: NDArray[np.float32]
    passages: NDArray[np.float32]
    positives: NDArray[np.int64]
    answers: NDArray[np.int64]


def fit_path(
    module: torch.nn.Module, examples: AdapterExamples, recipe: AdapterRecipe | None
) -> Iterator[tuple[float, torch.nn.Module]]:
    """Fit a map for several pulls towards the identity, the strongest first. Each fit starts from the one before.

    The loss of a pair is the cross-entropy of its passage among all passages. It costs one matrix product, because the
    vectors are known. Added to it is the pull times the mean squared distance by which the map moves questions and
    passages.

    Args:
        module: the map before training; it is changed in place.
        examples: the training examples.
        recipe: the recipe, with pulls, seed and device; if None, nothing is fitted.

    Yields:
        (pull, the map): copy the map before you request the next one.
    """
    if recipe is None:
        return
    steps = _Steps(module.float().to(recipe.device).train(), examples, recipe)
    for number, pull in enumerate(sorted(recipe.pulls, reverse=True)):
        count = STEPS if number == 0 else STEPS // 2
        optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, count)
        for _ in range(count):
            optimizer.zero_grad()
            steps.loss(pull).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        yield pull, module


class _Steps:
    """Samples the pairs and passages of each step, and computes the loss."""

    def __init__(self, module: torch.nn.Module, examples: AdapterExamples, recipe: AdapterRecipe) -> None:
        self.module, self.map_passages = module, recipe.map_passages
        self.rng = torch.Generator().manual_seed(recipe.seed)
        self.queries, self.passages, self.positives = (
            torch.from_numpy(np.ascontiguousarray(array)).to(recipe.device)
            for array in (examples.queries, examples.passages, examples.positives)
        )
        self.starts = torch.from_numpy(np.searchsorted(examples.answers[:, 0], np.arange(len(examples.queries) + 1)))
        self.answers = torch.from_numpy(examples.answers[:, 1].copy())
        self.column = torch.empty(len(self.passages), dtype=torch.long)

    def loss(self, pull: float) -> torch.Tensor:
        """Return the loss of the next step."""
        rows, columns = self._draw(len(self.queries), BATCH_SIZE), self._draw(len(self.passages), MAX_NEGATIVES)
        contrastive = self._contrastive(rows, columns)
        pulled = torch.cat([self.queries[rows], self.passages[self._draw(len(self.passages), PULLED)]])
        moved = (self.module(pulled) - pulled).square().sum(dim=1).mean()
        return contrastive + pull * moved

    def _draw(self, count: int, size: int) -> torch.Tensor:
        return torch.randperm(count, generator=self.rng)[:size]

    def _contrastive(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        anchors = apply_map(self.module, self.queries[rows])
        positives, passages = self.passages[self.positives[rows]], self.passages[columns]
        if self.map_passages:
            positives, passages = apply_map(self.module, positives), apply_map(self.module, passages)
        positive = SCALE * (anchors * positives).sum(dim=1)
        scores = SCALE * anchors @ passages.T
        answers = tuple(indices.to(scores.device) for indices in self._answers(rows, columns))
        scores = scores.index_put(answers, scores.new_tensor(float("-inf")))
        return (torch.logaddexp(positive, scores.logsumexp(dim=1)) - positive).mean()

    def _answers(self, rows: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (row, column) of the scores in a step that belong to answers."""
        self.column.fill_(-1)
        self.column[columns] = torch.arange(len(columns))
        counts = self.starts[rows + 1] - self.starts[rows]
        row = torch.repeat_interleave(torch.arange(len(rows)), counts)
        within = torch.arange(len(row)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        column = self.column[self.answers[torch.repeat_interleave(self.starts[rows], counts) + within]]
        in_step = column >= 0
        return row[in_step], column[in_step]
