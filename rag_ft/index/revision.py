"""The revision of an index, which shows whether its passages changed.

A word index beside the vectors must follow each change of the passages, but Chroma sends no notifications. So every
writer adds a notice to the small collection `NAME.changes` before it writes. Afterwards it removes the notice and gives
the revision a new name. A killed writer leaves its notice behind; until this is `LEASE_SECONDS` old, passages that are
read may still change.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

CHANGES_SUFFIX = ".changes"
LAST, SINCE, NAME = "last", "since", "name"
NO_VECTOR = [0.0]
"""The vector of a notice, since Chroma requires one."""

LEASE_SECONDS = 300.0
"""Seconds after its notice for which a writer may still be writing."""

RENEW_SECONDS = 60.0
"""Seconds after which a writer renews its notice."""


@dataclass(frozen=True)
class Revision:
    """The state of an index at one moment.

    Attributes:
        collection: id of the collection in use; it differs after a rebuild.
        name: a new name after each change, even one that was not completed; empty if there was none since the build.
        settled: whether no process was writing.
        count: number of passages.
    """

    collection: str
    name: str
    settled: bool
    count: int


def read_revision(client: ClientAPI, name: str, collection: str) -> Revision:
    """Read the current revision of an index.

    Args:
        client: a Chroma client.
        name: the name of the index.
        collection: the name of the collection in use.
    """
    from chromadb.errors import NotFoundError

    entries: dict[str, dict[str, Any]] = {}
    with suppress(NotFoundError):
        entries = _entries(client.get_collection(name + CHANGES_SUFFIX, embedding_function=None))
    last = str(entries.pop(LAST, {}).get(NAME, ""))
    settled = all(_age(notice) >= LEASE_SECONDS for notice in entries.values())
    current = client.get_collection(collection, embedding_function=None)
    return Revision(str(current.id), " ".join([last, *sorted(entries)]).strip(), settled, current.count())


class WriteNotice:
    """A notice for readers that a process is writing to an index.

    Args:
        client: a Chroma client.
        name: the name of the index.
    """

    def __init__(self, client: ClientAPI, name: str) -> None:
        self._client, self._name = client, name
        self._key, self._marked_at = uuid.uuid4().hex, 0.0

    def mark(self) -> None:
        """Add or renew the notice; further calls within a minute do nothing."""
        now = time.time()
        if now - self._marked_at < RENEW_SECONDS:
            return
        self._changes().upsert(ids=[self._key], embeddings=[NO_VECTOR], metadatas=[{SINCE: now}])  # type: ignore[arg-type]
        self._marked_at = now

    def end(self) -> None:
        """Remove the notice and rename the revision, if there was a notice."""
        if not self._marked_at:
            return
        changes = self._changes()
        changes.upsert(ids=[LAST], embeddings=[NO_VECTOR], metadatas=[{NAME: uuid.uuid4().hex}])  # type: ignore[arg-type]
        entries = _entries(changes)
        stale = [key for key, notice in entries.items() if key != LAST and _age(notice) > 10 * LEASE_SECONDS]
        changes.delete(ids=[self._key, *stale])
        self._marked_at = 0.0

    def _changes(self) -> Collection:
        return self._client.get_or_create_collection(self._name + CHANGES_SUFFIX, embedding_function=None)


@contextmanager
def announced_writes(client: ClientAPI, name: str) -> Iterator[WriteNotice]:
    """Yield a notice for a block that calls `mark` before each write; it ends even if a write fails."""
    notice = WriteNotice(client, name)
    try:
        yield notice
    finally:
        notice.end()


def _entries(changes: Collection) -> dict[str, dict[str, Any]]:
    """Read the entries of a `NAME.changes` collection: notices, and the last revision's name."""
    rows = changes.get(include=["metadatas"])
    return {key: dict(metadata or {}) for key, metadata in zip(rows["ids"], rows["metadatas"] or [], strict=True)}


def _age(notice: dict[str, Any]) -> float:
    return time.time() - float(str(notice.get(SINCE, 0)))
