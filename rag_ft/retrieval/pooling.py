"""What an embedding and BM25 find for many questions, each passage scored by both: to compare, and to learn a mix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag_ft.retrieval.fusion import DEPTH, Pool
from rag_ft.retrieval.top_k import top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.retrieval.bm25 import BM25, WordScores


class Scoring(Protocol):
    """Scores all passages for each question."""

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The score of every passage for each question, shape (passages,)."""


def pools_of(dense: Scoring, words: BM25, queries: Sequence[str], depth: int = DEPTH) -> Iterator[Pool]:
    """One pool for each question: the first passages of either side, scored by both.

    Args:
        dense: exact search by an embedding, over the same passages as `words`, in the same order.
        words: BM25.
        queries: the questions.
        depth: passages taken from each side.
    """
    for similarity, found in zip(dense.scores(queries), words.search(queries), strict=True):
        yield pool_of(words.ids, similarity, found, depth)


def pool_of(
    ids: Sequence[str],
    similarity: NDArray[np.float32],
    found: WordScores,
    depth: int = DEPTH,
    firsts: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
) -> Pool:
    """The first passages of either side for one question, scored by both.

    Args:
        ids: of all passages.
        similarity: of each to the question, shape (passages,).
        found: by BM25.
        depth: passages taken from each side.
        firsts: the places of the first passages of either side, where they are known; as many as `depth` or more.
    """
    near, worded = firsts or (top_k(similarity, depth), top_k(found.scores, depth, above=0.0))
    places = np.union1d(near[:depth], worded[:depth])
    sides = similarity[places], found.scores[places]
    return Pool([ids[place] for place in places], *sides, found.words, found.rarest)
