"""A small fingerprint of many texts, by which two corpora are found to be the same, or to overlap."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from rag_ft.files import sha256_of

SIZE = 128
QUESTIONS = 2_000
"""Hashes of a sketch of questions: of so many questions it knows each."""

DIGITS = 16


def sketch_of(texts: Iterable[str], size: int = SIZE) -> list[str]:
    """The smallest hashes of the distinct texts (Broder 1997).

    Args:
        texts: any number of them; spaces do not count.
        size: hashes at most.

    Example:
        >>> from rag_ft.dataset.text.sketch import sketch_of, shared
        >>> one = sketch_of(f"Passage {n}." for n in range(1000))
        >>> other = sketch_of(f"Passage {n}." for n in range(500, 1500))
        >>> shared(one, one), 0.2 < shared(one, other) < 0.5, shared(one, [])
        (1.0, True, 0.0)
    """
    return heapq.nsmallest(size, {hash_of(text) for text in texts})


def share_in(sketch: Sequence[str], texts: Iterable[str], size: int = SIZE) -> float:
    """The share of some texts that are among those a sketch was made of, about; exact where it is not full.

    Example:
        >>> from rag_ft.dataset.text.sketch import share_in, sketch_of
        >>> share_in(sketch_of(["What is a Kittiwake?"]), ["What is  a Kittiwake?", "Who signs T-9?"])
        0.5
    """
    hashes = {hash_of(text) for text in texts}
    if len(sketch) >= size:
        hashes = {each for each in hashes if each <= max(sketch)}  # of the others it cannot tell
    return len(hashes & set(sketch)) / len(hashes) if hashes else 0.0


def hash_of(text: str) -> str:
    """What stands for a text in a sketch."""
    return sha256_of(" ".join(text.split()))[:DIGITS]


def shared(one: Sequence[str], other: Sequence[str]) -> float:
    """How much two sets of texts have in common, from their sketches: the Jaccard similarity, about."""
    union = sorted({*one, *other})[: max(len(one), len(other))]
    both = set(one) & set(other)
    return sum(each in both for each in union) / len(union) if union else 0.0
