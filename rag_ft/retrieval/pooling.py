"""Pools of the passages that an embedding and BM25 find for each query, to compare fusions and to learn one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag_ft.retrieval.fusion import Pool
from rag_ft.retrieval.top_k import MAX_RANK, top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.retrieval.bm25 import BM25


class Scorer(Protocol):
    """Scores all passages for each query."""

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield the score of every passage for each query, shape (passages,)."""


def make_pools(dense: Scorer, bm25: BM25, queries: Sequence[str]) -> Iterator[Pool]:
    """Yield one pool for each query: the top 100 of either retriever, scored by both.

    Args:
        dense: exact search by an embedding, over the same passages as `bm25` and in the same order.
        bm25: BM25.
        queries: the queries.
    """
    for similarities, scores in zip(dense.scores(queries), bm25.scores(queries), strict=True):
        tops = top_k(similarities, MAX_RANK), top_k(scores, MAX_RANK, above=0.0)
        yield make_pool(bm25.ids, similarities, scores, tops)


def make_pool(
    ids: Sequence[str],
    similarities: NDArray[np.float32],
    bm25_scores: NDArray[np.float32],
    tops: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> Pool:
    """Pool the top passages of both retrievers for one query.

    Args:
        ids: ids of all passages.
        similarities: cosine similarity of each passage to the query, shape (passages,).
        bm25_scores: BM25 score of each passage, shape (passages,).
        tops: positions of the top passages by the embedding and by BM25.
    """
    positions = np.union1d(*tops)
    return Pool([ids[position] for position in positions], similarities[positions], bm25_scores[positions])
