"""The recipe of an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_ft.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """The settings of an adapter's training.

    Attributes:
        module: your own torch module instead of the linear map: vectors of shape (texts, dimension) in and out. The
            adapter's folder contains only its weights, so pass it again when you load the adapter.
        map_passages: map passages as well as queries. The index must then be rebuilt with the adapter.
        pulls: strengths of the pull towards the identity. Each gives a candidate.
        max_pairs: maximum number of training pairs; None means 10,000.
        seed: seeds every random choice.
        device: a torch device. The map is small, so the CPU is fast enough.

    Raises:
        InputError: if `pulls` is empty or has a negative number.

    Example:
        >>> from rag_ft.adapters import AdapterRecipe
        >>> AdapterRecipe(map_passages=True).kind
        'linear'
    """

    module: torch.nn.Module | None = None
    map_passages: bool = False
    pulls: tuple[float, ...] = (30.0, 10.0, 3.0, 1.0)
    max_pairs: int | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.pulls or min(self.pulls) < 0:
            raise InputError(f"pulls are {self.pulls!r}: use at least one number, each 0 or more")

    @property
    def kind(self) -> str:
        """The kind of map, as stored in `rag_ft.json`."""
        return "linear" if self.module is None else "custom"
