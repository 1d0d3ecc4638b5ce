"""Maintenance of an index: rolling back to the previous version, and deleting old versions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.errors import InputError
from rag_ft.index.chroma import as_client, chroma_failures, collection_names
from rag_ft.index.lock import build_lock
from rag_ft.index.pointer import write_pointer
from rag_ft.index.versions import (
    RETENTION_SECONDS,
    delete_collections,
    existing_pointer,
    is_expired,
    unfinished_versions,
)

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

logger = logging.getLogger(__name__)


def rollback_index(chroma: str | Path | ClientAPI = "chroma", name: str = "passages") -> str:
    """Point the name at the previous collection. The current one is kept, so a second call undoes the first.

    Args:
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: the name of the index.

    Returns:
        The collection that is now in use.

    Raises:
        InputError: if there is no earlier collection.
        OutsideError: if another process is building the index.

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
    client = as_client(chroma, create=False)
    existing_pointer(client, name)  # before the lock, so that a mistyped name creates no collection
    with chroma_failures(), build_lock(client, name):
        pointer = existing_pointer(client, name)
        existing = collection_names(client)
        earlier = [retired.collection for retired in pointer.retired if retired.collection in existing]
        if not earlier:
            raise InputError(f"the index {name} is at {pointer.current}: there is no earlier version to roll back to")
        write_pointer(client, name, pointer.swapped_to(earlier[-1]))
    logger.info("rolled back %s from %s to %s", name, pointer.current, earlier[-1])
    return earlier[-1]


def prune_index(
    chroma: str | Path | ClientAPI = "chroma", name: str = "passages", *, min_age: float = RETENTION_SECONDS
) -> list[str]:
    """Delete the earlier collections of an index, and those that killed builds left behind.

    Args:
        chroma: a folder, `http://HOST:PORT`, `cloud:TENANT/DATABASE`, or a Chroma client.
        name: the name of the index.
        min_age: seconds for which a replaced collection is kept, since it may still be read.

    Returns:
        The names of the deleted collections.

    Raises:
        InputError: if there is no such index.
        OutsideError: if another process is building the index.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import rebuild_index
        >>> from rag_ft.index import prune_index
        >>> chroma = tempfile.mkdtemp()
        >>> for text in ("Leave is booked by noon.", "Leave is booked by ten."):
        ...     _ = rebuild_index([TextNode(text=text)], MockEmbedding(embed_dim=8), chroma)
        >>> prune_index(chroma), len(prune_index(chroma, min_age=0))  # the earlier collection may still be read
        ([], 1)
    """
    client = as_client(chroma, create=False)
    existing_pointer(client, name)  # before the lock, so that a mistyped name creates no collection
    with chroma_failures(), build_lock(client, name):
        pointer = existing_pointer(client, name)
        expired = {retired.collection for retired in pointer.retired if is_expired(retired.since, min_age)}
        deleted = expired | unfinished_versions(client, name, pointer)
        write_pointer(client, name, pointer.without(expired))
        delete_collections(client, deleted)
    return sorted(deleted)
