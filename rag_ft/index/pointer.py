"""The pointer from an index's name to its collection: one entry in Chroma, changed atomically.

Chroma cannot rename a collection to a name that is taken, and between two renames there would be no collection of the
name. So the name of an index is never the name of a collection. Instead, the metadata of the empty collection
`NAME.pointer` names the collection in use and the earlier ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

POINTER_SUFFIX = ".pointer"
ENTRY = "rag_ft_pointer"

MAX_FUSIONS = 3
"""Number of models whose fusion is kept: the current one, and those that a rollback may restore."""


@dataclass(frozen=True)
class Retired:
    """A collection that was in use before.

    Attributes:
        collection: name of the collection.
        since: when it was replaced, in seconds since 1970.
    """

    collection: str
    since: float


@dataclass(frozen=True)
class Pointer:
    """The collections of an index.

    Attributes:
        version: number of builds that have ended.
        current: the collection in use; None before the first one is complete.
        retired: earlier collections, oldest first.
        fusions: fingerprint of a model -> how its results are fused with BM25, for the last models that learned it.
    """

    version: int = 0
    current: str | None = None
    retired: tuple[Retired, ...] = ()
    fusions: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def with_fusion(self, fingerprint: str, fusion: dict[str, Any]) -> Pointer:
        """Return the pointer with the fusion that was learned for a model."""
        others = {key: value for key, value in self.fusions.items() if key != fingerprint}
        return replace(self, fusions=dict([*others.items(), (fingerprint, fusion)][-MAX_FUSIONS:]))

    def swapped_to(self, collection: str) -> Pointer:
        """Return the pointer after a swap to another collection."""
        replaced = (Retired(self.current, time.time()),) if self.current is not None else ()
        others = tuple(retired for retired in self.retired if retired.collection != collection)
        return replace(self, version=self.version + 1, current=collection, retired=others + replaced)

    def next_version(self) -> Pointer:
        """Return the pointer after a build without a swap."""
        return replace(self, version=self.version + 1)

    def without(self, collections: set[str]) -> Pointer:
        """Return the pointer after some collections were deleted."""
        return replace(self, retired=tuple(old for old in self.retired if old.collection not in collections))

    @property
    def collections(self) -> set[str]:
        """All collections in the pointer."""
        return {retired.collection for retired in self.retired} | ({self.current} if self.current else set())


def read_pointer(client: ClientAPI, name: str) -> Pointer | None:
    """Read the pointer of an index; None if no index of this name was ever built.

    Raises:
        InputError: if another program changed the entry.
    """
    from chromadb.errors import NotFoundError

    try:
        metadata = client.get_collection(name + POINTER_SUFFIX, embedding_function=None).metadata or {}
    except NotFoundError:
        return None
    if ENTRY not in metadata:
        return Pointer()
    try:
        values = json.loads(str(metadata[ENTRY]))
        retired = tuple(Retired(str(entry["collection"]), float(entry["since"])) for entry in values["retired"])
        fusions = {str(key): dict(value) for key, value in values.get("fusions", {}).items()}
        return Pointer(int(values["version"]), values["current"], retired, fusions)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"the collection {name}{POINTER_SUFFIX} was not written by rag_ft: delete it and build the index again"
        ) from None


def write_pointer(client: ClientAPI, name: str, pointer: Pointer) -> None:
    """Write the pointer of an index, atomically."""
    values = {
        "version": pointer.version,
        "current": pointer.current,
        "retired": [{"collection": retired.collection, "since": retired.since} for retired in pointer.retired],
        **({"fusions": dict(pointer.fusions)} if pointer.fusions else {}),
    }
    collection = client.get_or_create_collection(name + POINTER_SUFFIX, embedding_function=None)
    collection.modify(metadata={ENTRY: json.dumps(values)})
