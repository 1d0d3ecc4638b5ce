"""From a name to a LlamaIndex embedding: a model, an adapter's folder, or one behind OpenAI's protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag_ft.embedding.adapter import AdapterEmbedding, is_adapter
from rag_ft.embedding.cached import CachedEmbedding
from rag_ft.embedding.client import RequestPolicy
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.openai_api import AZURE, OPENAI, is_openai_name, openai_embedding
from rag_ft.embedding.vector_cache import VectorCache
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


def embedding_by_name(
    name: str | Path,
    *,
    url: str | None = None,
    cache: VectorCache | str | Path | Literal[False] | None = None,
    request_policy: RequestPolicy | None = None,
    **settings: Any,
) -> BaseEmbedding:
    """The embedding of a name.

    Args:
        name: a model folder, a hub name, `local`, `openai:MODEL`, `azure:DEPLOYMENT`, or an adapter's folder, which
            is loaded over the embedding that it was trained over.
        url: of an OpenAI-compatible server, in place of OpenAI's.
        cache: where vectors of a server are kept; the user's own cache where None, and nowhere where False.
        request_policy: how texts are sent to a server.
        **settings: of `FineTunedEmbedding`, as far as a model of this machine makes the vectors.

    Raises:
        InputError: where the name or folder is wrong, or a key is missing.
        ContractError: where an adapter belongs to another embedding.
        OutsideError: where the hub or the server cannot be reached.

    Example:
        >>> from rag_ft.embedding.resolve_embedding import embedding_by_name
        >>> embedding_by_name("local").class_name()
        'FineTunedEmbedding'
    """
    if is_openai_name(str(name)):
        return CachedEmbedding(openai_embedding(str(name), url), cache, request_policy)
    if is_adapter(name):
        below = embedding_by_name(_below(Path(name)), url=url, cache=cache, request_policy=request_policy, **settings)
        return AdapterEmbedding.load(name, below)
    return FineTunedEmbedding.load(name, **settings)


def _below(folder: Path) -> str:
    """The name of the embedding that an adapter was trained over."""
    base = read_model_record(folder).get("base")
    base = base if isinstance(base, dict) else {}
    kind, name = base.get("class_name"), str(base.get("model_name"))
    if kind == FineTunedEmbedding.class_name():
        return name
    if kind == "OpenAIEmbedding":
        on_azure = os.environ.get("AZURE_OPENAI_ENDPOINT") and not os.environ.get("OPENAI_API_KEY")
        return f"{AZURE if on_azure else OPENAI}:{name}"
    raise InputError(
        f"the adapter {folder} belongs to {kind} {name}, which has no name here: use it in Python, "
        "AdapterEmbedding.load(FOLDER, embed_model)"
    )
