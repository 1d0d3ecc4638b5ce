"""An index of words that finds a few candidates among many texts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rag_ft.dataset.text.words import words_of

if TYPE_CHECKING:
    import numpy as np

MAX_LOOKED_UP = 64
"""Maximum number of words of a query that are looked up: the rarest ones, which distinguish it best."""


class WordIndex:
    """An inverted index in a few arrays, for tens of thousands of texts.

    Args:
        texts: the texts, split into words by `words_of`. Its methods return their positions.

    Example:
        >>> from rag_ft.dataset.text.word_index import WordIndex
        >>> index = WordIndex(["leave is booked", "badges open doors", "leave ends"])
        >>> index.holding_all(["leave"])
        [0, 2]
        >>> index.sharing_most(["leave", "ends"], 1)
        [2]
    """

    def __init__(self, texts: Iterable[str]) -> None:
        import numpy as np

        self._numbers: dict[str, int] = {}
        numbers, sizes = array("i"), array("i")
        for text in texts:
            distinct = set(words_of(text))
            numbers.extend(self._numbers.setdefault(word, len(self._numbers)) for word in distinct)
            sizes.append(len(distinct))
        self._size = len(sizes)
        word_of = np.frombuffer(numbers, np.intc) if numbers else np.empty(0, np.intc)
        positions = np.repeat(np.arange(self._size), np.frombuffer(sizes, np.intc) if sizes else [])
        self._positions = positions[np.argsort(word_of, kind="stable")]
        self._ends = np.cumsum(np.bincount(word_of, minlength=len(self._numbers)))

    def _holding(self, word: str) -> np.ndarray:
        number = self._numbers[word]
        return self._positions[self._ends[number - 1] if number else 0 : self._ends[number]]

    def _postings(self, words: Sequence[str]) -> list[np.ndarray]:
        lists = [self._holding(word) for word in dict.fromkeys(words) if word in self._numbers]
        return sorted(lists, key=len)[:MAX_LOOKED_UP]

    def holding_all(self, words: Sequence[str]) -> list[int]:
        """Return the positions of the texts that contain all words (only the 64 rarest are looked up)."""
        import numpy as np

        if not words or any(word not in self._numbers for word in words):
            return []
        found, *others = self._postings(words)
        for other in others:
            # Both are sorted, and `found` is short: a binary search beats a merge.
            found = found[other[np.minimum(np.searchsorted(other, found), len(other) - 1)] == found]
        return [int(position) for position in found]

    def sharing_most(self, words: Sequence[str], count: int) -> list[int]:
        """Return the positions of the texts that share the most words, best first. Rare words count more."""
        import numpy as np

        postings = self._postings(words)
        if not postings:
            return []
        weights = np.concatenate([np.full(len(holding), np.log1p(self._size / len(holding))) for holding in postings])
        scores = np.bincount(np.concatenate(postings), weights, minlength=self._size)
        best = np.argsort(-scores, kind="stable")[:count]
        return [int(position) for position in best if scores[position] > 0]
