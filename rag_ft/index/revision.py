"""Tells those who keep something made of a collection's passages that the passages changed.

A word index beside the vectors must follow each insert, change and deletion. Chroma tells nobody, so whoever writes
leaves a new revision in the collection's metadata: before it writes, marked as open, and after it. One that was killed
in between leaves an open one behind: readers then look again until it is `LEASE` old.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_ft.index.contract import KEY

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

ENTRY = KEY + "revision"

LEASE = 300.0
"""Seconds for which a writer that left no end may still write."""

RENEW = 60.0
"""Seconds after which one that still writes says so."""


@dataclass(frozen=True)
class Revision:
    """What state a collection is in.

    Attributes:
        collection: its id: a rebuilt index is another collection.
        name: new at each change; empty where nobody changed anything since the collection was filled.
        open_since: seconds since 1970 at which somebody began to write and did not end; None where all ended.
        count: of the passages.
    """

    collection: str
    name: str
    open_since: float | None
    count: int

    @property
    def settled(self) -> bool:
        """Whether nobody is in the middle of writing."""
        return self.open_since is None or time.time() - self.open_since > LEASE


def read_revision(client: ClientAPI, collection: str) -> Revision:
    """The state of a collection at this moment."""
    found = client.get_collection(collection, embedding_function=None)
    name, _, since = str((found.metadata or {}).get(ENTRY, "")).partition("@")
    return Revision(str(found.id), name, float(since) if since else None, found.count())


class Writing:
    """Leaves revisions while somebody writes into a collection.

    Args:
        client: a Chroma client.
        collection: its name.
    """

    def __init__(self, client: ClientAPI, collection: str) -> None:
        self._client, self._collection = client, collection
        self._marked = 0.0

    def mark(self, is_open: bool = True) -> None:
        """Leave a new revision; within a minute of the last one that was open, one more open one says nothing new."""
        now = time.time()
        if is_open and now - self._marked < RENEW:
            return
        found = self._client.get_collection(self._collection, embedding_function=None)
        _mark(found, f"{uuid.uuid4().hex}@{now}" if is_open else uuid.uuid4().hex)
        self._marked = now if is_open else 0.0


@contextmanager
def changing(client: ClientAPI, collection: str) -> Iterator[Writing]:
    """Leave a revision before something is written, and one after it, also where writing failed."""
    writing = Writing(client, collection)
    writing.mark()
    try:
        yield writing
    finally:
        writing.mark(is_open=False)


def _mark(collection: Collection, revision: str) -> None:
    collection.modify(metadata={**(collection.metadata or {}), ENTRY: revision})
