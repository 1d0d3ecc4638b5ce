"""Nodes + embedding -> a VectorStoreIndex: filled beside the old one, checked, and swapped in one step."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.embedding.contract import ContractError, contract_of
from rag_ft.errors import InputError, OutsideError, RagFtError, first_line
from rag_ft.index.chroma import check_collection_name, create_collection, open_chroma
from rag_ft.index.contract import (
    as_metadata,
    check_same,
    check_still_makes,
    from_metadata,
)
from rag_ft.index.fill import WINDOW, check_filled, embedded, fill
from rag_ft.index.lock import building
from rag_ft.index.nodes import some_nodes
from rag_ft.index.pointer import Pointer, read_pointer, write_pointer
from rag_ft.index.revision import changing
from rag_ft.index.writing import parts_of, step_of

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

    from rag_ft.embedding.contract import EmbeddingContract

logger = logging.getLogger(__name__)

PAUSE = 600.0
"""Seconds for which a collection that was replaced stays: readers look again within one, and a query takes less."""

FINGERPRINT_DIGITS = 10


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
    """Embed nodes into a new Chroma collection, and let the name stand for it when it is complete and checked.

    Whoever reads the old one goes on, and finds the new one by itself. The old one stays for `rollback_index`. A build
    that was killed goes on where it was; one that changes some documents only takes the other vectors from the
    collection before. Vectors that nodes carry are not used: they may be another model's.

    Args:
        nodes: LlamaIndex nodes, a list or a stream; a window of 2,048 is in memory at once. They are not changed.
        embed_model: any LlamaIndex embedding; `Settings.embed_model` where None.
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: what the index is opened by.
        vector_store: another LlamaIndex vector store in place of Chroma. The nodes are added to it as it is: it has
            no contract, no swap, and no way back.
        reuse: take vectors of equal texts from what is there; False embeds all anew.
        show_progress: a progress bar with time left.

    Returns:
        The index over a `LiveChromaStore`.

    Raises:
        InputError: where there is no node, two nodes of one id, or the folder is something else.
        OutsideError: where the server does not answer, another process builds the same index, or the embedding fails.

    Example:
        >>> import chromadb
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import FineTunedEmbedding, rebuild_index
        >>> nodes = [TextNode(text="A Kittiwake is an expenses claim."), TextNode(text="Visitors wear a badge.")]
        >>> index = rebuild_index(nodes, FineTunedEmbedding.load("local"), chromadb.EphemeralClient())
        >>> index.as_retriever(similarity_top_k=1).retrieve("How do I claim expenses?")[0].text
        'A Kittiwake is an expenses claim.'
    """
    model = _model(embed_model)
    if vector_store is not None:
        return _fill_other_store(nodes, model, vector_store, show_progress)
    check_collection_name(name)
    client = _client(chroma)
    contract = contract_of(model)
    with _chroma_failures(), building(client, name) as lock:
        pointer = read_pointer(client, name) or Pointer()
        collection = _half_filled(client, name, pointer, contract, model, reuse)
        try:
            filled = fill(
                collection,
                nodes,
                model,
                donor=_same_vectors(client, pointer, contract, model) if reuse else None,
                still_ours=lock.check,
                step=step_of(client),
                show_progress=show_progress,
            )
        except InputError:
            if not collection.count():
                client.delete_collection(collection.name)
            raise
        check_filled(collection, filled)
        lock.check()
        pointer = pointer.to(collection.name)
        # One step back stays possible; what is older goes when nobody can read it any more.
        old = {each.collection for each in pointer.retired[:-1] if _is_past(each.since)}
        write_pointer(client, name, pointer.without(old))
        logger.info(
            "%d passages (%d embedded, %d vectors reused) in the Chroma collection %s",
            filled.count, filled.embedded, filled.reused, collection.name,
        )  # fmt: skip
        _delete(client, old)
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
    """Bring the index that is read to hold these nodes: only new and changed ones are embedded.

    For a few changes of many documents: each becomes visible as it is written. `rebuild_index` shows all at once, and
    can be taken back.

    Args:
        nodes: the nodes as they are now; they are told apart by the hash of their content.
        embed_model: the one that the index was built with; `Settings.embed_model` where None.
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: what the index is opened by.
        delete_missing: `nodes` are all there are, and what is not among them goes. Otherwise they are all of their
            documents only.
        show_progress: a progress bar with time left.

    Raises:
        ContractError: where it was built with another model.
        InputError: where there is no such index, or no node.
        OutsideError: where the server does not answer, another process builds the same index, or the embedding fails.

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
    model = _model(embed_model)
    client = _client(chroma, create=False)
    _existing(client, name)  # before the lock: a mistyped name leaves nothing behind
    with _chroma_failures(), building(client, name) as lock:
        pointer = _existing(client, name)
        collection = client.get_collection(str(pointer.current), embedding_function=None)
        _check(collection, model)
        with changing(client, name) as writing:

            def before_each_write() -> None:
                lock.check()
                writing.mark()

            filled = fill(
                collection,
                nodes,
                model,
                delete_others=delete_missing,
                still_ours=before_each_write,
                step=step_of(client),
                show_progress=show_progress,
            )
        logger.info(
            "%d passages embedded, %d vectors reused, %d as they were, %d deleted in %s",
            filled.embedded, filled.reused, filled.kept, filled.deleted, collection.name,
        )  # fmt: skip
    return open_index(model, client, name)


