"""Saving a model folder with its prefixes, its contract and a model card."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.cards import model_card
from rag_ft.embedding.contract import RECORD_FILE, EmbeddingContract, weights_sha256
from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.loading import LOCAL, LOCAL_NAME, pooling_of
from rag_ft.errors import InputError
from rag_ft.files import write_json, write_text, written_beside
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def check_output(folder: Path) -> None:
    """Check that a folder may be written: it is missing or empty, or holds a model of rag_ft.

    Raises:
        InputError: if it holds anything else.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD_FILE).exists()):
        raise InputError(
            f"{folder} is in the way: it is not a model of rag_ft and is not overwritten, so choose another --output"
        )


def save_model(
    model: SentenceTransformer, folder: str | Path, base_model: str, record: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Save a model as safetensors with its prompts, `rag_ft.json` and a model card, completely or not at all.

    Args:
        model: a model with its prompts "query" and "document" set.
        folder: the target; an older model there is replaced.
        base_model: the model it was tuned from.
        record: further entries of `rag_ft.json`, such as the recipe and the training.

    Returns:
        The content of `rag_ft.json`.
    """
    folder = Path(folder)
    with written_beside(folder) as target, quiet_libraries():
        model.save(str(target), create_model_card=False, safe_serialization=True)
        contract = EmbeddingContract(
            weights_sha256=weights_sha256(target),
            base_model=LOCAL_NAME if base_model == LOCAL else base_model,
            query_prefix=model.prompts["query"],
            passage_prefix=model.prompts["document"],
            dimension=model.get_embedding_dimension() or 0,
            normalize=True,
            max_length=token_limit(model),
            pooling=pooling_of(model),
        )
        content = {
            "rag_ft": importlib.metadata.version("rag-ft"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "name": folder.resolve().name,
            **contract.to_dict(),
            **(record or {}),
        }
        write_json(target / RECORD_FILE, content)
        write_text(target / "README.md", model_card(content))
    return content
