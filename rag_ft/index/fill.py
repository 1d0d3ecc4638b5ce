"""Nodes -> a Chroma collection that holds them and nothing else, in bounded memory; only what is new is embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.errors import InputError, OutsideError, RagFtError, first_line
from rag_ft.index.records import NODE_HASH, TEXT_HASH, Record, record_of
from rag_ft.index.writing import STEP, parts_of, stored_metadata, write_records

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray


WINDOW = 2048
"""Nodes in memory at once: enough to sort texts by length."""

HASHES_AT_ONCE = 200
IDS_AT_ONCE = 10_000

SAMPLED = 32
"""Passages, of the first ones that are written, that a collection must find by their own vectors."""


@dataclass
class Filled:
    """What was done to fill a collection.

    Attributes:
        embedded: nodes whose text was embedded.
        reused: nodes whose vector was there already, beside other content or in another collection.
        kept: nodes that were there already.
        deleted: nodes that were there and are gone.
        sample: some ids and their vectors, to check the collection by.
    """

    embedded: int = 0
    reused: int = 0
    kept: int = 0
    deleted: int = 0
    sample: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Nodes that are there now."""
        return self.embedded + self.reused + self.kept


class SeenIds:
    """Ids as 8 bytes each: a million of them take 70 MB and not 170."""

    def __init__(self) -> None:
        self.hashes: set[int] = set()

    def __contains__(self, key: str) -> bool:
        return self._hash(key) in self.hashes

    def __len__(self) -> int:
        return len(self.hashes)

    def add(self, key: str) -> None:
        """Remember an id."""
        self.hashes.add(self._hash(key))

    @staticmethod
    def _hash(key: str) -> int:
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def fill(
    collection: Collection,
    nodes: Iterable[BaseNode],
    model: BaseEmbedding,
    *,
    donor: Collection | None = None,
    delete_others: bool = True,
    still_ours: Callable[[], None] = lambda: None,
    step: int = STEP,
    show_progress: bool = False,
) -> Filled:
    """Make a collection hold these nodes; the same call again goes on where a killed one was.

    Args:
        collection: empty, half-filled, or with an earlier state of the nodes; its vectors are this model's.
        nodes: read once, a window at a time.
        model: for texts whose vector is nowhere.
        donor: a collection of the same contract, whose vectors are taken for equal texts.
        delete_others: remove what is not among the nodes; otherwise only what belonged to their documents.
        still_ours: raises where the right to write was lost; called directly before each write.
        step: records in one call to Chroma.
        show_progress: a progress bar with time left.

    Raises:
        InputError: where there is no node, or two nodes have one id and different content.
        OutsideError: where the embedding or Chroma fails.
    """
    from tqdm.auto import tqdm

    filled, seen = Filled(), SeenIds()
    documents: set[str] = set()
    may_hold_some = collection.count() > 0
    total = len(nodes) if isinstance(nodes, Sized) else None
    with tqdm(total=total, desc="indexing", unit="passage", disable=not show_progress, dynamic_ncols=True) as bar:
        for window in parts_of(nodes, WINDOW):
            records = _distinct([record_of(node) for node in window])
            known: dict[str, dict[str, Any]] = {}
            if may_hold_some or any(record.id in seen for record in records):
                known = stored_metadata(collection, [record.id for record in records], step)
            fresh = []
            for record in records:
                if record.id in seen and known.get(record.id, {}).get(NODE_HASH) != record.node_hash:
                    raise InputError(f"two nodes have the id {record.id!r} and different content: ids must be unique")
                if known.get(record.id, {}).get(NODE_HASH) != record.node_hash:
                    fresh.append(record)
                elif record.id not in seen:
                    filled.kept += 1
                seen.add(record.id)
                if not delete_others:
                    documents.add(str(record.metadata.get("ref_doc_id", "None")))
            if fresh:
                donors = [each for each in (donor, collection if may_hold_some else None) if each is not None]
                vectors = _vectors(fresh, model, donors, step, filled)
                still_ours()
                write_records(collection, fresh, vectors, known, step)
            bar.update(len(window))
    if not len(seen):
        raise InputError("there is no node to index: give at least one")
    filled.deleted = _delete_others(collection, seen, None if delete_others else documents, still_ours, step)
    return filled


def _distinct(records: Sequence[Record]) -> list[Record]:
    """One record for each id.

    Raises:
        InputError: where two of one id differ.
    """
    found: dict[str, Record] = {}
    for record in records:
        if (other := found.setdefault(record.id, record)).node_hash != record.node_hash:
            raise InputError(f"two nodes have the id {other.id!r} and different content: ids must be unique")
    return list(found.values())


