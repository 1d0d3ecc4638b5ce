"""BM25, the yardstick: on some corpora it beats any small embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


class BM25:
    """BM25 over passages (Lucene's variant, bm25s), with English stemming.

    Args:
        passages: passage id -> text as it is embedded.

    Example:
        >>> from rag_ft.retrieval.bm25 import BM25
        >>> BM25({"a": "badges and doors", "b": "leave and holidays"}).rank(["which door badge"], k=1)
        [['a']]
    """

    def __init__(self, passages: Mapping[str, str]) -> None:
        import bm25s
        import Stemmer

        self.ids = list(passages)
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        self._index.index(self._tokens(list(passages.values())), show_progress=False)

    def _tokens(self, texts: Sequence[str]) -> object:
        import bm25s

        # Single letters and digits count too: "Form T-9" is the name of a form.
        return bm25s.tokenize(
            list(texts), stopwords="en", stemmer=self._stemmer, token_pattern=r"(?u)\b\w+\b", show_progress=False
        )

    def rank(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """The ids of the best k passages of each query; those without a common word are left out."""
        if not queries:
            return []
        k = min(k, len(self.ids))
        places, scores = self._index.retrieve(self._tokens(queries), k=k, show_progress=False, n_threads=0)
        return [
            [self.ids[place] for place in row[np.asarray(values) > 0]]
            for row, values in zip(places, scores, strict=True)
        ]