def open_index(
    embed_model: BaseEmbedding | None = None, chroma: str | Path | ClientAPI = "chroma", name: str = "passages"
) -> VectorStoreIndex:
    """Open an index that was built with this embedding; it follows later rebuilds by itself.

    Args:
        embed_model: `Settings.embed_model` where None.
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: what it was built under.

    Raises:
        ContractError: where it was built with another model, or with other prefixes.
        InputError: where there is none; the message names those that are there.
        OutsideError: where the server does not answer.

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
    from llama_index.core import VectorStoreIndex

    from rag_ft.index.live_store import LiveChromaStore

    model = _model(embed_model)
    client = _client(chroma, create=False)
    _existing(client, name)
    store = LiveChromaStore(name, client, model)
    if not store.contract.weights_sha256 and store.collection.count():
        check_still_makes(model, *some_nodes(store.collection, 1))
    return VectorStoreIndex.from_vector_store(store, embed_model=model)


def rollback_index(chroma: str | Path | ClientAPI = "chroma", name: str = "passages") -> str:
    """Let the name stand for the collection before again; the one that it stood for stays, for the way back.

    Returns:
        The collection that is read now.

    Raises:
        InputError: where there is none before it.
        OutsideError: where another process builds the index.

    Example:
        >>> import chromadb
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import open_index, rebuild_index
        >>> from rag_ft.index import rollback_index
        >>> client, embed_model = chromadb.EphemeralClient(), MockEmbedding(embed_dim=8)
        >>> for text in ("Leave is booked by noon.", "Leave is booked by ten."):
        ...     _ = rebuild_index([TextNode(text=text)], embed_model, client, "rollback-example")
        >>> _ = rollback_index(client, "rollback-example")
        >>> open_index(embed_model, client, "rollback-example").as_retriever().retrieve("When is leave booked?")[0].text
        'Leave is booked by noon.'
    """
    client = _client(chroma, create=False)
    _existing(client, name)  # before the lock: a mistyped name leaves nothing behind
    with _chroma_failures(), building(client, name):
        pointer = _existing(client, name)
        there = _names(client)
        before = [each.collection for each in pointer.retired if each.collection in there]
        if not before:
            raise InputError(f"the index {name} has no collection before {pointer.current}: there is no way back")
        write_pointer(client, name, pointer.to(before[-1]))
    logger.info("the index %s is %s again, in place of %s", name, before[-1], pointer.current)
    return before[-1]


def prune_index(
    chroma: str | Path | ClientAPI = "chroma", name: str = "passages", *, pause: float = PAUSE
) -> list[str]:
    """Remove the collections that an index was before, and what killed builds of it left.

    Args:
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: what the index is opened by.
        pause: seconds since a collection was replaced, under which it stays: somebody may still read it.

    Returns:
        The names of the collections that are gone.

    Raises:
        InputError: where there is no such index.
        OutsideError: where another process builds the index.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import rebuild_index
        >>> from rag_ft.index import prune_index
        >>> chroma = tempfile.mkdtemp()
        >>> for text in ("Leave is booked by noon.", "Leave is booked by ten."):
        ...     _ = rebuild_index([TextNode(text=text)], MockEmbedding(embed_dim=8), chroma)
        >>> prune_index(chroma), len(prune_index(chroma, pause=0))  # the collection before may be read for a while
        ([], 1)
    """
    client = _client(chroma, create=False)
    _existing(client, name)  # before the lock: a mistyped name leaves nothing behind
    with _chroma_failures(), building(client, name):
        pointer = _existing(client, name)
        old = {each.collection for each in pointer.retired if _is_past(each.since, pause)}
        left = _builds(client, name) - pointer.collections
        write_pointer(client, name, pointer.without(old))
        _delete(client, old | left)
    return sorted(old | left)


def _client(chroma: str | Path | ClientAPI, create: bool = True) -> ClientAPI:
    return open_chroma(chroma, create=create) if isinstance(chroma, str | Path) else chroma


def _model(embed_model: BaseEmbedding | None) -> BaseEmbedding:
    from llama_index.core import Settings

    return embed_model if embed_model is not None else Settings.embed_model


def _existing(client: ClientAPI, name: str) -> Pointer:
    pointer = read_pointer(client, name)
    if pointer is None or pointer.current is None:
        there = sorted(_names(client))
        found = ", ".join(each.removesuffix(".pointer") for each in there if each.endswith(".pointer")) or "none"
        raise InputError(
            f"there is no index {name} (indexes: {found}): build it with "
            f"rag-ft index SOURCE --model MODEL --collection {name}"
        )
    return pointer


def _check(collection: Collection, model: BaseEmbedding) -> None:
    """Refuse passages of a model for a collection that holds another one's."""
    stored = from_metadata(collection.metadata)
    if stored is None:
        raise ContractError(f"the collection {collection.name} has no contract: rebuild the index")
    check_same(stored, contract_of(model), collection.name, passages=True)
    if not stored.weights_sha256 and collection.count():
        check_still_makes(model, *some_nodes(collection))


