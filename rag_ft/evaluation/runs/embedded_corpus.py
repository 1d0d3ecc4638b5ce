"""Passages and questions under one embedding, searched through a Chroma index and exactly."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.embedding.failures import embedding_failures
from rag_ft.index.chroma import create_collection
from rag_ft.retrieval.exact import passage_vectors, query_vectors, unit
from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

MAX_QUERY_BATCH, MIN_QUERY_BATCH = 256, 16
"""Maximum and minimum number of queries to search at once."""

MAX_SCORES = 25_600_000
"""Maximum number of scores of one embedding in memory: 100 MB."""

MAX_CHROMA_BATCH = 4096
"""Maximum number of passages to add to Chroma at once."""


def query_batch_size(passages: int) -> int:
    """Return the number of queries to search at once, so that their scores over all passages fit into memory."""
    return max(MIN_QUERY_BATCH, min(MAX_QUERY_BATCH, MAX_SCORES // max(1, passages)))


class EmbeddedCorpus:
    """Passages and questions under one embedding, each embedded once.

    Args:
        model: any LlamaIndex embedding.
        passages: passage id -> text as it is embedded.
        queries: the questions.
        show_progress: shows a progress bar.

    Attributes:
        model: the embedding.
        ids: the passage ids.
        seconds: time to embed all passages.
        query_milliseconds: mean time to embed a question.

    Raises:
        OutsideError: if the embedding fails, for example because its server is down.
    """

    def __init__(
        self, model: BaseEmbedding, passages: Mapping[str, str], queries: Sequence[str], show_progress: bool = False
    ) -> None:
        self.model, self.ids, self._texts = model, list(passages), list(queries)
        started = time.monotonic()
        with embedding_failures(model):
            self._passages = unit(passage_vectors(model, list(passages.values()), show_progress))
        self.seconds = time.monotonic() - started
        started = time.monotonic()
        with embedding_failures(model):
            self._queries = unit(query_vectors(model, queries)) if queries else np.empty((0, 0), dtype=np.float32)
        self.query_milliseconds = round(1000 * (time.monotonic() - started) / max(1, len(queries)), 2)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._passages.shape[1])

    @property
    def megabytes(self) -> float:
        """Size of the vectors in an index."""
        return self._passages.nbytes / 1e6

    def details(self) -> dict[str, Any]:
        """Return what the index costs, with the keys of `comparison.json`."""
        return {
            "index_seconds": round(self.seconds, 2),
            "dimension": self.dimension,
            "index_megabytes": round(self.megabytes, 1),
        } | model_size(self.model)

    def rank(self, k: int) -> tuple[list[list[str]], float, float]:
        """Search all questions through a Chroma index.

        Returns:
            The top k passages of each question, the fraction of the exact top 10 in them, and milliseconds per
            question.
        """
        started = time.monotonic()
        rankings, agreement = search_chroma(self.ids, self._passages, self._queries, k)
        milliseconds = 1000 * (time.monotonic() - started) / max(1, len(self._queries))
        return rankings, agreement, self.query_milliseconds + milliseconds

    def agreement(self, passages: int, queries: int, seed: int = 0) -> float:
        """Return the fraction of the exact top 10 that a Chroma index of some passages finds for some questions.

        Args:
            passages: number of passages, drawn at random.
            queries: number of questions, drawn at random.
            seed: seeds the draws.
        """
        rng = np.random.default_rng(seed)
        sample = rng.choice(len(self.ids), min(passages, len(self.ids)), replace=False)
        sampled_queries = rng.choice(len(self._queries), min(queries, len(self._queries)), replace=False)
        ids = [self.ids[position] for position in sample]
        return search_chroma(ids, self._passages[sample], self._queries[sampled_queries], 10)[1]

    def block(self, start: int, end: int) -> NDArray[np.float32]:
        """Return the cosine similarity of every passage to some of the questions, shape (end - start, passages)."""
        return self._queries[start:end] @ self._passages.T

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield the exact cosine similarity of every passage to each query, shape (passages,).

        Args:
            queries: the queries. The corpus' own questions are not embedded again.
        """
        if list(queries) == self._texts:
            vectors = self._queries
        else:
            with embedding_failures(self.model):
                vectors = unit(query_vectors(self.model, queries))
        step = query_batch_size(len(self._passages))
        for start in range(0, len(queries), step):
            yield from vectors[start : start + step] @ self._passages.T


def model_size(model: BaseEmbedding) -> dict[str, float]:
    """Return the size of a local model's weights as `model_megabytes`; nothing for a model behind an API."""
    transformer = getattr(model, "sentence_transformer", None)
    if transformer is None:
        return {}
    return {"model_megabytes": round(sum(each.nbytes for each in transformer.parameters()) / 1e6, 1)}


def search_chroma(
    ids: Sequence[str], passages: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[list[list[str]], float]:
    """Search a temporary Chroma index.

    Returns:
        The top k passages of each query, and the fraction of the exact top 10 in them.
    """
    import chromadb

    client = chromadb.EphemeralClient()
    collection = create_collection(client, f"compare-{uuid.uuid4().hex}")
    try:
        step = min(client.get_max_batch_size(), MAX_CHROMA_BATCH)
        for start in range(0, len(ids), step):
            collection.add(ids=list(ids[start : start + step]), embeddings=passages[start : start + step])
        rankings: list[list[str]] = []
        for start in range(0, len(queries), MAX_QUERY_BATCH):
            batch = queries[start : start + MAX_QUERY_BATCH]
            results = collection.query(query_embeddings=batch, n_results=min(k, len(ids)), include=["distances"])
            rankings += results["ids"]
    finally:
        client.delete_collection(collection.name)
    return rankings, _agreement(rankings, ids, passages, queries)


def _agreement(
    rankings: list[list[str]], ids: Sequence[str], passages: NDArray[np.float32], queries: NDArray[np.float32]
) -> float:
    """Return the fraction of the exact top 10 in the top 10 of rankings."""
    depth = min(10, len(ids))
    shared = 0
    for start in range(0, len(queries), MAX_QUERY_BATCH):
        exact = top_k_rows(queries[start : start + MAX_QUERY_BATCH] @ passages.T, depth)
        for row, positions in zip(rankings[start : start + MAX_QUERY_BATCH], exact, strict=True):
            shared += len({ids[position] for position in positions} & set(row[:depth]))
    return shared / (depth * len(queries)) if len(queries) else 1.0
