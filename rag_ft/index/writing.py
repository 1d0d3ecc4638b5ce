"""Records and vectors -> a Chroma collection, in steps that its server takes; and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rag_ft.index.records import Record

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from numpy.typing import NDArray

T = TypeVar("T")

CLOUD_STEP = 300
"""Records that Chroma's cloud takes, or gives, in one call."""

STEP = 2048
CALL_BYTES = 20_000_000
"""Of one call: a server refuses more than about 40 MB."""

NUMBER_BYTES = 14
"""Of one number of a vector, as JSON."""


def parts_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """A stream in lists of so many."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def step_of(client: ClientAPI) -> int:
    """Records in one call to this client."""
    host = str(getattr(client.get_settings(), "chroma_server_host", None) or "")
    return CLOUD_STEP if host.endswith("trychroma.com") else min(STEP, client.get_max_batch_size())


def stored_metadata(collection: Collection, ids: Sequence[str], step: int) -> dict[str, dict[str, Any]]:
    """What a collection has of some ids: id -> metadata."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts_of(ids, step):
        rows = collection.get(ids=part, include=["metadatas"])
        found |= {key: dict(value or {}) for key, value in zip(rows["ids"], rows["metadatas"] or [], strict=True)}
    return found


def write_records(
    collection: Collection,
    records: Sequence[Record],
    vectors: Sequence[NDArray[np.float32]],
    known: dict[str, dict[str, Any]],
    step: int,
) -> None:
    """Insert records, or replace those of the same ids as a whole.

    Args:
        collection: where.
        records: what.
        vectors: of each record.
        known: what the collection has of these ids (`stored_metadata`).
        step: records in one call at most; fewer where they are large.
    """
    start = 0
    while start < len(records):
        size, end = 0, start
        while end < len(records) and end - start < step and (size < CALL_BYTES or end == start):
            size += NUMBER_BYTES * len(vectors[end]) + 2 * len(records[end].document) + len(str(records[end].metadata))
            end += 1
        part = records[start:end]
        collection.upsert(
            ids=[record.id for record in part],
            embeddings=np.stack(vectors[start:end]),
            # Chroma merges metadata: an entry that is no longer there must be taken away by name.
            metadatas=[
                record.metadata | {key: None for key in known.get(record.id, {}) if key not in record.metadata}
                for record in part
            ],
            documents=[record.document for record in part],
        )
        start = end
