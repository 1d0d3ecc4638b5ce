"""Embedding + nodes -> a Chroma-backed VectorStoreIndex, one collection for each model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError, OutsideError, RagFtError
from rag_ft.index.chroma import (
    SPACE,
    check_collection_name,
    collection_contract,
    collection_name,
    create_collection,
    open_chroma,
)

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

INSERT_BATCH = 1024
BUILDING = "-building"


def build_index(
    nodes: Sequence[BaseNode],
    embed_model: BaseEmbedding | None = None,
    chroma: str | Path | ClientAPI = "chroma",
    name: str = "passages",
    show_progress: bool = False,
) -> VectorStoreIndex:
    """Embed nodes into a Chroma collection and return the index over it.

    The collection is named after `name` and the model's fingerprint, so that two models never share one;
    it is filled under another name, and gets its own when it is complete. Vectors that nodes carry are not
    used: they may be another model's.

    Args:
        nodes: LlamaIndex nodes; they are copied, not changed.
        embed_model: any LlamaIndex embedding; `Settings.embed_model` where None.
        chroma: a folder, `http://host:port`, or a Chroma client.
        name: the readable part of the collection's name.
        show_progress: a progress bar.

    Raises:
        InputError: where there is no node or the folder is something else.
        OutsideError: where the server does not answer.
    """
    from llama_index.core import Settings, StorageContext, VectorStoreIndex
    from llama_index.vector_stores.chroma import ChromaVectorStore

    if not nodes:
        raise InputError("there is no node to index: give at least one")
    model = embed_model or Settings.embed_model
    client = open_chroma(chroma) if isinstance(chroma, str | Path) else chroma
    contract = embedding_contract(model)
    final = check_collection_name(collection_name(name, str(contract.get("fingerprint", ""))))
    clean = []
    for node in nodes:
        copy = node.model_copy()
        copy.embedding = None
        clean.append(copy)
    try:
        for leftover in (final + BUILDING, final):
            if leftover in _names(client):
                client.delete_collection(leftover)
        collection = create_collection(client, final + BUILDING, contract)
        index = VectorStoreIndex(
            clean,
            storage_context=StorageContext.from_defaults(vector_store=ChromaVectorStore(chroma_collection=collection)),
            embed_model=model,
            insert_batch_size=INSERT_BATCH,
            show_progress=show_progress,
        )
        collection.modify(name=final)
    except RagFtError:
        raise
    except Exception as error:
        raise OutsideError(f"the index could not be written to Chroma ({error!s:.160}): run again") from error
    logger.info("indexed %d passages in the Chroma collection %s", len(clean), final)
    return index


def open_index(embed_model: BaseEmbedding, chroma: str | Path | ClientAPI, name: str = "passages") -> VectorStoreIndex:
    """Open an index that was built with this embedding.

    Raises:
        InputError: where there is none for it; the message names those that are there.
    """
    from llama_index.core import VectorStoreIndex
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = open_chroma(chroma, create=False) if isinstance(chroma, str | Path) else chroma
    contract = embedding_contract(embed_model)
    wanted = collection_name(name, str(contract.get("fingerprint", "")))
    if wanted not in _names(client):
        found = ", ".join(sorted(_names(client))) or "none"
        raise InputError(
            f"no collection {wanted} for this model (collections: {found}): build it with "
            "rag-ft index SOURCE --model MODEL, the vectors of another model are no use"
        )
    collection = client.get_collection(wanted, embedding_function=None)
    stored = collection_contract(collection)
    if stored.get("fingerprint") != contract.get("fingerprint"):
        raise InputError(
            f"the collection {wanted} was filled by another model ({stored.get('base_model')}): rebuild it"
        )
    return VectorStoreIndex.from_vector_store(ChromaVectorStore(chroma_collection=collection), embed_model=embed_model)


def embedding_contract(model: BaseEmbedding) -> dict[str, Any]:
    """What the vectors of an embedding depend on, as plain values for a collection's metadata."""
    from rag_ft.files import sha256_of

    contract = getattr(model, "contract", None)
    if contract is not None:
        return {**contract.to_dict(), "distance": SPACE, "fingerprint": contract.passage_fingerprint}
    dimension = len(model.get_text_embedding("dimension"))
    identity = f"{model.class_name()} {model.model_name} {dimension}"
    return {
        "base_model": model.model_name,
        "dimension": dimension,
        "distance": SPACE,
        "fingerprint": sha256_of(identity),
    }


def _names(client: ClientAPI) -> set[str]:
    return {collection.name for collection in client.list_collections()}
