"""A question that is a sentence of its passage, and the passage without it (inverse cloze task, Lee et al. 2019)."""

from __future__ import annotations

import re


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
