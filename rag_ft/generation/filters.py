"""Questions that would teach or measure nothing, each dropped with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.retrieval.bm25 import BM25

FEWEST_WORDS, MOST_WORDS = 3, 60
ROUND_TRIP_DEPTH = 20

REFERS_TO_TEXT = re.compile(
    r"\b(?:the|this|that|these) (?:given |above |following |provided )?"
    r"(?:text|passage|paragraph|document|context|excerpt|article|author|sentence|question|answer)s?\b"
    r"|\baccording to (?:the|this)\b",
    re.IGNORECASE,
)

Pair = tuple[Query, str]
"""A question and the id of its passage."""


def filter_questions(pairs: Sequence[Pair], passages: dict[str, Passage]) -> tuple[list[Pair], list[dict[str, str]]]:
    """Keep the questions that find their passage among the first 20 of BM25 and make sense on their own.

    Args:
        pairs: questions with the ids of their passages.
        passages: all passages of the corpus.

    Returns:
        The pairs that stay, and a row for `dropped.jsonl` for each one that does not.
    """
    kept: list[Pair] = []
    dropped: list[dict[str, str]] = []

    def drop(query: Query, passage: str, reason: str) -> None:
        dropped.append({"query": query.text, "passage": passage, "reason": reason, "style": query.style})

    seen: set[str] = set()
    for query, passage in pairs:
        plain = " ".join(re.findall(r"\w+", query.text.lower()))
        if (reason := _fault(query.text)) or (reason := "repeated" if plain in seen else ""):
            drop(query, passage, reason)
        else:
            seen.add(plain)
            kept.append((query, passage))
    if not kept:
        return kept, dropped
    ranked = BM25({key: passage.text for key, passage in passages.items()}).rank(
        [query.text for query, _ in kept], ROUND_TRIP_DEPTH
    )
    stay = []
    for (query, passage), found in zip(kept, ranked, strict=True):
        if passage in found:
            stay.append((query, passage))
        else:
            drop(query, passage, f"does not find its passage among the first {ROUND_TRIP_DEPTH} of BM25")
    return stay, dropped


def _fault(text: str) -> str:
    # Chinese and Japanese write without spaces: there characters are counted, two for a word.
    wide = len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff]", text))
    words = len(re.findall(r"[^\W_]+", re.sub(r"[\u3040-\u30ff\u3400-\u9fff]", " ", text))) + wide // 2
    if words < FEWEST_WORDS:
        return "too short"
    if words > MOST_WORDS:
        return "too long"
    return "refers to the text" if REFERS_TO_TEXT.search(text) else ""
