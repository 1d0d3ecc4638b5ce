"""What identifies an embedding: its settings, its weights, and its vectors of a few fixed texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.embedding.contract import EmbeddingContract, weights_sha256
from rag_ft.errors import InputError
from rag_ft.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

Role = Literal["query", "passage"]

REFERENCE_TEXTS = ("Who signs the form for harbour four?", "A claim is filed within thirty days of the journey.")
"""Texts that are embedded in both roles; their vectors identify the weights and the prefixes of a model."""

IGNORED_SETTINGS = {
    "embed_batch_size", "num_workers", "callback_manager", "rate_limiter", "embeddings_cache", "max_retries", "timeout",
    "reuse_client", "default_headers", "api_version", "cache_folder", "show_progress", "show_progress_bar", "device",
    "devices", "class_name",
}  # fmt: skip
"""Settings of LlamaIndex's embeddings that do not change the vectors."""

SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)

ROLE_OF_SETTING = {"query_instruction": "query", "query_prefix": "query", "text_instruction": "passage"}
"""Settings that change the vectors of one role only."""

REMOTE_SETTING = re.compile(r"api_key|api_base|base_url|endpoint")


def is_remote(model: BaseEmbedding) -> bool:
    """Return whether a server makes the vectors; requests to it are sent in parallel and retried."""
    return any(REMOTE_SETTING.search(name) for name in type(model).model_fields)


def address_of(model: BaseEmbedding) -> str:
    """Return the address of the server; empty if it is the provider's default."""
    return next((str(value) for name in ("api_base", "base_url") if (value := getattr(model, name, None))), "")


def ignores_role(model: BaseEmbedding) -> bool:
    """Return whether a text has the same vector as a query and as a passage, as with OpenAI's models."""
    query, text = (getattr(model, name, None) for name in ("_query_engine", "_text_engine"))
    return isinstance(query, str) and query == text


def has_known_weights(model: BaseEmbedding) -> bool:
    """Return whether the weights behind the vectors are known."""
    contract = getattr(model, "contract", None)
    return bool(isinstance(contract, EmbeddingContract) and contract.weights_sha256) or _folder(model) is not None


def identity_of(model: BaseEmbedding, role: Role) -> str:
    """Hash every known setting that changes a model's vectors in a role; API keys are left out.

    Args:
        model: any LlamaIndex embedding.
        role: `query` or `passage`; the query prefix is part of the hash for queries only.
    """
    contract = getattr(model, "contract", None)
    if isinstance(contract, EmbeddingContract):
        return sha256_of(contract.passage_fingerprint, contract.query_prefix if role == "query" else "")
    settings = {
        name: getattr(model, name, None)
        for name in sorted(type(model).model_fields)
        if name not in IGNORED_SETTINGS and not SECRET.search(name) and ROLE_OF_SETTING.get(name, role) == role
    }
    folder = _folder(model)
    weights = weights_sha256(folder) if folder is not None else ""
    described = json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__)
    return sha256_of(model.class_name(), described, weights)


def _folder(model: BaseEmbedding) -> Path | None:
    """Return the folder that a model's name is; None if it is not a folder of weights."""
    folder = Path(str(model.model_name)).expanduser()
    try:
        return folder if folder.is_dir() and any(folder.rglob("*.safetensors")) else None
    except OSError:
        return None


def reference_vectors(model: BaseEmbedding) -> NDArray[np.float32]:
    """Embed `REFERENCE_TEXTS` as queries and as passages; shape (4, dimension), float32.

    Raises:
        InputError: if the two roles have vectors of different lengths.
    """
    passages = passage_vectors(model, REFERENCE_TEXTS)
    queries = passages if ignores_role(model) else query_vectors(model, REFERENCE_TEXTS)
    if {len(vector) for vector in queries} != {len(vector) for vector in passages}:
        raise InputError(f"{model.model_name} has different dimensions for queries and passages: use another model")
    return np.asarray([*queries, *passages], dtype=np.float32)


def query_vectors(model: BaseEmbedding, texts: Sequence[str]) -> list[list[float]]:
    """Embed queries, in one request if the model supports it."""
    if many := getattr(model, "query_embeddings", None):
        return list(many(list(texts)))
    if ignores_role(model):
        return passage_vectors(model, texts)
    return [_rate_limited(model, model._get_query_embedding, text) for text in texts]


def passage_vectors(model: BaseEmbedding, texts: Sequence[str]) -> list[list[float]]:
    """Embed passages in one request."""
    return list(_rate_limited(model, model._get_text_embeddings, list(texts)))


def _rate_limited(model: BaseEmbedding, call: Any, argument: Any) -> Any:
    """Call a private method after waiting for the model's rate limiter.

    The public methods also wait, but they would report the embedding to LlamaIndex a second time.
    """
    if model.rate_limiter is not None:
        model.rate_limiter.acquire()
    return call(argument)
