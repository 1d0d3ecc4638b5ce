"""Find the texts that contain another text word for word, as overlapping and larger passages do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache

from rag_ft.dataset.text.whitespace import one_line
from rag_ft.dataset.text.word_index import WordIndex
from rag_ft.dataset.text.words import words_of

MIN_WORDS = 4
"""Minimum number of words of a text that is searched. A shorter one ("see above") is in many texts by chance."""

CACHED = 10_000
"""Number of texts whose passages are remembered: the questions about one passage follow each other."""


class Containment:
    """The texts of a corpus, indexed once, to find those that contain another text.

    Args:
        texts: id -> text.

    Example:
        >>> from rag_ft.dataset.text.containment import Containment
        >>> texts = {"large": "Leave is booked in HELM.\\nBadges open doors.", "small": "Leave is booked in HELM."}
        >>> Containment(texts).holding("Leave is  booked in HELM.")
        ['small', 'large']
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._ids, self._texts = list(texts), list(texts.values())
        self._holding = lru_cache(maxsize=CACHED)(self._search)

    def holding(self, text: str) -> list[str]:
        """Return the ids of the texts that contain a text, shortest first; none if it has under four words.

        White space is normalised. Equal texts contain each other.
        """
        return list(self._holding(text))

    def _search(self, text: str) -> tuple[str, ...]:
        words = words_of(text)
        if len(words) < MIN_WORDS:
            return ()
        plain = one_line(text)
        # The first and the last word may be parts of words.
        found = [
            position for position in self._index.holding_all(words[1:-1]) if plain in one_line(self._texts[position])
        ]
        return tuple(self._ids[position] for position in sorted(found, key=lambda position: len(self._texts[position])))

    @cached_property
    def _index(self) -> WordIndex:
        return WordIndex(self._texts)
