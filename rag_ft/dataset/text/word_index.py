"""Which texts hold a word: a few candidates out of many texts, so that none is compared with all."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rag_ft.dataset.text.language import words_of

if TYPE_CHECKING:
    import numpy as np

RAREST = 64
"""Words of a text that are looked up: the rare ones tell it from the others."""


class WordIndex:
    """The texts that hold each word, for tens of thousands of texts in a few arrays.

    Args:
        texts: in the order of their places; their words are those of `words_of`.

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
        places = np.repeat(np.arange(self._size), np.frombuffer(sizes, np.intc) if sizes else [])
        self._places = places[np.argsort(word_of, kind="stable")]
        self._ends = np.cumsum(np.bincount(word_of, minlength=len(self._numbers)))

    def _holding(self, word: str) -> np.ndarray:
        number = self._numbers[word]
        return self._places[self._ends[number - 1] if number else 0 : self._ends[number]]

    def _rarest(self, wanted: Sequence[str]) -> list[np.ndarray]:
        lists = [self._holding(word) for word in dict.fromkeys(wanted) if word in self._numbers]
        return sorted(lists, key=len)[:RAREST]

    def holding_all(self, wanted: Sequence[str]) -> list[int]:
        """The places of the texts that hold all of some words (the rarest of them, where they are many)."""
        import numpy as np

        if not wanted or any(word not in self._numbers for word in wanted):
            return []
        found, *others = self._rarest(wanted)
        for other in others:
            # Both are in order, and what is left of the rarest word is short: looked up, not merged.
            found = found[other[np.minimum(np.searchsorted(other, found), len(other) - 1)] == found]
        return [int(place) for place in found]

    def sharing_most(self, wanted: Sequence[str], count: int) -> list[int]:
        """The places of the texts that share most with some words, a rare word counting more; the best first."""
        import numpy as np

        lists = self._rarest(wanted)
        if not lists:
            return []
        weights = np.concatenate([np.full(len(found), np.log1p(self._size / len(found))) for found in lists])
        scores = np.bincount(np.concatenate(lists), weights, minlength=self._size)
        best = np.argsort(-scores, kind="stable")[:count]
        return [int(place) for place in best if scores[place] > 0]
