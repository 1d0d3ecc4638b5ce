"""What is known of the questions of a train split: their sources, and the hashes by which they are recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.sketch import QUESTION_SKETCH_SIZE, sketch_of

UNKNOWN = "given"
"""Name for the source of a question that does not tell its own."""


def question_sources(dataset: QADataset) -> dict[str, int]:
    """Count the training questions of each source. Questions of an unknown source count as `given`."""
    return dict(Counter(dataset.queries[query].source or UNKNOWN for query in dataset.qrels.get("train", {})))


def is_generated(dataset: QADataset) -> bool:
    """Tell whether most training questions were generated: they name a source other than people."""
    sources = question_sources(dataset)
    generated = sum(count for source, count in sources.items() if source not in (UNKNOWN, HUMAN))
    return generated * 2 > sum(sources.values())


def questions_sketch(dataset: QADataset, earlier: Sequence[str] = ()) -> list[str]:
    """Return hashes of the training questions, so that a comparison can refuse test questions that a model has seen.

    Args:
        dataset: its train split and its scored pairs count.
        earlier: the sketch of the model that the training continues from.
    """
    texts = [dataset.queries[query].text for query in dataset.qrels.get("train", {})]
    texts += [pair.query for pair in dataset.scored_pairs]
    return sorted({*sketch_of(texts, QUESTION_SKETCH_SIZE), *earlier})[:QUESTION_SKETCH_SIZE]
