"""The result of one run of the Trainer: dev scores, losses, and the weights with the best dev score."""

from __future__ import annotations

from dataclasses import dataclass, field

from rag_ft.training.selection.weights import Weights


@dataclass
class FitResult:
    """The result of one run of the Trainer.

    Attributes:
        scores: the dev score after each epoch (`epoch 1`, ...), within long epochs (`epoch 0.20`), and at the step
            where the training was stopped.
        weights: the weights with the best dev score; the last ones without a dev set.
        losses: the training loss, averaged over equal parts of the training.
        texts_per_second: number of texts encoded per second of training, without the time for dev.
        inner_batch: number of pairs whose activations fit into memory.
        interrupted: whether the user stopped the training.
    """

    scores: dict[str, float] = field(default_factory=dict)
    weights: Weights | None = None
    losses: list[float] = field(default_factory=list)
    texts_per_second: float = 0.0
    inner_batch: int = 0
    interrupted: bool = False
