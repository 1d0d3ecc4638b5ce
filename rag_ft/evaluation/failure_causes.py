"""Why a question may be hard: jargon, a near-duplicate of its passage, a passage that is cut off, copied words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from rag_ft.dataset.qa_dataset import Query
from rag_ft.dataset.text.language import corpus_language
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.text.overlap import content_words
from rag_ft.evaluation.aspects import MANY_WORDS

JARGON = "acronym or jargon"
NEAR_DUPLICATE = "near-duplicate passage"
CUT_OFF = "cut-off passage"
COPY = "lexical copy"
CAUSES = (JARGON, NEAR_DUPLICATE, CUT_OFF, COPY)

UNREAD = 1 / 3
"""Share of the question's words in a passage that stand behind its cut alone, from which the cut is a cause."""

FEWEST_WORDS = 2
"""Content words of a question, under which nothing is said about copied ones."""

SEEN, CAPITALISED = 2, 0.8
"""A word is a name of the house where it stands so often within sentences, and in so many of them with a capital."""

_TERM = re.compile(r"[^\W_](?:[\w&./'’-]*[^\W_])?")
_WITHIN = re.compile(r"(?:(?<=[^\W\d_A-Z][ ])|(?<=,[ ]))[^\W\d_][\w-]{2,}")


class FailureCauses:
    """Tells causes from texts alone; what cannot be told is left out.

    Args:
        texts: id -> text as it is embedded, of the passages that may be asked about.
        cut: passage id -> characters that are read, of passages that are not read to their end.
        language: ISO 639-1 code; the most frequent one of the texts where None.

    Example:
        >>> from rag_ft import Query
        >>> from rag_ft.evaluation.failure_causes import FailureCauses
        >>> causes = FailureCauses({"a": "Leave is booked in HELM by noon.", "b": "Leave is booked in HELM by noon!"})
        >>> causes.of(Query("q", "When is leave booked in helm?"), "a", ["b"])
        {'acronym or jargon': 'helm', 'near-duplicate passage': 'b', 'lexical copy': '100 % of its words'}
    """

    def __init__(
        self, texts: Mapping[str, str], cut: Mapping[str, int] | None = None, language: str | None = None
    ) -> None:
        self._texts, self._cut = texts, cut or {}
        self.language = language or corpus_language(list(texts.values())[:500]) or "en"
        self._words: Callable[[str], set[str]] = lru_cache(maxsize=20_000)(content_words(self.language))
        self._group = dict(zip(texts, near_duplicate_groups(list(texts.values())), strict=True))
        # Every German noun has a capital: there only capitals throughout tell.
        self._names = _names(texts.values(), by_capital=self.language != "de")

    def same(self, one: str, other: str) -> bool:
        """Whether two passages nearly repeat each other."""
        return self._group[one] == self._group[other]

    def of(self, query: Query, wanted: str, instead: Sequence[str]) -> dict[str, str]:
        """Cause -> what shows it.

        Args:
            query: the question.
            wanted: the passage that answers it.
            instead: passages that came before it.
        """
        words, found = self._words(query.text), {}
        if terms := self._terms(query.text):
            found[JARGON] = ", ".join(terms)
        if repeated := [passage for passage in instead if self.same(passage, wanted)]:
            found[NEAR_DUPLICATE] = ", ".join(repeated)
        if unread := self._unread(query, wanted, words):
            found[CUT_OFF] = unread
        share = len(words & self._words(self._texts[wanted])) / max(1, len(words))
        if len(words) >= FEWEST_WORDS and share >= MANY_WORDS:
            found[COPY] = f"{share:.0%} of its words".replace("%", " %")
        return found

    def _terms(self, question: str) -> list[str]:
        """Identifiers (T-9), acronyms (HELM), and words that the passages write as names (Kittiwake)."""
        shouted = question.isupper()
        return list(
            dict.fromkeys(
                term
                for term in _TERM.findall(question)
                if (any(map(str.isdigit, term)) and any(map(str.isalpha, term)))
                or (sum(map(str.isupper, term)) > 1 and not shouted)
                or term.lower() in self._names
            )
        )

    def _unread(self, query: Query, wanted: str, words: set[str]) -> str:
        """What of the question stands only in the part of its passage that is not read."""
        if wanted not in self._cut:
            return ""
        text, end = self._texts[wanted], self._cut[wanted]
        if query.evidence.strip() and text.find(query.evidence.strip()) + len(query.evidence.strip()) > end:
            return "its evidence is not read"
        head, tail = self._words(text[:end]), self._words(text[end:])
        behind = words & tail - head
        if not behind or len(behind) < UNREAD * len(words & (head | tail)):
            return ""
        return f"{len(behind)} of its words are not read"


def _names(texts: Iterable[str], by_capital: bool) -> set[str]:
    """The words, in lower case, that texts write with a capital within their sentences, or in capitals throughout."""
    seen: Counter[str] = Counter()
    high: Counter[str] = Counter()
    shouted: Counter[str] = Counter()
    for text in texts:
        for word in _WITHIN.findall(text):
            name = word.lower()
            seen[name] += 1
            high[name] += word[0].isupper()
            shouted[name] += len(word) > 1 and word.isupper()
    counted = high if by_capital else shouted
    return {name for name, times in seen.items() if times >= SEEN and counted[name] >= CAPITALISED * times}
