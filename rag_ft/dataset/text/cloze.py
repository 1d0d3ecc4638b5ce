"""A question that is a sentence of its passage, and the passage without it (inverse cloze task, Lee et al. 2019)."""

from __future__ import annotations

import re

from rag_ft.dataset.text.language import language_of, sentences_of, word_count

SHORTEST, LONGEST = 6, 50
"""Words of a sentence that can stand for a question."""


def sentences(text: str) -> list[str]:
    """The sentences of a text that can ask for its passage: not too short or long, no heading, no address.

    Example:
        >>> from rag_ft.dataset.text.cloze import sentences
        >>> sentences("# Urlaub\\n\\nUrlaub wird z. B. im Portal HELM beantragt. Alles klar.")
        ['Urlaub wird z. B. im Portal HELM beantragt.']
    """
    language = language_of(text)
    # An empty line, a heading and a list item end a sentence, whatever stands at their end.
    blocks = re.split(r"\n\s*\n|^#{1,6}\s.*$|^\s*(?:(?:[-*+]|\d+[.)])\s+|\d+、)|^\|.*$", text, flags=re.MULTILINE)
    found = (
        " ".join(sentence.split()) for block in blocks if block.strip() for sentence in sentences_of(block, language)
    )
    return [sentence for sentence in found if SHORTEST <= word_count(sentence) <= LONGEST and "://" not in sentence]


def copied_span(question: str, passage: str) -> tuple[int, int] | None:
    """(start, end) of a question that stands in its passage word for word, whatever the line breaks."""
    words = question.split()
    if not words or len(question) > len(passage) or words[0] not in passage:
        return None
    found = re.search(r"\s+".join(map(re.escape, words)), passage)
    return found.span() if found else None


def without_copy(question: str, passage: str) -> str | None:
    """The passage without the question that stands in it; None where it does not.

    Example:
        >>> from rag_ft.dataset.text.cloze import without_copy
        >>> without_copy("It is booked in HELM.", "Leave is forty days. It is booked in HELM. Ask the master.")
        'Leave is forty days. Ask the master.'
    """
    span = copied_span(question, passage)
    return None if span is None else f"{passage[: span[0]].rstrip()} {passage[span[1] :].lstrip()}".strip()
