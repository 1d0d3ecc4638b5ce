"""The old package's adapters: torch modules over vectors, saved as `config.json` and `pytorch_model.bin`."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rag_ft.compat.pickled_models import read_pickled_weights
from rag_ft.errors import InputError
from rag_ft.files import read_json, write_text, written_beside

CONFIG_FILE, WEIGHTS_FILE = "config.json", "pytorch_model.bin"

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": nn.functional.leaky_relu,
}


class BaseAdapter(nn.Module):
    """Base class of an adapter: a module over vectors that knows the arguments of its constructor.

    A subclass implements `forward` and `get_config_dict`.
    """

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        raise NotImplementedError(f"{type(self).__name__} needs get_config_dict: the arguments of its constructor")

    def forward(self, embed: Tensor) -> Tensor:
        """Map vectors to vectors, shape (..., dimension)."""
        raise NotImplementedError(f"{type(self).__name__} needs forward")

    def save(self, output_path: str | PathLike[str]) -> None:
        """Write `config.json` and `pytorch_model.bin`, each atomically."""
        folder = Path(output_path)
        weights = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        write_text(folder / CONFIG_FILE, json.dumps(self.get_config_dict()))
        with written_beside(folder / WEIGHTS_FILE) as target:
            torch.save(weights, target)

    @classmethod
    def load(cls, input_path: str | PathLike[str]) -> Any:
        """Load an adapter that `save` or the old package wrote. Only tensors are read from its weights.

        Raises:
            InputError: if the folder is not an adapter of this class.
        """
        folder = Path(input_path)
        if (folder / "rag_ft.json").is_file() and not (folder / CONFIG_FILE).is_file():
            raise InputError(f"{folder} is an adapter of rag_ft: load it with AdapterEmbedding.load")
        config = read_json(folder / CONFIG_FILE)
        try:
            model = cls(**config)
            model.load_state_dict(read_pickled_weights(folder / WEIGHTS_FILE))
        except (TypeError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()[:120]
            raise InputError(
                f"{folder} is not a {cls.__name__} ({reason}): pass the adapter_cls of the adapter"
            ) from error
        return model


class LinearLayer(BaseAdapter):
    """A linear layer, which starts as the identity.

    Args:
        in_features: dimension of a vector.
        out_features: dimension of the result.
        bias: whether to add a bias vector.

    Example:
        >>> import torch
        >>> from rag_ft.compat import LinearLayer
        >>> LinearLayer(2, 2)(torch.tensor([3.0, 4.0])).tolist()
        [3.0, 4.0]
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = in_features, out_features, bias
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        nn.init.eye_(self.linear.weight)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, embed: Tensor) -> Tensor:
        """Multiply vectors with the matrix."""
        return self.linear(embed)  # type: ignore[no-any-return]

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias}


class TwoLayerNN(BaseAdapter):
    """A network of two linear layers.

    Args:
        in_features: dimension of a vector.
        hidden_features: dimension between the layers.
        out_features: dimension of the result.
        bias: saved but not used, as in the old package; both layers always have a bias.
        activation_fn_str: `relu`, `sigmoid`, `tanh` or `leaky_relu`.
        add_residual: add the result, times a weight that starts at 0, to the vector, so that the adapter starts as the
            identity.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        bias: bool = False,
        activation_fn_str: str = "relu",
        add_residual: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.hidden_features, self.out_features = in_features, hidden_features, out_features
        self.bias, self.activation_fn_str = bias, activation_fn_str
        self.linear1 = nn.Linear(in_features, hidden_features)
        self.linear2 = nn.Linear(hidden_features, out_features)
        self._activation_function = get_activation_function(activation_fn_str)
        self._add_residual = add_residual
        self.residual_weight = nn.Parameter(torch.zeros(1))

    def forward(self, embed: Tensor) -> Tensor:
        """Apply both layers."""
        result: Tensor = self.linear2(self._activation_function(self.linear1(embed)))
        return embed + self.residual_weight * result if self._add_residual else result

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("in_features", "hidden_features", "out_features", "bias", "activation_fn_str")
        return {name: getattr(self, name) for name in names} | {"add_residual": self._add_residual}


def get_activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation function of a name.

    Raises:
        ValueError: if no activation has this name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"the activation {name!r} is unknown: use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
