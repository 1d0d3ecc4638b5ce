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
    """An inverted index in a few arrays, for many texts.

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
        positions = np.repeat(np.arange(self._size, dtype=np.int32), np.frombuffer(sizes, np.intc) if sizes else [])
        self._positions = positions[np.argsort(word_of, kind="stable")]
        counts = np.bincount(word_of, minlength=len(self._numbers))
        self._ends, self._counts = np.cumsum(counts).tolist(), counts.tolist()

    def _holding(self, number: int) -> np.ndarray:
        """Return the positions of the texts that contain the word of this number, in ascending order."""
        return self._positions[self._ends[number - 1] if number else 0 : self._ends[number]]

    def _rarest(self, words: Sequence[str]) -> list[int]:
        """Return the numbers of the rarest known words, rarest first."""
        numbers = {number for word in words if (number := self._numbers.get(word)) is not None}
        return sorted(numbers, key=lambda number: (self._counts[number], number))[:MAX_LOOKED_UP]

    def holding_all(self, words: Sequence[str]) -> list[int]:
        """Return the positions of the texts that may contain all words: none is missing, and few of them do not.

        The rarest words are looked up first, at most 64, until a single text is left.
        """
        import numpy as np

        if not words or not all(word in self._numbers for word in words):
            return []
        first, *others = self._rarest(words)
        found = self._holding(first)
        for number in others:
            if len(found) < 2:
                break
            other = self._holding(number)
            # Both are sorted, and `found` is short: a binary search beats a merge.
            found = found[other[np.minimum(np.searchsorted(other, found), len(other) - 1)] == found]
        return [int(position) for position in found]

    def sharing_most(self, words: Sequence[str], count: int) -> list[int]:
        """Return the positions of the texts that share the most words, best first. Rare words count more."""
        import numpy as np

        postings = [self._holding(number) for number in self._rarest(words)]
        if not postings:
            return []
        weights = np.concatenate([np.full(len(holding), np.log1p(self._size / len(holding))) for holding in postings])
        scores = np.bincount(np.concatenate(postings), weights, minlength=self._size)
        best = np.argsort(-scores, kind="stable")[:count]
        return [int(position) for position in best if scores[position] > 0]
