"""Rankings of all questions at once: through a real Chroma index, and exactly beside it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.errors import OutsideError, RagFtError
from rag_ft.index.chroma import create_collection
from rag_ft.retrieval.exact import query_vectors

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

QUERY_BATCH = 256


@dataclass(frozen=True)
class Rankings:
    """What a retriever found for each question.

    Attributes:
        passages: one list of passage ids for each question, best first.
        exact_agreement: share of the exact top 10 that the index found too; 1 where the search is exact.
        index_seconds: to embed and index all passages.
        query_milliseconds: mean time of one question.
        dimension: numbers in a vector; 0 where there are none.
    """

    passages: list[list[str]]
    exact_agreement: float
    index_seconds: float
    query_milliseconds: float
    dimension: int


def rank_with_embedding(
    model: BaseEmbedding, ids: Sequence[str], texts: Sequence[str], queries: Sequence[str], k: int, show_progress: bool
) -> Rankings:
    """Index passages under a model in Chroma and search all questions.

    Raises:
        OutsideError: where the embedding fails (a server behind it, say).
    """
    started = time.monotonic()
    try:
        passages = np.asarray(
            model.get_text_embedding_batch(list(texts), show_progress=show_progress), dtype=np.float32
        )
        indexed = time.monotonic()
        vectors = query_vectors(model, queries)
    except RagFtError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise OutsideError(f"the embedding {model.model_name} failed ({reason}): mend it and run again") from error
    found, agreement = search_chroma(ids, passages, vectors, k)
    done = time.monotonic()
    return Rankings(
        found, agreement, indexed - started, 1000 * (done - indexed) / max(1, len(queries)), passages.shape[1]
    )


def search_chroma(
    ids: Sequence[str], passages: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[list[list[str]], float]:
    """(the top k of each query from a Chroma index, the share of the exact top 10 in them)."""
    import chromadb

    client = chromadb.EphemeralClient()
    collection = create_collection(client, f"compare-{uuid.uuid4().hex}")
    try:
        step = min(client.get_max_batch_size(), 4096)
        for start in range(0, len(ids), step):
            collection.add(ids=list(ids[start : start + step]), embeddings=passages[start : start + step])
        found: list[list[str]] = []
        for start in range(0, len(queries), QUERY_BATCH):
            batch = queries[start : start + QUERY_BATCH]
            found += collection.query(query_embeddings=batch, n_results=min(k, len(ids)), include=["distances"])["ids"]
    finally:
        client.delete_collection(collection.name)
    return found, _agreement(found, ids, passages, queries)


def _agreement(
    found: list[list[str]], ids: Sequence[str], passages: NDArray[np.float32], queries: NDArray[np.float32]
) -> float:
    depth = min(10, len(ids))
    shared = 0
    for start in range(0, len(queries), QUERY_BATCH):
        scores = queries[start : start + QUERY_BATCH] @ passages.T
        top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        for row, places in zip(found[start : start + QUERY_BATCH], top, strict=True):
            shared += len({ids[place] for place in places} & set(row[:depth]))
    return shared / (depth * len(queries)) if len(queries) else 1.0