def _is_of(collection: Collection, model: BaseEmbedding) -> bool:
    try:
        _check(collection, model)
    except ContractError:
        return False
    return True


def _half_filled(
    client: ClientAPI, name: str, pointer: Pointer, contract: EmbeddingContract, model: BaseEmbedding, reuse: bool
) -> Collection:
    """The collection to fill: what a killed build left where it is of the same contract, else a new one."""
    for left in sorted(_builds(client, name) - pointer.collections):
        collection = client.get_collection(left, embedding_function=None)
        if reuse and _is_of(collection, model):
            logger.info("going on with %s, which holds %d passages", left, collection.count())
            return collection
        client.delete_collection(left)
    final = f"{name}-{contract.fingerprint[:FINGERPRINT_DIGITS]}-{pointer.version + 1}"
    return create_collection(client, final, as_metadata(contract))


def _same_vectors(
    client: ClientAPI, pointer: Pointer, contract: EmbeddingContract, model: BaseEmbedding
) -> Collection | None:
    """The collection that is read, where its vectors are those that this contract makes."""
    if pointer.current is None:
        return None
    collection = client.get_collection(pointer.current, embedding_function=None)
    stored = from_metadata(collection.metadata)
    if stored is None or stored.passage_fingerprint != contract.passage_fingerprint:
        return None
    return collection if stored.weights_sha256 or _is_of(collection, model) else None


def _builds(client: ClientAPI, name: str) -> set[str]:
    """The collections that rag_ft made for a name: by their names, and the contract in them."""
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{FINGERPRINT_DIGITS}}}-\d+")
    return {
        each.name
        for each in client.list_collections()
        if pattern.fullmatch(each.name) and from_metadata(each.metadata) is not None
    }


def _delete(client: ClientAPI, collections: set[str]) -> None:
    for each in sorted(collections & _names(client)):
        client.delete_collection(each)


def _is_past(since: float, pause: float = PAUSE) -> bool:
    return time.time() - since >= pause


def _names(client: ClientAPI) -> set[str]:
    return {collection.name for collection in client.list_collections()}


def _fill_other_store(
    nodes: Iterable[BaseNode], model: BaseEmbedding, store: BasePydanticVectorStore, show_progress: bool
) -> VectorStoreIndex:
    """Embed nodes into a vector store that is not Chroma, a window at a time."""
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import MetadataMode
    from tqdm.auto import tqdm

    if not store.stores_text:
        raise InputError(f"{store.class_name()} keeps no texts: give it to VectorStoreIndex with a docstore")
    with tqdm(desc="indexing", unit="passage", disable=not show_progress, dynamic_ncols=True) as bar:
        for window in parts_of(nodes, WINDOW):
            copies = [node.model_copy() for node in window]
            texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in copies]
            for node, vector in zip(copies, embedded(model, texts).tolist(), strict=True):
                node.embedding = vector
            store.add(copies)
            bar.update(len(window))
    logger.warning("%s keeps no contract: nothing tells whether it is asked with the right model", store.class_name())
    return VectorStoreIndex.from_vector_store(store, embed_model=model)


@contextmanager
def _chroma_failures() -> Iterator[None]:
    """Turn what Chroma raises into one clear line."""
    try:
        yield
    except RagFtError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("chromadb", "httpx", "sqlite3")) and not isinstance(error, OSError):
            raise
        said = first_line(error)
        raise OutsideError(f"Chroma failed ({said}): what was written stays, run the same again") from error
