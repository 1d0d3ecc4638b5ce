"""Building, updating and opening an index: a `VectorStoreIndex` over a Chroma collection."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.embedding.contract import ContractError, contract_of
from rag_ft.errors import InputError
from rag_ft.index.chroma import as_client, check_collection_name, chroma_failures, create_collection
from rag_ft.index.contract import as_metadata, check_contract, check_unchanged, from_metadata, stored_contract
from rag_ft.index.fill import check_filled, fill
from rag_ft.index.lock import build_lock
from rag_ft.index.nodes import sample_nodes
from rag_ft.index.other_store import fill_other_store
from rag_ft.index.pointer import Pointer, read_pointer, write_pointer
from rag_ft.index.revision import announced_writes
from rag_ft.index.versions import delete_collections, existing_pointer, is_expired, unfinished_versions, version_name
from rag_ft.index.writing import CollectionWriter, batch_size_of

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

    from rag_ft.embedding.contract import EmbeddingContract

logger = logging.getLogger(__name__)


def rebuild_index(
    nodes: Iterable[BaseNode],
    embed_model: BaseEmbedding | None = None,
    chroma: str | Path | ClientAPI = "chroma",
    name: str = "passages",
    *,
    vector_store: BasePydanticVectorStore | None = None,
    reuse: bool = True,
    show_progress: bool = False,
) -> VectorStoreIndex:
    """Embed nodes into a new Chroma collection, and point the name at it once it is complete and checked.

    Readers of the old collection are not interrupted and switch to the new one automatically. The old one is kept for
    `rollback_index`. A killed build resumes where it stopped, and the vectors of unchanged texts are reused. Vectors
    that nodes carry are ignored, since another model may have made them.

    Args:
        nodes: LlamaIndex nodes, a list or a stream, of which 2,048 are in memory at once. They are not changed. Nodes
            without text are left out with a warning.
        embed_model: any LlamaIndex embedding; `Settings.embed_model` if None.
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: the name of the index.
        vector_store: another LlamaIndex vector store instead of Chroma. Nodes are added to it directly, without a
            contract, a swap or a rollback.
        reuse: reuse existing vectors of equal texts; False embeds all texts again.
        show_progress: show a progress bar with the time left.

    Returns:
        The index over a `LiveChromaStore`.

    Raises:
        InputError: if no node has text, a node cannot be stored, two nodes share an id, or the folder is not a Chroma
            folder.
        OutsideError: if the server does not answer, another process builds the index, or the embedding fails.

    Example:
        >>> import chromadb
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import FineTunedEmbedding, rebuild_index
        >>> nodes = [TextNode(text="A Kittiwake is an expenses claim."), TextNode(text="Visitors wear a badge.")]
        >>> index = rebuild_index(nodes, FineTunedEmbedding.load("local"), chromadb.EphemeralClient())
        >>> index.as_retriever(similarity_top_k=1).retrieve("How do I claim expenses?")[0].text
        'A Kittiwake is an expenses claim.'
    """
    model = _or_default(embed_model)
    if vector_store is not None:
        return fill_other_store(nodes, model, vector_store, show_progress)
    check_collection_name(name)
    client = as_client(chroma)
    contract = contract_of(model)  # before the lock, since it may load the model or send a request
    with chroma_failures(), build_lock(client, name) as lock:
        pointer = read_pointer(client, name) or Pointer()
        leftover = _leftover_version(client, name, pointer, model if reuse else None)
        collection = leftover or create_collection(
            client, version_name(name, contract, pointer.version + 1), as_metadata(contract)
        )
        donor = _reusable_version(client, pointer, model, contract) if reuse else None
        writer = CollectionWriter(collection=collection, batch_size=batch_size_of(client), before_write=lock.check)
        try:
            filled = fill(writer, nodes, model, donor=donor, show_progress=show_progress)
        except InputError:
            if not collection.count():
                client.delete_collection(collection.name)
            raise
        check_filled(collection, filled)
        lock.check()
        pointer = pointer.swapped_to(collection.name)
        # The previous version stays available; older ones are deleted once no reader can use them.
        expired = {retired.collection for retired in pointer.retired[:-1] if is_expired(retired.since)}
        write_pointer(client, name, pointer.without(expired))
        logger.info(
            "%d passages (%d embedded, %d vectors reused) in the Chroma collection %s",
            filled.count, filled.embedded, filled.reused, collection.name,
        )  # fmt: skip
        delete_collections(client, expired)
    return open_index(model, client, name)


def update_index(
    nodes: Iterable[BaseNode],
    embed_model: BaseEmbedding | None = None,
    chroma: str | Path | ClientAPI = "chroma",
    name: str = "passages",
    *,
    delete_missing: bool = True,
    show_progress: bool = False,
) -> VectorStoreIndex:
    """Update the collection in use to hold these nodes; only new and changed ones are embedded.

    Use it for a few changes in many documents. Each change is visible as soon as it is written. `rebuild_index` makes
    all changes visible at once and can be rolled back.

    Args:
        nodes: all nodes; a hash of their content shows which ones changed. Nodes without text are left out with a
            warning.
        embed_model: the embedding that the index was built with; `Settings.embed_model` if None.
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: the name of the index.
        delete_missing: delete all other nodes; False deletes only other nodes of the same documents. A document is a
            file or an address in the metadata (`file_path`, `file_name`, `url`), so pass all nodes of a file that was
            read again.
        show_progress: show a progress bar with the time left.

    Raises:
        ContractError: if the index was built with another model.
        InputError: if there is no such index, no node has text, or a node cannot be stored.
        OutsideError: if the server does not answer, another process builds the index, or the embedding fails.

    Example:
        >>> import chromadb
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import rebuild_index, update_index
        >>> client, embed_model = chromadb.EphemeralClient(), MockEmbedding(embed_dim=8)
        >>> before = [TextNode(text="Leave is booked by noon.", id_="leave")]
        >>> _ = rebuild_index(before, embed_model, client, "update-example")
        >>> now = [TextNode(text="Leave is booked by ten.", id_="leave"), TextNode(text="Badges open doors.")]
        >>> index = update_index(now, embed_model, client, "update-example")
        >>> sorted(node.text for node in index.as_retriever(similarity_top_k=5).retrieve("When is leave booked?"))
        ['Badges open doors.', 'Leave is booked by ten.']
    """
    model = _or_default(embed_model)
    client = as_client(chroma, create=False)
    existing_pointer(client, name)  # before the lock, so that a mistyped name creates no collection
    with chroma_failures(), build_lock(client, name) as lock:
        pointer = existing_pointer(client, name)
        collection = client.get_collection(str(pointer.current), embedding_function=None)
        _check_model(collection, model)
        with announced_writes(client, name) as notice:

            def before_write() -> None:
                lock.check()
                notice.mark()

            writer = CollectionWriter(
                collection=collection, batch_size=batch_size_of(client), before_write=before_write
            )
            filled = fill(writer, nodes, model, delete_missing=delete_missing, show_progress=show_progress)
        logger.info(
            "%d passages embedded, %d vectors reused, %d unchanged, %d deleted in %s",
            filled.embedded, filled.reused, filled.unchanged, filled.deleted, collection.name,
        )  # fmt: skip
    return open_index(model, client, name)


def open_index(
    embed_model: BaseEmbedding | None = None, chroma: str | Path | ClientAPI = "chroma", name: str = "passages"
) -> VectorStoreIndex:
    """Open an index that was built with this embedding; it follows later rebuilds automatically.

    Args:
        embed_model: any LlamaIndex embedding; `Settings.embed_model` if None.
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: the name of the index.

    Raises:
        ContractError: if it was built with another model, or with other prefixes.
        InputError: if there is no such index; the message lists those that exist.
        OutsideError: if the server does not answer.

    Example:
        >>> import chromadb
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import FineTunedEmbedding, open_index, rebuild_index
        >>> client, embed_model = chromadb.EphemeralClient(), FineTunedEmbedding.load("local")
        >>> nodes = [TextNode(text="A Kittiwake is an expenses claim."), TextNode(text="Visitors wear a badge.")]
        >>> _ = rebuild_index(nodes, embed_model, client, "open-example")
        >>> index = open_index(embed_model, client, "open-example")  # later, in the app
        >>> index.as_retriever(similarity_top_k=1).retrieve("How do I get my money back?")[0].text
        'A Kittiwake is an expenses claim.'
    """
    from rag_ft.index.gated_index import GatedVectorStoreIndex
    from rag_ft.index.live_store import LiveChromaStore

    model = _or_default(embed_model)
    client = as_client(chroma, create=False)
    existing_pointer(client, name)
    store = LiveChromaStore(name, client, model)
    if not store.contract.weights_sha256 and store.collection.count():
        check_unchanged(model, *sample_nodes(store.collection, 1))
    return GatedVectorStoreIndex.from_vector_store(store, embed_model=model)


def stored_fingerprint(chroma: str | Path | ClientAPI, name: str) -> str | None:
    """Return the fingerprint of the contract of an index, without loading its model; None if there is no such index.

    Args:
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: the name of the index.

    Raises:
        OutsideError: if the server does not answer.
    """
    from chromadb.errors import NotFoundError

    try:
        client = as_client(chroma, create=False)
        collection = client.get_collection(str(existing_pointer(client, name).current), embedding_function=None)
        return stored_contract(collection).fingerprint
    except (InputError, NotFoundError):
        return None


def _or_default(embed_model: BaseEmbedding | None) -> BaseEmbedding:
    from llama_index.core import Settings

    return embed_model if embed_model is not None else Settings.embed_model


def _check_model(collection: Collection, model: BaseEmbedding) -> None:
    """Raise a `ContractError` if a collection holds passages of another model."""
    stored = stored_contract(collection)
    check_contract(stored, contract_of(model), collection.name, passages=True)
    if not stored.weights_sha256 and collection.count():
        check_unchanged(model, *sample_nodes(collection))


def _is_of_model(collection: Collection, model: BaseEmbedding) -> bool:
    try:
        _check_model(collection, model)
    except ContractError:
        return False
    return True


def _leftover_version(client: ClientAPI, name: str, pointer: Pointer, model: BaseEmbedding | None) -> Collection | None:
    """Return the collection that a killed build of this model left; delete the others, or all if the model is None."""
    for leftover in sorted(unfinished_versions(client, name, pointer)):
        collection = client.get_collection(leftover, embedding_function=None)
        if model is not None and _is_of_model(collection, model):
            logger.info("resuming the build of %s, which holds %d passages", leftover, collection.count())
            return collection
        client.delete_collection(leftover)
    return None


def _reusable_version(
    client: ClientAPI, pointer: Pointer, model: BaseEmbedding, contract: EmbeddingContract
) -> Collection | None:
    """Return the collection in use if this model made its vectors, otherwise None."""
    if pointer.current is None:
        return None
    collection = client.get_collection(pointer.current, embedding_function=None)
    stored = from_metadata(collection.metadata)
    if stored is None or stored.passage_fingerprint != contract.passage_fingerprint:
        return None
    return collection if stored.weights_sha256 or _is_of_model(collection, model) else None
