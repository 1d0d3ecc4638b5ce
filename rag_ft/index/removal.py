"""Deleting the records of a collection that an update did not write, everywhere or in some documents only."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rag_ft.clean_text import clean_text
from rag_ft.documents.node_source import NodeSource, source_of
from rag_ft.index.nodes import node_of
from rag_ft.index.writing import MAX_BATCH_SIZE, CollectionWriter

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from llama_index.core.schema import BaseNode

MAX_FILTER_VALUES = 200
MAX_FILTER_BYTES = 3_000
"""Maximum size of the values in one filter; Chroma's cloud limits a filter to a few kilobytes."""

ID_PAGE_SIZE = 10_000

REF_DOC_ID = "ref_doc_id"


class SeenIds:
    """A set of ids stored as hashes of 8 bytes: a million ids take 70 MB instead of 170."""

    def __init__(self) -> None:
        self.hashes: set[int] = set()

    def __contains__(self, key: str) -> bool:
        return self._hash(key) in self.hashes

    def __len__(self) -> int:
        return len(self.hashes)

    def add(self, key: str) -> None:
        """Add an id."""
        self.hashes.add(self._hash(key))

    @staticmethod
    def _hash(key: str) -> int:
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


class DocumentSet:
    """The documents that some nodes come from, as a filter for a collection's records.

    A document is a file or an address in the metadata (`source_of`), because LlamaIndex's ids of documents are random:
    a file that is read again has another one. Nodes with the same `ref_doc_id` are of one document as well.
    """

    def __init__(self) -> None:
        self._sources: set[NodeSource] = set()
        self._ref_doc_ids: set[str] = set()
        self._values: dict[tuple[str, type], set[Any]] = defaultdict(set)

    def add(self, node: BaseNode) -> None:
        """Add the document of a node."""
        if node.ref_doc_id:
            self._ref_doc_ids.add(node.ref_doc_id)
            self._values[REF_DOC_ID, str].add(node.ref_doc_id)
        source = source_of(node)
        if source.key in ("", REF_DOC_ID):
            return
        self._sources.add(source)
        value = node.metadata[source.key]
        if type(value) not in (int, float):
            value = clean_text(str(value))
        self._values[source.key, type(value)].add(value)

    def holds(self, node: BaseNode) -> bool:
        """Return whether a node is of one of the documents."""
        if node.ref_doc_id in self._ref_doc_ids:
            return True
        return source_of(node) in self._sources

    def conditions(self) -> Iterator[dict[str, Any]]:
        """Yield filters that select the records of these documents, and possibly others."""
        for (key, _), values in sorted(self._values.items(), key=lambda item: str(item[0])):
            for batch in _in_batches(sorted(values)):
                yield {key: {"$in": batch}}


def delete_others(writer: CollectionWriter, seen: SeenIds, documents: DocumentSet | None) -> int:
    """Delete the records that were not seen.

    Args:
        writer: the collection.
        seen: ids of the records to keep.
        documents: delete only records of these documents; None deletes all others.

    Returns:
        How many were deleted.
    """
    if documents is None:
        if writer.collection.count() == len(seen):
            return 0  # the usual case after a first build
        others = [key for key, _ in _unseen(writer, seen, None)]
    else:
        found = (entry for condition in documents.conditions() for entry in _unseen(writer, seen, condition))
        # A filter by file name also selects other files of that name in other folders.
        others = list(
            dict.fromkeys(key for key, metadata in found if documents.holds(node_of(key, "", dict(metadata or {}))))
        )
    writer.delete(others)
    return len(others)


def _unseen(
    writer: CollectionWriter, seen: SeenIds, where: dict[str, Any] | None
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yield the id of each selected record that was not seen, with its metadata if there is a filter."""
    size = ID_PAGE_SIZE if where is None and writer.batch_size >= MAX_BATCH_SIZE else writer.batch_size
    for ids, metadatas in _pages(writer.collection, where, size):
        for key, metadata in zip(ids, metadatas or [None] * len(ids), strict=True):
            if key not in seen:
                yield key, metadata


def _pages(collection: Collection, where: dict[str, Any] | None, size: int) -> Iterator[tuple[list[str], Any]]:
    offset = 0
    while ids := (
        rows := collection.get(where=where, limit=size, offset=offset, include=[] if where is None else ["metadatas"])
    )["ids"]:
        yield ids, rows["metadatas"]
        offset += len(ids)


def _in_batches(values: list[Any]) -> Iterator[list[Any]]:
    """Split the values of a filter by number and size."""
    batch: list[Any] = []
    size = 0
    for value in values:
        length = len(str(value).encode())
        if batch and (len(batch) == MAX_FILTER_VALUES or size + length > MAX_FILTER_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(value)
        size += length
    if batch:
        yield batch
