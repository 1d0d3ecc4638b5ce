"""Weights of a model in main memory, and interpolation between two sets of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

Weights = dict[str, "torch.Tensor"]


def copy_weights(model: SentenceTransformer) -> Weights:
    """Copy a model's weights into main memory."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def interpolate_weights(base: Weights, tuned: Weights, alpha: float) -> Weights:
    """Interpolate between two sets of weights (WiSE-FT, Wortsman et al. 2022).

    Args:
        base: the weights at alpha 0. Integer tensors are copied from them.
        tuned: the weights at alpha 1, with the same names and shapes.
        alpha: weight of the tuned weights, from 0 to 1.

    Example:
        >>> import torch
        >>> from rag_ft.training.selection.weights import interpolate_weights
        >>> interpolate_weights({"w": torch.zeros(2)}, {"w": torch.ones(2)}, 0.25)["w"].tolist()
        [0.25, 0.25]
    """
    return {
        name: tensor + alpha * (tuned[name] - tensor) if tensor.is_floating_point() else tensor
        for name, tensor in base.items()
    }
