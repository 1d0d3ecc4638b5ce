"""A small fingerprint of many texts, by which two corpora are found to be the same, or to overlap."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from rag_ft.files import sha256_of

SIZE = 128
DIGITS = 16


def sketch_of(texts: Iterable[str]) -> list[str]:
    """The smallest hashes of the distinct texts, at most 128 (Broder 1997).

    Example:
        >>> from rag_ft.dataset.text.sketch import sketch_of, shared
        >>> one = sketch_of(f"Passage {n}." for n in range(1000))
        >>> other = sketch_of(f"Passage {n}." for n in range(500, 1500))
        >>> shared(one, one), 0.2 < shared(one, other) < 0.5, shared(one, [])
        (1.0, True, 0.0)
    """
    return heapq.nsmallest(SIZE, {sha256_of(" ".join(text.split()))[:DIGITS] for text in texts})


def shared(one: Sequence[str], other: Sequence[str]) -> float:
    """How much two sets of texts have in common, from their sketches: the Jaccard similarity, about."""
    union = sorted({*one, *other})[: max(len(one), len(other))]
    both = set(one) & set(other)
    return sum(each in both for each in union) / len(union) if union else 0.0
