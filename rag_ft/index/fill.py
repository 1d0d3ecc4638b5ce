"""Filling a Chroma collection with nodes in bounded memory, embedding only texts without a vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.documents.node_gate import admitted
from rag_ft.embedding.failures import embedding_failures
from rag_ft.errors import InputError, OutsideError
from rag_ft.index.records import NODE_HASH, TEXT_HASH, Record, record_of
from rag_ft.index.removal import DocumentSet, SeenIds, delete_others
from rag_ft.index.writing import CollectionWriter, batched

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray


WINDOW = 2048
"""Number of nodes in memory at once. It is large enough to sort texts by length."""

MAX_HASHES_PER_QUERY = 200

NO_NODES = "there are no nodes to index: pass at least one node with text"

SAMPLE_SIZE = 32
"""Number of passages that are searched for by their own vectors, to check the collection."""


@dataclass
class FillResult:
    """The result of filling a collection.

    Attributes:
        embedded: nodes whose text was embedded.
        reused: nodes whose vector existed, for other content or in another collection.
        unchanged: nodes that were in the collection already.
        deleted: nodes that were removed from the collection.
        sample: id -> vector of some nodes, to check the collection.
    """

    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    deleted: int = 0
    sample: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of nodes in the collection."""
        return self.embedded + self.reused + self.unchanged


def fill(
    writer: CollectionWriter,
    nodes: Iterable[BaseNode],
    model: BaseEmbedding,
    *,
    donor: Collection | None = None,
    delete_missing: bool = True,
    show_progress: bool = False,
) -> FillResult:
    """Make a collection hold these nodes; after a kill, a second call resumes.

    Args:
        writer: the collection: empty, partly filled, or with earlier nodes. All its vectors are this model's.
        nodes: the nodes, read once and a window at a time. Those without text are left out.
        model: embeds the texts that have no vector yet.
        donor: a collection with the same contract, whose vectors are reused for equal texts.
        delete_missing: delete all other nodes; False deletes only other nodes of the same documents.
        show_progress: show a progress bar with the time left.

    Raises:
        InputError: if no node has text, a node cannot be stored, or two nodes share an id but not their content.
        OutsideError: if the embedding or Chroma fails.
    """
    from tqdm.auto import tqdm

    collection = writer.collection
    result, seen = FillResult(), SeenIds()
    documents = None if delete_missing else DocumentSet()
    was_empty = collection.count() == 0
    donors = [source for source in (donor, None if was_empty else collection) if source is not None]
    total = len(nodes) if isinstance(nodes, Sized) else None
    with tqdm(total=total, desc="indexing", unit="passage", disable=not show_progress, dynamic_ncols=True) as bar:
        # A document whose nodes have no text any more is read again as well: its old texts are deleted.
        for window in batched(admitted(nodes, left_out=documents.add if documents is not None else None), WINDOW):
            records = _distinct([record_of(node) for node in window])
            stored: dict[str, dict[str, Any]] = {}
            if not was_empty or any(record.id in seen for record in records):
                stored = writer.stored_metadata([record.id for record in records])
            changed = _changed_records(records, stored, seen, result)
            if documents is not None:
                for node in window:
                    documents.add(node)
            if changed:
                vectors = _vectors(changed, model, donors, writer.batch_size, result)
                writer.write(changed, vectors, stored)
            bar.update(len(window))
    if not len(seen):
        raise InputError(NO_NODES)
    result.deleted = delete_others(writer, seen, documents)
    return result


def _distinct(records: Sequence[Record]) -> list[Record]:
    """Return one record for each id.

    Raises:
        InputError: if two records of one id differ.
    """
    distinct: dict[str, Record] = {}
    for record in records:
        if distinct.setdefault(record.id, record).node_hash != record.node_hash:
            raise _duplicate_id(record)
    return list(distinct.values())


def _duplicate_id(record: Record) -> InputError:
    return InputError(f"two nodes have the id {record.id!r} and different content: ids must be unique")


