"""Exact search over the vectors of an embedding: for filters and checks, not for serving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

QUERIES_AT_ONCE = 256

PASSAGES_AT_ONCE = 8_192


class ExactSearch:
    """Passages under an embedding, searched exactly.

    Args:
        embed_model: any LlamaIndex embedding.
        passages: passage id -> text as it is embedded.
        show_progress: a progress bar while the passages are embedded.
    """

    def __init__(self, embed_model: BaseEmbedding, passages: Mapping[str, str], show_progress: bool = False) -> None:
        self.ids = list(passages)
        self._embed_model = embed_model
        self._vectors = unit(passage_vectors(embed_model, list(passages.values()), show_progress))

    def rank(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """The ids of the best k passages of each query by cosine similarity, best first."""
        k = min(k, len(self.ids))
        found: list[list[str]] = []
        for scores in self._blocks(queries):
            found += [[self.ids[place] for place in row] for row in top_k_rows(scores, k)]
        return found

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The cosine similarity of every passage to each query, shape (passages,), in the order of `ids`."""
        return (row for block in self._blocks(queries) for row in block)

    def _blocks(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        vectors = unit(query_vectors(self._embed_model, queries))
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            yield vectors[start : start + QUERIES_AT_ONCE] @ self._vectors.T


def passage_vectors(
    embed_model: BaseEmbedding, texts: Sequence[str], show_progress: bool = False
) -> NDArray[np.float32]:
    """Passage vectors, shape (passages, dimension); LlamaIndex's lists of numbers take ten times their memory."""
    from tqdm.auto import tqdm

    windows = range(0, len(texts), PASSAGES_AT_ONCE)
    bar = tqdm(total=len(texts), desc="embedding", disable=not show_progress or len(windows) < 2, dynamic_ncols=True)
    parts = []
    with bar:
        for start in windows:
            window = list(texts[start : start + PASSAGES_AT_ONCE])
            found = embed_model.get_text_embedding_batch(window, show_progress=show_progress and len(windows) == 1)
            parts.append(np.asarray(found, dtype=np.float32))
            bar.update(len(window))
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def query_vectors(embed_model: BaseEmbedding, queries: Sequence[str]) -> NDArray[np.float32]:
    """Query vectors, shape (queries, dimension); many at once where the embedding can."""
    many = getattr(embed_model, "query_embeddings", None)
    vectors = many(list(queries)) if many else [embed_model.get_query_embedding(query) for query in queries]
    return np.asarray(vectors, dtype=np.float32)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
