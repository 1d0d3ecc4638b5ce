"""Likely causes of a low rank: jargon, a near-duplicate of the passage, a truncated passage, copied words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from rag_ft.dataset.qa_dataset import Query
from rag_ft.dataset.text.language import corpus_language
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.text.overlap import content_words
from rag_ft.evaluation.slices import MANY_SHARED

JARGON = "acronym or jargon"
NEAR_DUPLICATE = "near-duplicate passage"
CUT_OFF = "cut-off passage"
COPY = "lexical copy"
CAUSES = (JARGON, NEAR_DUPLICATE, CUT_OFF, COPY)

MIN_TRUNCATED_FRACTION = 1 / 3
"""Minimum fraction of the words shared with a passage that only its truncated part has, for that to be a cause."""

MIN_COPIED_WORDS = 2
"""Minimum number of content words of a question that counts as a copy."""

MIN_NAME_COUNT, MIN_CAPITALISED = 2, 0.8
"""Minimum number of times that a name occurs inside sentences, and minimum fraction of those with a capital letter."""

_TERM = re.compile(r"[^\W_](?:[\w&./'’-]*[^\W_])?")
_INSIDE_SENTENCE = re.compile(r"(?:(?<=[^\W\d_A-Z][ ])|(?<=,[ ]))[^\W\d_][\w-]{2,}")


class FailureCauses:
    """Finds likely causes of a low rank from the texts alone.

    Args:
        texts: passage id -> text as it is embedded, of all passages that are passed to `explain`.
        characters_read: id of each truncated passage -> characters that are read.
        language: ISO 639-1 code; the most frequent language of the texts if None.

    Example:
        >>> from rag_ft import Query
        >>> from rag_ft.evaluation.failure_causes import FailureCauses
        >>> causes = FailureCauses({"a": "Leave is booked in HELM by noon.", "b": "Leave is booked in HELM by noon!"})
        >>> causes.explain(Query("q", "When is leave booked in helm?"), "a", ["b"])
        {'acronym or jargon': 'helm', 'near-duplicate passage': 'b', 'lexical copy': '100 % of its words'}
    """

    def __init__(
        self, texts: Mapping[str, str], characters_read: Mapping[str, int] | None = None, language: str | None = None
    ) -> None:
        self._texts, self._characters_read = texts, characters_read or {}
        self.language = language or corpus_language(list(texts.values())[:500]) or "en"
        self._words: Callable[[str], set[str]] = lru_cache(maxsize=20_000)(content_words(self.language))
        self._group = dict(zip(texts, near_duplicate_groups(list(texts.values())), strict=True))
        # German nouns have a capital, so there only words in capitals count as names.
        self._names = _find_names(texts.values(), by_capital=self.language != "de")

    def explain(self, query: Query, relevant: str, ranked_above: Sequence[str]) -> dict[str, str]:
        """Return cause -> evidence for it.

        Args:
            query: the question.
            relevant: the passage that answers it.
            ranked_above: passages that were ranked above it.
        """
        words, causes = self._words(query.text), {}
        if terms := self._terms(query.text):
            causes[JARGON] = ", ".join(terms)
        if repeats := [passage for passage in ranked_above if self._group[passage] == self._group[relevant]]:
            causes[NEAR_DUPLICATE] = ", ".join(repeats)
        if truncated := self._truncated(query, relevant, words):
            causes[CUT_OFF] = truncated
        fraction = len(words & self._words(self._texts[relevant])) / max(1, len(words))
        if len(words) >= MIN_COPIED_WORDS and fraction >= MANY_SHARED:
            causes[COPY] = f"{fraction:.0%} of its words".replace("%", " %")
        return causes

    def _terms(self, question: str) -> list[str]:
        """Return identifiers (T-9), acronyms (HELM), and words that the passages write as names (Kittiwake)."""
        all_capitals = question.isupper()
        return list(
            dict.fromkeys(
                term
                for term in _TERM.findall(question)
                if (any(map(str.isdigit, term)) and any(map(str.isalpha, term)))
                or (sum(map(str.isupper, term)) > 1 and not all_capitals)
                or term.lower() in self._names
            )
        )

    def _truncated(self, query: Query, relevant: str, words: set[str]) -> str:
        """Return what the truncated part of the passage has of the question, or "" if that is little."""
        if relevant not in self._characters_read:
            return ""
        text, end = self._texts[relevant], self._characters_read[relevant]
        evidence = query.evidence.strip()
        if evidence and text.find(evidence) + len(evidence) > end:
            return "its evidence is truncated"
        head, tail = self._words(text[:end]), self._words(text[end:])
        truncated_words = words & tail - head
        if not truncated_words or len(truncated_words) < MIN_TRUNCATED_FRACTION * len(words & (head | tail)):
            return ""
        return f"{len(truncated_words)} of its words are truncated"


def _find_names(texts: Iterable[str], by_capital: bool) -> set[str]:
    """Return the words, in lower case, that texts capitalise inside sentences, or write in capitals throughout."""
    total: Counter[str] = Counter()
    as_name: Counter[str] = Counter()
    for text in texts:
        for word in _INSIDE_SENTENCE.findall(text):
            name = word.lower()
            total[name] += 1
            as_name[name] += word[0].isupper() if by_capital else len(word) > 1 and word.isupper()
    return {
        name for name, count in total.items() if count >= MIN_NAME_COUNT and as_name[name] >= MIN_CAPITALISED * count
    }
