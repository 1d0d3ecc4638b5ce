"""Tells those who keep something made of an index's passages that the passages changed.

A word index beside the vectors must follow each insert, change and deletion, and Chroma tells nobody. So whoever writes
leaves a record of its own in the small collection `NAME.changes` before it writes, and takes it away afterwards, when
it also gives the whole a new name. A writer that was killed leaves its record behind: what was read meanwhile is not
final until the record is `LEASE` old.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

SUFFIX = ".changes"
LAST, SINCE, NAME = "last", "since", "name"
NOWHERE = [0.0]
"""The vector of a record: Chroma wants one."""

LEASE = 300.0
"""Seconds for which a writer that left no end may still write."""

RENEW = 60.0
"""Seconds after which one that still writes says so."""


@dataclass(frozen=True)
class Revision:
    """What state an index is in.

    Attributes:
        collection: id of the collection that is read: a rebuilt index is another one.
        name: another one after each change, and after one that began and never ended; empty where nobody changed
            anything since the index was built.
        settled: whether nobody was in the middle of writing.
        count: of the passages.
    """

    collection: str
    name: str
    settled: bool
    count: int


def read_revision(client: ClientAPI, name: str, collection: str) -> Revision:
    """The state of an index at this moment.

    Args:
        client: a Chroma client.
        name: what the index is opened by.
        collection: the name of the one that is read.
    """
    changes = _changes(client, name, create=False)
    last, settled, begun = "", True, []
    if changes is not None:
        rows = changes.get(include=["metadatas"])
        for key, metadata in zip(rows["ids"], rows["metadatas"] or [], strict=True):
            if key == LAST:
                last = str((metadata or {}).get(NAME, ""))
                continue
            begun.append(key)
            if time.time() - float(str((metadata or {}).get(SINCE, 0))) < LEASE:
                settled = False
    found = client.get_collection(collection, embedding_function=None)
    return Revision(str(found.id), " ".join([last, *sorted(begun)]).strip(), settled, found.count())


class Writing:
    """Somebody who writes into an index, as others see it.

    Args:
        client: a Chroma client.
        name: what the index is opened by.
    """

    def __init__(self, client: ClientAPI, name: str) -> None:
        self._client, self._name = client, name
        self._key, self._marked = uuid.uuid4().hex, 0.0

    def mark(self) -> None:
        """Say that something is written now; more often than once a minute this does nothing."""
        now = time.time()
        if now - self._marked < RENEW:
            return
        changes = _changes(self._client, self._name, create=True)
        assert changes is not None
        changes.upsert(ids=[self._key], embeddings=[NOWHERE], metadatas=[{SINCE: now}])  # type: ignore[arg-type]
        self._marked = now

    def end(self) -> None:
        """Say that all is written, where something was."""
        if not self._marked:
            return
        changes = _changes(self._client, self._name, create=True)
        assert changes is not None
        changes.upsert(ids=[LAST], embeddings=[NOWHERE], metadatas=[{NAME: uuid.uuid4().hex}])  # type: ignore[arg-type]
        rows = changes.get(include=["metadatas"])
        old = [
            key
            for key, metadata in zip(rows["ids"], rows["metadatas"] or [], strict=True)
            if key != LAST and time.time() - float(str((metadata or {}).get(SINCE, 0))) > 10 * LEASE
        ]
        changes.delete(ids=[self._key, *old])
        self._marked = 0.0


@contextmanager
def changing(client: ClientAPI, name: str) -> Iterator[Writing]:
    """Somebody may write into an index: `mark` before each write, and the end is said also where writing failed."""
    writing = Writing(client, name)
    try:
        yield writing
    finally:
        writing.end()


def _changes(client: ClientAPI, name: str, create: bool) -> Collection | None:
    from chromadb.errors import NotFoundError

    if create:
        return client.get_or_create_collection(name + SUFFIX, embedding_function=None)
    try:
        return client.get_collection(name + SUFFIX, embedding_function=None)
    except NotFoundError:
        return None
