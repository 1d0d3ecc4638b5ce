"""From a name to a LlamaIndex embedding: a model, an adapter's folder, or a model with OpenAI's protocol."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_ft.embedding.adapter import AdapterEmbedding, is_adapter
from rag_ft.embedding.cached import CachedEmbedding
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.model_spec import ModelSpec
from rag_ft.embedding.openai_api import AZURE, OPENAI, is_openai_name, openai_embedding
from rag_ft.embedding.request_sender import RequestPolicy
from rag_ft.embedding.vector_cache import VectorCache
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_ft.embedding.backends import Backend


def embedding_by_name(
    model: str | Path | ModelSpec,
    *,
    url: str | None = None,
    cache: VectorCache | str | Path | Literal[False] | None = None,
    request_policy: RequestPolicy | None = None,
    dimension: int | None = None,
    backend: Backend = "torch",
    int8: bool = False,
) -> BaseEmbedding:
    """Load an embedding by its name.

    Args:
        model: a model folder, a hub name, `local`, `openai:MODEL`, `azure:DEPLOYMENT`, or an adapter's folder, which
            is loaded over the embedding that it was trained over. A `ModelSpec` also sets the prefixes, the maximum
            length and the device.
        url: address of an OpenAI-compatible server, instead of OpenAI's.
        cache: where to store a server's vectors; None uses the file in the user's cache folder, False stores none.
        request_policy: how texts are sent to a server.
        dimension: cut the vectors of a local model to this many numbers.
        backend: what computes the vectors of a local model.
        int8: use the 8-bit export of a local model.

    Raises:
        InputError: if the name or folder is wrong, or a key is missing.
        ContractError: if an adapter belongs to another embedding.
        OutsideError: if the hub or the server cannot be reached.

    Example:
        >>> from rag_ft.embedding.resolve_embedding import embedding_by_name
        >>> embedding_by_name("local").class_name()
        'FineTunedEmbedding'
    """
    spec = ModelSpec.of(model)
    adapter = Path(spec.name) if is_adapter(spec.name) else None
    if adapter is not None:
        spec = replace(spec, name=_base_name(adapter))
    if is_openai_name(str(spec.name)):
        embedding: BaseEmbedding = CachedEmbedding(openai_embedding(str(spec.name), url), cache, request_policy)
    else:
        embedding = FineTunedEmbedding.load(spec, dimension=dimension, backend=backend, int8=int8)
    return embedding if adapter is None else AdapterEmbedding.load(adapter, embedding)


def _base_name(folder: Path) -> str:
    """Return the name of the embedding that an adapter was trained over."""
    base = read_model_record(folder).get("base")
    base = base if isinstance(base, dict) else {}
    class_name, name = base.get("class_name"), str(base.get("model_name"))
    if class_name == FineTunedEmbedding.class_name():
        return name
    if class_name == "OpenAIEmbedding":
        on_azure = os.environ.get("AZURE_OPENAI_ENDPOINT") and not os.environ.get("OPENAI_API_KEY")
        return f"{AZURE if on_azure else OPENAI}:{name}"
    raise InputError(
        f"the adapter {folder} belongs to {class_name} {name}, which cannot be loaded by name: load it in Python, "
        "AdapterEmbedding.load(FOLDER, embed_model)"
    )
