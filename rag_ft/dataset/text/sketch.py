"""Sketches: small fingerprints of many texts that show whether two corpora overlap."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from rag_ft.dataset.text.whitespace import one_line
from rag_ft.files import sha256_of

SKETCH_SIZE = 128
QUESTION_SKETCH_SIZE = 2_000
"""Number of hashes in a sketch of questions. Up to this many questions, the sketch is exact."""

HASH_DIGITS = 16
"""Length of a hash in hexadecimal digits."""


def sketch_of(texts: Iterable[str], size: int = SKETCH_SIZE) -> list[str]:
    """Return the smallest hashes of the distinct texts (Broder 1997).

    Args:
        texts: any number of texts. White space is normalised.
        size: maximum number of hashes.

    Example:
        >>> from rag_ft.dataset.text.sketch import sketch_of, jaccard
        >>> one = sketch_of(f"Passage {n}." for n in range(1000))
        >>> other = sketch_of(f"Passage {n}." for n in range(500, 1500))
        >>> jaccard(one, one), 0.2 < jaccard(one, other) < 0.5, jaccard(one, [])
        (1.0, True, 0.0)
    """
    return heapq.nsmallest(size, {hash_of(text) for text in texts})


def fraction_in(sketch: Sequence[str], texts: Iterable[str], size: int = SKETCH_SIZE) -> float:
    """Estimate the fraction of texts that are in a sketch. It is exact if the sketch is not full.

    Example:
        >>> from rag_ft.dataset.text.sketch import fraction_in, sketch_of
        >>> fraction_in(sketch_of(["What is a Kittiwake?"]), ["What is  a Kittiwake?", "Who signs T-9?"])
        0.5
    """
    hashes = {hash_of(text) for text in texts}
    if len(sketch) >= size:
        hashes = {value for value in hashes if value <= max(sketch)}  # a full sketch lacks larger ones
    return len(hashes & set(sketch)) / len(hashes) if hashes else 0.0


def hash_of(text: str) -> str:
    """Return the hash that represents a text in a sketch."""
    return sha256_of(one_line(text))[:HASH_DIGITS]


def jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    """Estimate the Jaccard similarity of two sets of texts from their sketches."""
    union = sorted({*one, *other})[: max(len(one), len(other))]
    both = set(one) & set(other)
    return len(both.intersection(union)) / len(union) if union else 0.0
