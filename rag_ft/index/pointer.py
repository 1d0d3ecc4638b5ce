"""Which collection a name stands for: one entry in Chroma itself, changed in one step.

Chroma can rename a collection, but not onto a name that is taken: two renames leave a moment without any. So an app's
name is never a collection's. `NAME.pointer` is an empty collection whose metadata says which collection is read at
present, and which ones were before.
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

SUFFIX = ".pointer"
ENTRY = "rag_ft_pointer"

FUSIONS = 3
"""Models whose mix is remembered: the present one, and those that a rollback may come to."""


@dataclass(frozen=True)
class Retired:
    """A collection that was read before.

    Attributes:
        collection: its name.
        since: seconds since 1970 at which it was read no longer.
    """

    collection: str
    since: float


@dataclass(frozen=True)
class Pointer:
    """What a name stands for.

    Attributes:
        version: counts the builds that ended.
        current: the collection that is read; None before the first one is complete.
        retired: those before, oldest first.
        fusions: fingerprint of a model -> how its vectors are mixed with BM25, as far as that was learned; of the
            last models.
    """

    version: int = 0
    current: str | None = None
    retired: tuple[Retired, ...] = ()
    fusions: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def mixed(self, fingerprint: str, fusion: dict[str, Any]) -> Pointer:
        """The pointer with what was learned for a model."""
        others = {key: value for key, value in self.fusions.items() if key != fingerprint}
        return replace(self, fusions=dict([*others.items(), (fingerprint, fusion)][-FUSIONS:]))

    def to(self, collection: str) -> Pointer:
        """The pointer after a swap."""
        before = (Retired(self.current, time.time()),) if self.current is not None else ()
        kept = tuple(each for each in self.retired if each.collection != collection)
        return replace(self, version=self.version + 1, current=collection, retired=kept + before)

    def ended(self) -> Pointer:
        """The pointer after a build that changed nothing of it."""
        return replace(self, version=self.version + 1)

    def without(self, collections: set[str]) -> Pointer:
        """The pointer after some were removed."""
        return replace(self, retired=tuple(each for each in self.retired if each.collection not in collections))

    @property
    def collections(self) -> set[str]:
        """All that belong to the name."""
        return {each.collection for each in self.retired} | ({self.current} if self.current else set())


def read_pointer(client: ClientAPI, name: str) -> Pointer | None:
    """What a name stands for; None where nothing was ever built under it.

    Raises:
        InputError: where the entry was changed by somebody else.
    """
    from chromadb.errors import NotFoundError

    try:
        metadata = client.get_collection(name + SUFFIX, embedding_function=None).metadata or {}
    except NotFoundError:
        return None
    if ENTRY not in metadata:
        return Pointer()
    try:
        values = json.loads(str(metadata[ENTRY]))
        retired = tuple(Retired(str(each["collection"]), float(each["since"])) for each in values["retired"])
        fusions = {str(key): dict(value) for key, value in values.get("fusions", {}).items()}
        return Pointer(int(values["version"]), values["current"], retired, fusions)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"the collection {name + SUFFIX} says nothing that rag_ft wrote: remove it and build the index again"
        ) from None


def write_pointer(client: ClientAPI, name: str, pointer: Pointer) -> None:
    """Let a name stand for something else, in one step."""
    values = {
        "version": pointer.version,
        "current": pointer.current,
        "retired": [{"collection": each.collection, "since": each.since} for each in pointer.retired],
        **({"fusions": dict(pointer.fusions)} if pointer.fusions else {}),
    }
    collection = client.get_or_create_collection(name + SUFFIX, embedding_function=None)
    collection.modify(metadata={ENTRY: json.dumps(values)})
