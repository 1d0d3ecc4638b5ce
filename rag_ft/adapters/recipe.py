"""The recipe of an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_ft.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """How an adapter is trained.

    Attributes:
        module: a torch module of your own instead of the linear map: vectors of shape (texts, dimension) in and out.
            The adapter's folder holds its weights alone, so give it again when you load the adapter.
        map_passages: map passages too, and not queries alone. The index must then be rebuilt with the adapter.
        pulls: strengths of the pull towards the identity. Each makes a candidate.
        max_pairs: maximum number of pairs to train on; None takes up to 10,000.
        seed: seeds every random choice.
        device: a torch device; the map is small.

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
            raise InputError(f"pulls are {self.pulls!r}: give some numbers, 0 or more each")

    @property
    def kind(self) -> str:
        """The kind of map, as `rag_ft.json` has it. Linear maps did best: others learned no more of new documents."""
        return "linear" if self.module is None else "custom"
