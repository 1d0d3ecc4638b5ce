"""What a training found, and the weights that dev liked best."""

from __future__ import annotations

from dataclasses import dataclass, field

from rag_ft.training.selection.dev_set import State


@dataclass
class FitResult:
    """What a training found.

    Attributes:
        scores: the dev figure after each epoch (`epoch 1`, ...) and within long ones, or after the step that it was
            stopped at.
        weights: those of the best of them; the last ones where there is no dev.
        losses: along the way, averaged over equal parts of it.
        texts_per_second: that went through the model, dev apart.
        inner_batch: pairs whose activations fitted into memory.
        interrupted: whether somebody stopped it.
    """

    scores: dict[str, float] = field(default_factory=dict)
    weights: State | None = None
    losses: list[float] = field(default_factory=list)
    texts_per_second: float = 0.0
    inner_batch: int = 0
    interrupted: bool = False