def _vectors(
    records: Sequence[Record], model: BaseEmbedding, donors: Sequence[Collection], step: int, filled: Filled
) -> list[NDArray[np.float32]]:
    """The vector of each record: from where it is already, else embedded."""
    by_hash: dict[str, NDArray[np.float32]] = {}
    wanted = {record.text_hash for record in records}
    for donor in donors:
        by_hash |= _vectors_of(donor, wanted - by_hash.keys(), step)
    reused = sum(record.text_hash in by_hash for record in records)
    missing = {record.text_hash: record.text for record in records if record.text_hash not in by_hash}
    if missing:
        by_hash |= dict(zip(missing, embedded(model, list(missing.values())), strict=True))
    filled.reused += reused
    filled.embedded += len(records) - reused
    vectors = [by_hash[record.text_hash] for record in records]
    if len(filled.sample) < SAMPLED:
        # Evenly: a graph of many equal vectors (a footer on every page) may lose a few others, and two would not tell.
        step = max(1, len(records) // SAMPLED)
        filled.sample |= {records[place].id: vectors[place] for place in range(0, len(records), step)}
    return vectors


def embedded(model: BaseEmbedding, texts: list[str]) -> NDArray[np.float32]:
    """The vectors of passages, shape (texts, dimension).

    Raises:
        OutsideError: where the embedding fails (a server behind it, say), or gives numbers that are none.
    """
    try:
        vectors = np.asarray(model.get_text_embedding_batch(texts), dtype=np.float32)
    except RagFtError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise OutsideError(f"the embedding {model.model_name} failed ({reason}): mend it and run again") from error
    if not np.isfinite(vectors).all():
        raise OutsideError(f"the embedding {model.model_name} gave vectors with NaN or infinity: nothing was written")
    return vectors


def _vectors_of(donor: Collection, hashes: set[str], step: int) -> dict[str, NDArray[np.float32]]:
    """Vectors by the hash of the text that they were made of."""
    found: dict[str, NDArray[np.float32]] = {}

    def ask(part: list[str], limit: int) -> None:
        rows = donor.get(where={TEXT_HASH: {"$in": part}}, limit=limit, include=["embeddings", "metadatas"])
        embeddings = rows["embeddings"] if rows["embeddings"] is not None else []
        for vector, metadata in zip(embeddings, rows["metadatas"] or [], strict=True):
            found[str(metadata[TEXT_HASH])] = np.asarray(vector, dtype=np.float32)

    for part in parts_of(sorted(hashes), min(HASHES_AT_ONCE, step)):
        ask(part, len(part) + 1)
        left = [each for each in part if each not in found]
        # A text that stands there many times may have filled the answer: then each is asked for by itself.
        for each in left if len(left) < len(part) else ():
            ask([each], 1)
    return found


def _delete_others(
    collection: Collection, seen: SeenIds, documents: set[str] | None, still_ours: Callable[[], None], step: int
) -> int:
    """Remove what is in the collection and was not seen; of some documents only, where they are given."""
    if documents is None and collection.count() == len(seen):
        return 0  # as it is after a first build
    others = [
        key
        for where in _conditions(documents)
        for ids in _pages(collection, where, IDS_AT_ONCE if step >= STEP else step)
        for key in ids
        if key not in seen
    ]
    for part in parts_of(others, step):
        still_ours()
        collection.delete(ids=part)
    return len(others)


def _conditions(documents: set[str] | None) -> Iterator[dict[str, Any] | None]:
    if documents is None:
        yield None
        return
    # LlamaIndex writes "None" where a node is of no document.
    for part in parts_of(sorted(documents - {"None"}), HASHES_AT_ONCE):
        yield {"ref_doc_id": {"$in": part}}


def _pages(collection: Collection, where: dict[str, Any] | None, size: int) -> Iterator[list[str]]:
    offset = 0
    while ids := collection.get(where=where, limit=size, offset=offset, include=[])["ids"]:
        yield ids
        offset += len(ids)


def check_filled(collection: Collection, filled: Filled) -> None:
    """Make sure that a collection is what it should be before anybody reads it.

    Raises:
        OutsideError: where nodes are missing, or are not found by their own vectors.
    """
    if (count := collection.count()) != filled.count:
        raise OutsideError(f"the collection {collection.name} holds {count} of {filled.count} passages: run again")
    if not filled.sample:
        return
    found = collection.query(
        query_embeddings=np.stack(list(filled.sample.values())), n_results=1, include=["distances"]
    )
    distances = [row[0] if row else 2.0 for row in found["distances"] or []]
    if (missed := sum(distance > 0.01 for distance in distances)) > len(distances) / 4:
        raise OutsideError(
            f"the collection {collection.name} does not find {missed} of {len(distances)} passages by their own "
            "vectors: it is not used. Run again, or choose another --chroma"
        )
