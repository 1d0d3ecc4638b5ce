"""What an embedding and BM25 find for many questions, each passage scored by both: to compare, and to learn a mix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag_ft.retrieval.bm25 import best_places
from rag_ft.retrieval.fusion import DEPTH, Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.retrieval.bm25 import BM25


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
    ids = words.ids
    for similarity, found in zip(dense.scores(queries), words.search(queries), strict=True):
        places = np.union1d(best_places(similarity, depth), best_places(found.scores, depth, above=0.0))
        yield Pool(
            [ids[place] for place in places], similarity[places], found.scores[places], found.words, found.rarest
        )
