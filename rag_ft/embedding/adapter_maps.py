"""Small trainable maps over vectors, for embeddings whose weights cannot be tuned. Each starts as the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from rag_ft.errors import InputError

if TYPE_CHECKING:
    import torch

Kind = Literal["linear", "low-rank", "residual"]

RANK = 64
"""Rank of the low-rank map, and width of the residual network's hidden layer."""


def make_map(kind: str, dimension: int, rank: int = RANK) -> torch.nn.Module:
    """Make an untrained map, which returns its input.

    `linear`: x + A x. `low-rank`: x + U V x. `residual`: x + U gelu(V x + b).

    Args:
        kind: `linear`, `low-rank` or `residual`.
        dimension: numbers in a vector.
        rank: rank of U and V.

    Raises:
        InputError: if the kind is unknown.

    Example:
        >>> import torch
        >>> from rag_ft.embedding.adapter_maps import make_map
        >>> make_map("low-rank", dimension=4, rank=2)(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        tensor([[1., 2., 3., 4.]], grad_fn=<AddBackward0>)
    """
    if kind not in get_args(Kind):
        raise InputError(f"the adapter's kind is {kind!r}: choose one of {', '.join(get_args(Kind))}")
    from torch import nn

    def zeros(rows: int, columns: int) -> nn.Linear:
        layer = nn.Linear(columns, rows, bias=False)
        nn.init.zeros_(layer.weight)
        return layer

    class Residual(nn.Module):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__()
            self.change = nn.Sequential(*layers)

        def forward(self, vectors: torch.Tensor) -> torch.Tensor:
            return vectors + self.change(vectors)  # type: ignore[no-any-return]

    if kind == "linear":
        return Residual(zeros(dimension, dimension))
    inner = nn.Linear(dimension, min(rank, dimension), bias=kind == "residual")
    nn.init.orthogonal_(inner.weight)
    if kind == "residual":
        nn.init.zeros_(inner.bias)
        return Residual(inner, nn.GELU(), zeros(dimension, min(rank, dimension)))
    return Residual(inner, zeros(dimension, min(rank, dimension)))


def apply_map(module: torch.nn.Module, vectors: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Apply a map to vectors and keep their lengths, since a score threshold may depend on them.

    Args:
        module: the map.
        vectors: shape (texts, dimension).
        alpha: interpolates between the identity (0) and the map (1).

    Raises:
        InputError: if the map changes the dimension.
    """
    import torch.nn.functional as functional

    mapped: Any = module(vectors)
    if mapped.shape != vectors.shape:
        raise InputError(
            f"the adapter's module turns {vectors.shape[-1]} numbers into {mapped.shape[-1]}: keep the dimension"
        )
    interpolated = vectors + alpha * (mapped - vectors)
    return functional.normalize(interpolated, dim=-1) * vectors.norm(dim=-1, keepdim=True)
