"""How a map of vectors is fitted: contrastive, against all passages at once, and held near the identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.embedding.adapter_maps import mapped

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

SCALE = 20.0
"""Of the cosine in the loss (1 / temperature)."""

STEPS, BATCH, RATE = 100, 512, 1e-3
"""Steps of Adam from the strongest pull on, pairs in each, and the peak of the learning rate."""

NEGATIVES = 8_192
"""Passages that a step compares with at most; of more, others are drawn in each step."""

PULLED = 512
"""Passages in a step that the map is held to leave where they are."""


@dataclass(frozen=True)
class AdapterExamples:
    """What a map learns from, as vectors of length 1.

    Attributes:
        queries: one row for each pair of a question and a passage that answers it, shape (pairs, dimension).
        passages: what a question is told apart from, shape (passages, dimension).
        right: place of each pair's passage among them, shape (pairs,).
        answers: (row, passage) of each passage that answers the question of a row, or nearly repeats one that does:
            none of them is its negative; shape (entries, 2), in the order of the rows.
    """

    queries: NDArray[np.float32]
    passages: NDArray[np.float32]
    right: NDArray[np.int64]
    answers: NDArray[np.int64]


def fit_path(
    module: torch.nn.Module,
    examples: AdapterExamples,
    strengths: Sequence[float],
    *,
    both_sides: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[tuple[float, torch.nn.Module]]:
    """Fit a map for several strengths of the pull to the identity: the strongest first, each on from the one before.

    The loss of a pair is the cross-entropy of its passage among all passages, which costs one product of matrices since
    their vectors are known. Beside it stands the mean square of how far the map moves questions and passages, times
    the strength.

    Args:
        module: the map, as it begins; it is changed in place.
        examples: what it learns from.
        strengths: of the pull.
        both_sides: whether the map is for passages too.
        seed: of the draws.
        device: a torch device.

    Yields:
        (strength, the map at that strength): copy it before you ask for the next.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    module.float().to(device).train()
    queries, passages, right = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device)
        for part in (examples.queries, examples.passages, examples.right)
    )
    starts = torch.from_numpy(np.searchsorted(examples.answers[:, 0], np.arange(len(examples.queries) + 1)))
    answers = torch.from_numpy(examples.answers[:, 1].copy())
    place = torch.empty(len(passages), dtype=torch.long)
    for number, strength in enumerate(sorted(strengths, reverse=True)):
        steps = STEPS if number == 0 else STEPS // 2
        optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
        for _ in range(steps):
            rows = torch.randperm(len(queries), generator=draw)[:BATCH]
            chosen = torch.randperm(len(passages), generator=draw)[:NEGATIVES]
            place.fill_(-1)
            place[chosen] = torch.arange(len(chosen))
            loss = _loss(module, queries[rows], passages[right[rows]], passages[chosen], both_sides,
                         *_entries(rows, starts, answers, place))  # fmt: skip
            held = torch.cat([queries[rows], passages[torch.randperm(len(passages), generator=draw)[:PULLED]]])
            moved = (module(held) - held).square().sum(dim=1).mean()
            optimizer.zero_grad()
            (loss + strength * moved).backward()
            optimizer.step()
            schedule.step()
        yield strength, module


def _entries(
    rows: torch.Tensor, starts: torch.Tensor, answers: torch.Tensor, place: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, column) of the scores of a step that are answers."""
    import torch

    counts = starts[rows + 1] - starts[rows]
    row = torch.repeat_interleave(torch.arange(len(rows)), counts)
    within = torch.arange(len(row)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    column = place[answers[torch.repeat_interleave(starts[rows], counts) + within]]
    there = column >= 0
    return row[there], column[there]


def _loss(
    module: torch.nn.Module,
    queries: torch.Tensor,
    positives: torch.Tensor,
    passages: torch.Tensor,
    both_sides: bool,
    row: torch.Tensor,
    column: torch.Tensor,
) -> torch.Tensor:
    import torch

    asked = mapped(module, queries)
    if both_sides:
        positives, passages = mapped(module, positives), mapped(module, passages)
    right = SCALE * (asked * positives).sum(dim=1)
    scores = SCALE * asked @ passages.T
    scores = scores.index_put((row.to(scores.device), column.to(scores.device)), scores.new_tensor(float("-inf")))
    return (torch.logaddexp(right, scores.logsumexp(dim=1)) - right).mean()
