"""Writing records and vectors to a Chroma collection, in batches that its server accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rag_ft.index.records import Record

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from numpy.typing import NDArray

T = TypeVar("T")

CLOUD_BATCH_SIZE = 300
"""Maximum number of records in one call to Chroma's cloud."""

MAX_BATCH_SIZE = 2048
MAX_CALL_BYTES = 20_000_000
"""Maximum size of one call; servers reject more than about 40 MB."""

BYTES_PER_NUMBER = 14
"""Approximate size of a vector's number as JSON."""


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split a stream into lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def batch_size_of(client: ClientAPI) -> int:
    """Return the maximum number of records in one call to this client."""
    host = str(getattr(client.get_settings(), "chroma_server_host", None) or "")
    return CLOUD_BATCH_SIZE if host.endswith("trychroma.com") else min(MAX_BATCH_SIZE, client.get_max_batch_size())


@dataclass(frozen=True, kw_only=True)
class CollectionWriter:
    """A collection that is written in batches.

    Attributes:
        collection: the collection.
        batch_size: maximum number of records in one call (`batch_size_of`).
        before_write: called before each write; raises if the process may no longer write.
    """

    collection: Collection
    batch_size: int = MAX_BATCH_SIZE
    before_write: Callable[[], None] = lambda: None

    def stored_metadata(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Read the metadata of the records that the collection holds, by id."""
        stored: dict[str, dict[str, Any]] = {}
        for batch in batched(ids, self.batch_size):
            rows = self.collection.get(ids=batch, include=["metadatas"])
            stored |= {key: dict(value or {}) for key, value in zip(rows["ids"], rows["metadatas"] or [], strict=True)}
        return stored

    def write(
        self, records: Sequence[Record], vectors: Sequence[NDArray[np.float32]], stored: dict[str, dict[str, Any]]
    ) -> None:
        """Insert records, or replace records with the same ids completely.

        Args:
            records: the records.
            vectors: the vector of each record.
            stored: the metadata that the collection holds for these ids (`stored_metadata`).
        """
        self.before_write()
        start = 0
        while start < len(records):
            end = self._batch_end(records, vectors, start)
            batch = records[start:end]
            self.collection.upsert(
                ids=[record.id for record in batch],
                embeddings=np.stack(vectors[start:end]),
                # Chroma merges metadata, so an old entry must be removed by name.
                metadatas=[
                    record.metadata | {key: None for key in stored.get(record.id, {}) if key not in record.metadata}
                    for record in batch
                ],
                documents=[record.document for record in batch],
            )
            start = end

    def _batch_end(self, records: Sequence[Record], vectors: Sequence[NDArray[np.float32]], start: int) -> int:
        """Find the end of the batch that starts here, limited by its number of records and its size."""
        size, end = 0, start
        while end < len(records) and end - start < self.batch_size and (size < MAX_CALL_BYTES or end == start):
            size += BYTES_PER_NUMBER * len(vectors[end])
            size += 2 * len(records[end].document) + len(str(records[end].metadata))
            end += 1
        return end

    def delete(self, ids: Sequence[str]) -> None:
        """Delete records by their ids."""
        for batch in batched(ids, self.batch_size):
            self.before_write()
            self.collection.delete(ids=batch)
