"""The versions of an index: the collection in use, earlier ones, and those that killed builds left behind."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from rag_ft.errors import InputError
from rag_ft.index.chroma import collection_names
from rag_ft.index.contract import from_metadata
from rag_ft.index.pointer import POINTER_SUFFIX, Pointer, read_pointer

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from rag_ft.embedding.contract import EmbeddingContract

RETENTION_SECONDS = 600.0
"""Seconds for which a replaced collection is kept. Readers follow the pointer within a second."""

FINGERPRINT_DIGITS = 10


def existing_pointer(client: ClientAPI, name: str) -> Pointer:
    """Read the pointer of an index that has been built.

    Raises:
        InputError: if there is no such index; the message lists those that exist.
    """
    pointer = read_pointer(client, name)
    if pointer is None or pointer.current is None:
        pointers = [existing for existing in sorted(collection_names(client)) if existing.endswith(POINTER_SUFFIX)]
        indexes = ", ".join(pointer_name.removesuffix(POINTER_SUFFIX) for pointer_name in pointers) or "none"
        raise InputError(
            f"there is no index {name} (indexes: {indexes}): build it with "
            f"rag-ft index SOURCE --model MODEL --collection {name}"
        )
    return pointer


def version_name(name: str, contract: EmbeddingContract, version: int) -> str:
    """Return the name of the collection that holds a version of an index."""
    return f"{name}-{contract.fingerprint[:FINGERPRINT_DIGITS]}-{version}"


def unfinished_versions(client: ClientAPI, name: str, pointer: Pointer) -> set[str]:
    """Find the collections of killed builds: named as versions, with a contract, and not in the pointer."""
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{FINGERPRINT_DIGITS}}}-\d+")
    versions = {
        collection.name
        for collection in client.list_collections()
        if pattern.fullmatch(collection.name) and from_metadata(collection.metadata) is not None
    }
    return versions - pointer.collections


def delete_collections(client: ClientAPI, names: set[str]) -> None:
    """Delete the collections that exist."""
    for existing in sorted(names & collection_names(client)):
        client.delete_collection(existing)


def is_expired(since: float, min_age: float = RETENTION_SECONDS) -> bool:
    """Return whether a collection was replaced long enough ago to be deleted.

    Args:
        since: when it was replaced, in seconds since 1970.
        min_age: seconds for which it is kept.
    """
    return time.time() - since >= min_age