def _changed_records(
    records: Sequence[Record], stored: dict[str, dict[str, Any]], seen: SeenIds, result: FillResult
) -> list[Record]:
    """Return the records that the collection does not hold yet. Count the others, and add all ids to those seen.

    Raises:
        InputError: if a record has the id of an earlier one but different content.
    """
    changed = []
    for record in records:
        is_stored = stored.get(record.id, {}).get(NODE_HASH) == record.node_hash
        if not is_stored:
            if record.id in seen:
                raise _duplicate_id(record)
            changed.append(record)
        elif record.id not in seen:
            result.unchanged += 1
        seen.add(record.id)
    return changed


def _vectors(
    records: Sequence[Record], model: BaseEmbedding, donors: Sequence[Collection], batch_size: int, result: FillResult
) -> list[NDArray[np.float32]]:
    """Return the vector of each record, reused from a donor or embedded."""
    by_hash: dict[str, NDArray[np.float32]] = {}
    hashes = {record.text_hash for record in records}
    for donor in donors:
        by_hash |= _vectors_by_hash(donor, hashes - by_hash.keys(), batch_size)
    reused = sum(record.text_hash in by_hash for record in records)
    missing = {record.text_hash: record.text for record in records if record.text_hash not in by_hash}
    if missing:
        by_hash |= dict(zip(missing, embed_passages(model, list(missing.values())), strict=True))
    result.reused += reused
    result.embedded += len(records) - reused
    vectors = [by_hash[record.text_hash] for record in records]
    if len(result.sample) < SAMPLE_SIZE:
        # Evenly spaced: many equal vectors (a footer on every page) can hide a few others, which a small sample misses.
        step = max(1, len(records) // SAMPLE_SIZE)
        result.sample |= {records[i].id: vectors[i] for i in range(0, len(records), step)}
    return vectors


def embed_passages(model: BaseEmbedding, texts: list[str]) -> NDArray[np.float32]:
    """Embed passages; shape (texts, dimension).

    Raises:
        OutsideError: if the embedding fails, or its vectors hold NaN or infinity.
    """
    with embedding_failures(model):
        vectors = np.asarray(model.get_text_embedding_batch(texts), dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise OutsideError(f"the embedding {model.model_name} returned vectors with NaN or infinity: run again")
    return vectors


def _vectors_by_hash(donor: Collection, hashes: set[str], batch_size: int) -> dict[str, NDArray[np.float32]]:
    """Read vectors of a collection by the hash of the text that was embedded."""
    vectors: dict[str, NDArray[np.float32]] = {}

    def read(batch: list[str], limit: int) -> None:
        rows = donor.get(where={TEXT_HASH: {"$in": batch}}, limit=limit, include=["embeddings", "metadatas"])
        embeddings = rows["embeddings"] if rows["embeddings"] is not None else []
        for vector, metadata in zip(embeddings, rows["metadatas"] or [], strict=True):
            vectors[str(metadata[TEXT_HASH])] = np.asarray(vector, dtype=np.float32)

    for batch in batched(sorted(hashes), min(MAX_HASHES_PER_QUERY, batch_size)):
        read(batch, len(batch) + 1)
        missing = [text_hash for text_hash in batch if text_hash not in vectors]
        # A text that occurs many times may have filled the response, so the others are read one by one.
        for text_hash in missing if len(missing) < len(batch) else ():
            read([text_hash], 1)
    return vectors


def check_filled(collection: Collection, result: FillResult) -> None:
    """Check that a collection is complete and searchable before it is used.

    Raises:
        OutsideError: if nodes are missing, or cannot be found by their own vectors.
    """
    if (count := collection.count()) != result.count:
        raise OutsideError(f"the collection {collection.name} holds {count} of {result.count} passages: run again")
    if not result.sample:
        return
    response = collection.query(
        query_embeddings=np.stack(list(result.sample.values())), n_results=1, include=["distances"]
    )
    distances = [row[0] if row else 2.0 for row in response["distances"] or []]
    if (missed := sum(distance > 0.01 for distance in distances)) > len(distances) / 4:
        raise OutsideError(
            f"the collection {collection.name} does not find {missed} of {len(distances)} passages by their own "
            "vectors and is not used: run again, or choose another --chroma"
        )
