"""Low-rank updates in place of the weights (LoRA, Hu et al. 2022), merged when weights are taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError, require_package

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

DEFAULT_RATE = 10.0
"""Times the learning rate of all weights: the updates begin at 0 and are few (Biderman et al. 2024)."""


def add_lora(model: SentenceTransformer, rank: int, seed: int = 0) -> None:
    """Freeze a model's weights and add low-rank updates of every linear layer, which are trained instead.

    Args:
        model: changed in place.
        rank: of the updates; they are scaled by 2.
        seed: of what they begin with.

    Raises:
        InputError: where peft is not installed, or the model is no transformer.
    """
    require_package("peft", "lora", "--lora")
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    inner = _transformer(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=_linear_layers(inner))
    with torch.random.fork_rng(devices=[model.device.index or 0] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, inner)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def remove_lora(model: SentenceTransformer) -> None:
    """Put the plain layers back, with the weights that they had before; those of `merged_weights` fit them again."""
    from peft.tuners.lora import LoraLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                setattr(parent, name, child.base_layer)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def merged_weights(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """The weights of a model with its updates added, under the names that they have without them."""
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    layer_of = {id(layer.base_layer.weight): layer for layer in layers}
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".lora_" in name:
            continue
        plain = tensor.detach()
        if id(tensor) in layer_of:
            plain = plain + layer_of[id(tensor)].get_delta_weight("default").detach().to(plain.dtype)
        weights[name.replace(".base_layer.", ".")] = plain.cpu().clone()
    return weights


def has_lora(model: SentenceTransformer) -> bool:
    """Whether a model has low-rank updates now."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def _transformer(model: SentenceTransformer) -> Any:
    inner = getattr(model[0], "auto_model", None)
    if inner is None:
        raise InputError("low-rank updates need a transformer, and this model is none: train all of its weights")
    return inner


def _linear_layers(inner: Any) -> list[str]:
    import torch

    return [name for name, module in inner.named_modules() if isinstance(module, torch.nn.Linear)]
