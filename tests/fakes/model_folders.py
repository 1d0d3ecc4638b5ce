"""Model folders as older programs wrote them."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from rag_ft.embedding.loading import local_model_folder


def pickled_copy(folder: Path) -> Path:
    shutil.copytree(local_model_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(local_model_folder() / "model.safetensors"), folder / "pytorch_model.bin")
    return folder
