"""The content words of a text, to compare a question with its passage."""

from __future__ import annotations

from collections.abc import Callable

from rag_ft.dataset.text.language import LANGUAGE_NAMES
from rag_ft.dataset.text.words import stop_words_of, words_of

QUESTION_WORDS = frozenset(
    words_of(
        "about am any anyone can could did do does doing done from get give given got had has have having he her his "
        "how i its many may me might much must my need our she should so some tell than them those us use used want "
        "was we were what when where which who whom whose why would you your"
    )
)
"""English words that are common in questions. Lists of stop words lack some of them."""


def content_words(language: str) -> Callable[[str], set[str]]:
    """Return a function that finds the distinct content words of a text, stemmed if its language has a stemmer.

    Args:
        language: ISO 639-1 code.

    Example:
        >>> from rag_ft.dataset.text.overlap import content_words
        >>> sorted(content_words("en")("Where do I book my holidays?"))
        ['book', 'holiday']
    """
    import Stemmer

    name = LANGUAGE_NAMES.get(language)
    stem = Stemmer.Stemmer(name).stemWord if name in Stemmer.algorithms() else str
    stop_words = set(stop_words_of(language)) | (QUESTION_WORDS if language == "en" else set())
    stems: dict[str, str] = {}

    def distinct(text: str) -> set[str]:
        words = set(words_of(text)) - stop_words
        return {stems[word] if word in stems else stems.setdefault(word, stem(word)) for word in words}

    return distinct
