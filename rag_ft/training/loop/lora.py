"""Low-rank updates of frozen weights (LoRA, Hu et al. 2022), merged when the weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError, require_package

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

LEARNING_RATE_FACTOR = 10.0
"""Factor on the learning rate for all weights: the updates start at 0 and are few (Biderman et al. 2024)."""


def add_lora(model: SentenceTransformer, rank: int, seed: int = 0) -> None:
    """Freeze a model's weights and add trainable low-rank updates to every linear layer.

    Args:
        model: the model, changed in place.
        rank: rank of the updates; they are scaled by 2.
        seed: seeds their initial values.

    Raises:
        InputError: if peft is not installed, or the model is not a transformer.
    """
    require_package("peft", "lora", "--lora")
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    inner: Any = getattr(model[0], "auto_model", None)
    if inner is None:
        raise InputError("LoRA needs a transformer, and this model is not one: omit --lora")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    linear = [name for name, module in inner.named_modules() if isinstance(module, torch.nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=linear)
    with torch.random.fork_rng(devices=[model.device.index or 0] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, inner)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def remove_lora(model: SentenceTransformer) -> None:
    """Restore the plain layers and their original weights. The result of `merged_weights` can be loaded into them."""
    from peft.tuners.lora import LoraLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                setattr(parent, name, child.base_layer)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def merged_weights(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """Return the weights of a model with its low-rank updates added, under their names without LoRA."""
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
    """Return whether a model has low-rank updates."""
    return any(".lora_" in name for name, _ in model.named_parameters())
