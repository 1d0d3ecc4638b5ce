"""Which model is this: what is known of an embedding, and what it makes of a few fixed texts."""

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

PROBES = ("Who signs the form for harbour four?", "A claim is filed within thirty days of the journey.")
"""Embedded in both roles, so that another query prefix shows as well as other weights."""

WITHOUT_EFFECT = {
    "embed_batch_size", "num_workers", "callback_manager", "rate_limiter", "embeddings_cache", "max_retries", "timeout",
    "reuse_client", "default_headers", "api_version", "cache_folder", "show_progress", "show_progress_bar", "device",
    "devices", "class_name",
}  # fmt: skip
"""Settings of LlamaIndex's embeddings that change no vector."""

SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)

OF_ONE_ROLE = {"query_instruction": "query", "query_prefix": "query", "text_instruction": "passage"}

REMOTE = re.compile(r"api_key|api_base|base_url|endpoint")


def is_remote(model: BaseEmbedding) -> bool:
    """Whether a server makes the vectors: then requests go out side by side, and a failed one is sent again."""
    return any(REMOTE.search(name) for name in type(model).model_fields)


def address_of(model: BaseEmbedding) -> str:
    """Where a server is asked; empty where it is the maker's own."""
    return next((str(found) for name in ("api_base", "base_url") if (found := getattr(model, name, None))), "")


def knows_one_role(model: BaseEmbedding) -> bool:
    """Whether a model makes the same vector of a text as a query and as a passage, as OpenAI's do."""
    query, text = (getattr(model, name, None) for name in ("_query_engine", "_text_engine"))
    return isinstance(query, str) and query == text


def knows_weights(model: BaseEmbedding) -> bool:
    """Whether it is known which weights make the vectors."""
    contract = getattr(model, "contract", None)
    return bool(isinstance(contract, EmbeddingContract) and contract.weights_sha256) or _folder(model) is not None


def identity_of(model: BaseEmbedding, role: Role) -> str:
    """A hash of all that is known to change a model's vectors in a role; no key is part of it.

    Args:
        model: any LlamaIndex embedding.
        role: a query's prefix does not change a passage's vector.
    """
    contract = getattr(model, "contract", None)
    if isinstance(contract, EmbeddingContract):
        return sha256_of(contract.passage_fingerprint, contract.query_prefix if role == "query" else "")
    settings = {
        name: getattr(model, name, None)
        for name in sorted(type(model).model_fields)
        if name not in WITHOUT_EFFECT and not SECRET.search(name) and OF_ONE_ROLE.get(name, role) == role
    }
    folder = _folder(model)
    weights = weights_sha256(folder) if folder is not None else ""
    known = json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__)
    return sha256_of(model.class_name(), known, weights)


def _folder(model: BaseEmbedding) -> Path | None:
    """The folder that a model's weights are read from, where its name is one."""
    folder = Path(str(model.model_name)).expanduser()
    try:
        return folder if folder.is_dir() and any(folder.rglob("*.safetensors")) else None
    except OSError:
        return None


def probe(model: BaseEmbedding) -> NDArray[np.float32]:
    """What a model makes of `PROBES` as queries and as passages, shape (4, dimension); float32.

    Raises:
        InputError: where the two roles have vectors of different lengths.
    """
    passages = passage_vectors(model, PROBES)
    queries = passages if knows_one_role(model) else query_vectors(model, PROBES)
    if {len(vector) for vector in queries} != {len(vector) for vector in passages}:
        raise InputError(f"{model.model_name} makes vectors of different lengths of queries and passages")
    return np.asarray([*queries, *passages], dtype=np.float32)


def query_vectors(model: BaseEmbedding, texts: Sequence[str]) -> list[list[float]]:
    """The vectors of queries; in one request where the model can."""
    if many := getattr(model, "query_embeddings", None):
        return list(many(list(texts)))
    if knows_one_role(model):
        return passage_vectors(model, texts)
    return [_after_its_turn(model, model._get_query_embedding, text) for text in texts]


def passage_vectors(model: BaseEmbedding, texts: Sequence[str]) -> list[list[float]]:
    """The vectors of passages, in one request."""
    return list(_after_its_turn(model, model._get_text_embeddings, list(texts)))


def _after_its_turn(model: BaseEmbedding, call: Any, argument: Any) -> Any:
    """The public methods would wait for the model's limiter, and report an embedding of their own."""
    if model.rate_limiter is not None:
        model.rate_limiter.acquire()
    return call(argument)
