"""Saving an adapter's folder: its weights, the embedding it belongs to, and a model card."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.adapter import REFERENCE_VECTORS, WEIGHTS
from rag_ft.embedding.cards import adapter_card
from rag_ft.embedding.contract import RECORD_FILE, EmbeddingContract
from rag_ft.files import sha256_of_file, write_json, write_text, written_beside

if TYPE_CHECKING:
    import numpy as np
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray


def save_adapter(
    module: torch.nn.Module,
    folder: str | Path,
    base: EmbeddingContract,
    model: BaseEmbedding,
    reference_vectors: NDArray[np.float32],
    adapter: dict[str, Any],
    training: dict[str, Any],
) -> dict[str, Any]:
    """Save an adapter as safetensors with its contract, `rag_ft.json` and a model card, completely or not at all.

    Args:
        module: the map; only its weights are saved, no code.
        folder: the target; an older adapter there is replaced.
        base: the contract of the underlying embedding.
        model: that embedding.
        reference_vectors: its vectors of the reference texts (`identity.reference_vectors`).
        adapter: `kind`, `rank`, `share` (alpha), `strength`, `both_sides`.
        training: the record of the training.

    Returns:
        The content of `rag_ft.json`.
    """
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file

    folder = Path(folder)
    with written_beside(folder) as target:
        target.mkdir()
        save_file({name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()},
                  target / WEIGHTS)  # fmt: skip
        save_arrays({"vectors": reference_vectors}, target / REFERENCE_VECTORS)
        content = {
            "rag_ft": importlib.metadata.version("rag-ft"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "name": folder.resolve().name,
            "base_model": base.base_model,
            "base": {"class_name": model.class_name(), "model_name": model.model_name, **base.to_dict()},
            "adapter": {"dimension": base.dimension, **adapter, "sha256": sha256_of_file(target / WEIGHTS)},
            "training": training,
        }
        write_json(target / RECORD_FILE, content)
        write_text(target / "README.md", adapter_card(content))
    return content
