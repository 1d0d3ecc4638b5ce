"""Exact search by embedding vectors, for filters, mining and evaluation. It is not meant for serving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

QUERY_BATCH_SIZE = 256
"""Number of queries to score at once."""

PASSAGE_BATCH_SIZE = 8_192
"""Number of passages to embed at once."""


class ExactSearch:
    """Exact search over passages by an embedding.

    Args:
        embed_model: any LlamaIndex embedding.
        passages: passage id -> text as it is embedded.
        show_progress: shows a progress bar while the passages are embedded.
    """

    def __init__(self, embed_model: BaseEmbedding, passages: Mapping[str, str], show_progress: bool = False) -> None:
        self.ids = list(passages)
        self._embed_model = embed_model
        self._vectors = unit(passage_vectors(embed_model, list(passages.values()), show_progress))

    def rank(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """Return the ids of the best k passages for each query by cosine similarity, best first."""
        rows = (row for block in self._blocks(queries) for row in top_k_rows(block, min(k, len(self.ids))))
        return [[self.ids[position] for position in row] for row in rows]

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield the cosine similarity of every passage to each query, shape (passages,) in the order of `ids`."""
        return (row for block in self._blocks(queries) for row in block)

    def _blocks(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        vectors = unit(query_vectors(self._embed_model, queries))
        for start in range(0, len(queries), QUERY_BATCH_SIZE):
            yield vectors[start : start + QUERY_BATCH_SIZE] @ self._vectors.T


def passage_vectors(
    embed_model: BaseEmbedding, texts: Sequence[str], show_progress: bool = False
) -> NDArray[np.float32]:
    """Embed passages batch by batch, because LlamaIndex's lists of floats take ten times the memory of an array.

    Returns:
        Vectors, shape (passages, dimension).
    """
    from tqdm.auto import tqdm

    starts = range(0, len(texts), PASSAGE_BATCH_SIZE)
    bar = tqdm(total=len(texts), desc="embedding", disable=not show_progress or len(starts) < 2, dynamic_ncols=True)
    parts = []
    with bar:
        for start in starts:
            batch = list(texts[start : start + PASSAGE_BATCH_SIZE])
            vectors = embed_model.get_text_embedding_batch(batch, show_progress=show_progress and len(starts) == 1)
            parts.append(np.asarray(vectors, dtype=np.float32))
            bar.update(len(batch))
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def query_vectors(embed_model: BaseEmbedding, queries: Sequence[str]) -> NDArray[np.float32]:
    """Embed queries, in one call if the embedding has `query_embeddings`.

    Returns:
        Vectors, shape (queries, dimension).
    """
    embed_many = getattr(embed_model, "query_embeddings", None)
    vectors = embed_many(list(queries)) if embed_many else [embed_model.get_query_embedding(query) for query in queries]
    return np.asarray(vectors, dtype=np.float32)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors to length 1. Zero vectors are unchanged."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
