"""The sources of training questions, and the hashes by which they are recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rag_ft.dataset.qa_dataset import Query
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.sketch import QUESTION_SKETCH_SIZE, sketch_of

UNKNOWN = "given"
"""Name for the source of a question without a stored source."""


def question_sources(queries: Iterable[Query]) -> dict[str, int]:
    """Count the questions of each source. Questions of an unknown source count as `given`."""
    return dict(Counter(query.source or UNKNOWN for query in queries))


def is_generated(queries: Iterable[Query]) -> bool:
    """Return whether most questions were generated: they have a source other than people."""
    sources = question_sources(queries)
    generated = sum(count for source, count in sources.items() if source not in (UNKNOWN, HUMAN))
    return generated * 2 > sum(sources.values())


def questions_sketch(texts: Iterable[str], earlier: Iterable[str] = ()) -> list[str]:
    """Return hashes of the training questions, so that a comparison can refuse test questions that a model has seen.

    Args:
        texts: the training questions, including those of scored pairs.
        earlier: the sketch of the model that training continues from.
    """
    return sorted({*sketch_of(texts, QUESTION_SKETCH_SIZE), *earlier})[:QUESTION_SKETCH_SIZE]
