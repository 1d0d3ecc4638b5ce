"""BM25, the yardstick: on some corpora it beats any small embedding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.dataset.text.language import NAMES, WORD, corpus_language, segmented, stop_words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 1000
"""Queries that are ranked at once: what memory is needed for them beside their results stays small."""


class BM25:
    """BM25 over passages (Lucene's variant, bm25s), with the stemmer and the stop words of their language.

    Languages without spaces between words, and Korean, are matched by pairs of characters instead.

    Args:
        passages: passage id -> text as it is embedded.
        language: ISO 639-1 code; None takes the most frequent language of the passages, and English where it cannot
            be told.

    Example:
        >>> from rag_ft.retrieval.bm25 import BM25
        >>> BM25({"a": "badges and doors", "b": "leave and holidays"}).rank(["which door badge"], k=1)
        [['a']]
        >>> BM25({"a": "Die Ausweise öffnen Türen.", "b": "Der Urlaub ist frei."}, "de").rank(["offene Tür"], k=1)
        [['a']]
    """

    def __init__(self, passages: Mapping[str, str], language: str | None = None) -> None:
        import bm25s

        texts = list(passages.values())
        self.ids = list(passages)
        self.language = language or corpus_language(texts) or "en"
        self._stemmer, self._stop_words = _stemmer(self.language), stop_words_of(self.language)
        tokens = self._tokens(texts)
        self._index: Any = None
        if any(tokens.ids):
            self._index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
            self._index.index(tokens, show_progress=False)

    def _tokens(self, texts: Iterable[str], as_words: bool = False) -> Any:
        import bm25s

        # Single letters and digits count too: "Form T-9" is the name of a form.
        return bm25s.tokenize(
            (segmented(text) for text in texts),
            stopwords=self._stop_words,
            stemmer=self._stemmer,
            token_pattern=WORD,
            return_ids=not as_words,
            show_progress=False,
        )

    def rank(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """The ids of the best k passages of each query; those without a common word are left out."""
        if self._index is None:
            return [[] for _ in queries]
        ranked: list[list[str]] = []
        for start in range(0, len(queries), CHUNK):
            tokens = self._tokens(queries[start : start + CHUNK])
            places, scores = self._index.retrieve(tokens, k=min(k, len(self.ids)), show_progress=False, n_threads=0)
            ranked += [
                [self.ids[place] for place in row[np.asarray(values) > 0]]
                for row, values in zip(places, scores, strict=True)
            ]
        return ranked

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The score of every passage for each query, shape (passages,), in the order of `ids`; 0 has no common word."""
        for start in range(0, len(queries), CHUNK):
            for tokens in self._tokens(queries[start : start + CHUNK], as_words=True):
                if self._index is None:
                    yield np.zeros(len(self.ids), dtype=np.float32)
                else:
                    yield self._index.get_scores_from_ids(self._index.get_tokens_ids(tokens))


def _stemmer(language: str) -> Any:
    import Stemmer

    name = NAMES.get(language)
    return Stemmer.Stemmer(name) if name in Stemmer.algorithms() else None
