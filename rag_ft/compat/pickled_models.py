"""Convert pickled weights of old model folders to safetensors, without running code from them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.errors import InputError
from rag_ft.files import written_beside

if TYPE_CHECKING:
    import torch

SAFE_NAME = "model.safetensors"


def read_pickled_weights(file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a `pytorch_model.bin` without running code from it.

    Raises:
        InputError: if the file is missing or broken, or contains more than tensors.
    """
    import pickle

    import torch

    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: check the path") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = "it contains more than tensors" if isinstance(error, pickle.UnpicklingError) else "it is broken"
        raise InputError(f"{file} is not loaded: {reason}; save the model again as .safetensors") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InputError(f"{file} is not loaded: it is not a state dict of tensors")
    return weights


def convert_model_folder(folder: str | Path, output: str | Path) -> Path:
    """Copy a model folder, and convert its pickled weights (`pytorch_model.bin`) to safetensors.

    Args:
        folder: a model folder of SentenceTransformers or transformers.
        output: the new folder.

    Returns:
        The new folder, for `FineTunedEmbedding.load` and the engines.

    Raises:
        InputError: if there are no such weights, they contain more than tensors, or `output` exists.
    """
    folder, output = Path(folder), Path(output)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: check the path")
    pickled = sorted(file for file in folder.rglob("*.bin") if file.is_file())
    if not pickled:
        raise InputError(f"{folder} has no .bin weights: there is nothing to convert")
    if output.exists() or folder.resolve() in output.resolve().parents:
        raise InputError(f"{output} exists or is inside {folder}: choose another folder")
    from safetensors.torch import save_file

    with written_beside(output) as target:
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.bin", "*.pt", "*.pkl"))
        for file in pickled:
            weights = {name: tensor.clone().contiguous() for name, tensor in read_pickled_weights(file).items()}
            converted = target / file.relative_to(folder).with_name(SAFE_NAME)
            save_file(weights, converted, metadata={"format": "pt"})
    return output


@contextmanager
def safe_model_folder(name: str) -> Iterator[str]:
    """Yield the name of a model, or the path of a temporary converted copy if its folder only has pickled weights."""
    folder = Path(name)
    if not folder.is_dir() or any(folder.rglob("*.safetensors")) or not any(folder.rglob("pytorch_model.bin")):
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="rag_ft-") as scratch:
        # The copy keeps the name of the folder, from which the model family and its prefixes are detected.
        yield str(convert_model_folder(folder, Path(scratch) / folder.resolve().name))
