"""Sentences of a passage as questions, and the passage without them (inverse cloze task, Lee et al. 2019)."""

from __future__ import annotations

import re

from rag_ft.dataset.text.language import language_of
from rag_ft.dataset.text.sentences import sentences_of
from rag_ft.dataset.text.words import word_count

MAX_ADDED = 20
"""Maximum number of characters by which a quote, with its quotation marks, may be longer than the passage."""

MIN_WORDS, MAX_WORDS = 6, 50
"""Minimum and maximum number of words of a sentence that can be used as a question."""


def sentences(text: str) -> list[str]:
    """Return the sentences of a text that can be used as questions: 6 to 50 words, no headings, no addresses.

    Example:
        >>> from rag_ft.dataset.text.cloze import sentences
        >>> sentences("# Urlaub\\n\\nUrlaub wird z. B. im Portal HELM beantragt. Alles klar.")
        ['Urlaub wird z. B. im Portal HELM beantragt.']
    """
    language = language_of(text)
    # An empty line, a heading and a list item always end a sentence.
    blocks = re.split(r"\n\s*\n|^#{1,6}\s.*$|^\s*(?:(?:[-*+]|\d+[.)])\s+|\d+、)|^\|.*$", text, flags=re.MULTILINE)
    candidates = (
        " ".join(sentence.split()) for block in blocks if block.strip() for sentence in sentences_of(block, language)
    )
    return [
        sentence for sentence in candidates if MIN_WORDS <= word_count(sentence) <= MAX_WORDS and "://" not in sentence
    ]


def copied_span(question: str, passage: str) -> tuple[int, int] | None:
    """Return (start, end) of a question in its passage if it is there word for word, regardless of line breaks."""
    words = question.split()
    if not words or len(question) > len(passage) or words[0] not in passage:
        return None
    match = re.search(_any_spacing(question), passage)
    return match.span() if match else None


def sentence_around(span: str, passage: str) -> str:
    """Return the sentence of a passage that contains a text; empty if none does.

    Example:
        >>> from rag_ft.dataset.text.cloze import sentence_around
        >>> sentence_around("40 days", "Leave is granted. It lasts up to 40 days a year. Ask the master.")
        'It lasts up to 40 days a year.'
    """
    found = (sentence for sentence in sentences_of(passage, language_of(passage)) if span in sentence)
    return next(found, "").strip()


def located_span(quote: str, passage: str) -> str:
    """Return the words of a passage that a quote repeats, as the passage has them; empty if it does not have them.

    Case, punctuation, markup and white space may differ. Of a quote with an ellipsis, the longest part counts.

    Example:
        >>> from rag_ft.dataset.text.cloze import located_span
        >>> located_span('"leave is booked in helm..."', "**Leave** is booked in HELM by noon.")
        'Leave** is booked in HELM'
    """
    parts = [re.findall(r"[^\W_]+", part) for part in re.split(r"\.{3,}|…|\[\.+\]", quote)]
    words = max(parts, key=len)
    if not words or len(quote) > len(passage) + MAX_ADDED:
        return ""
    pattern = r"(?<![^\W_])" + r"[\W_]{1,20}".join(map(re.escape, words)) + r"(?![^\W_])"
    match = re.search(pattern, passage, re.IGNORECASE)
    return match[0] if match else ""


def without_copy(question: str, passage: str) -> str | None:
    """Return a passage without a question that it contains; None if it does not contain the question.

    Every copy of a sentence is removed: the metadata of a node may repeat it.

    Example:
        >>> from rag_ft.dataset.text.cloze import without_copy
        >>> without_copy("It is booked in HELM.", "Leave is forty days. It is booked in HELM. Ask the master.")
        'Leave is forty days. Ask the master.'
    """
    if copied_span(question, passage) is None:
        return None
    copies = 0 if word_count(question) >= MIN_WORDS else 1  # 0: all
    parts = re.split(_any_spacing(question), passage, maxsplit=copies)
    return " ".join(filter(None, map(str.strip, parts)))


def _any_spacing(text: str) -> str:
    return r"\s+".join(map(re.escape, text.split()))
