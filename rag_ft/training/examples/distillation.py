"""Training examples labelled by a larger teacher: with its vectors, or with its scores of passages."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.embedding.encoding import encode
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.principal_axes import onto_principal_axes
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import Dev

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NEAR_NEGATIVES, RANDOM_NEGATIVES = 2, 2
"""Number of nearest and of random passages that a teacher scores beside the positive. From the nearest alone a student
never learns that all others are far: with two layers of a model on the demo's policies and `margin-mse`, the dev score
fell from .415 to .340."""


def vector_examples(
    queries: list[str],
    passages: list[str],
    teacher: SentenceTransformer,
    dimension: int,
    seed: int = 0,
    max_texts: int | None = None,
) -> list[TrainingExample]:
    """Make examples of queries and passages with the teacher's vectors as labels.

    Passages that no question is about teach too: the label needs no question. Vectors that are longer than the
    student's are projected onto their first principal axes, which keeps most of the cosines (model distillation in
    sentence-transformers' examples, Reimers).

    Args:
        queries: training questions.
        passages: all passages of the documents that training sees.
        teacher: with its prompts set.
        dimension: of the student's vectors, at most the teacher's.
        seed: seeds the sample, and which passage comes into a row with which query.
        max_texts: number of queries, and of passages, to sample.
    """
    queries, passages = ([text for text in texts if text.strip()] for texts in (queries, passages))
    draw = np.random.default_rng(seed)
    if max_texts is not None:
        queries, passages = _sample(queries, max_texts, draw), _sample(passages, max_texts, draw)
    rows = max(len(queries), len(passages))
    query_vectors, passage_vectors = onto_principal_axes(
        encode(teacher, queries, "query"), encode(teacher, passages, "document"), dimension
    )
    query_rows, passage_rows = _repeat_shuffled(len(queries), rows, draw), _repeat_shuffled(len(passages), rows, draw)
    return [
        TrainingExample(queries[q], passages[p], label=np.stack([query_vectors[q], passage_vectors[p]]))
        for q, p in zip(query_rows, passage_rows, strict=True)
    ]


def _sample(texts: list[str], count: int, draw: np.random.Generator) -> list[str]:
    return [texts[place] for place in draw.choice(len(texts), count, replace=False)] if len(texts) > count else texts


def _repeat_shuffled(count: int, rows: int, draw: np.random.Generator) -> list[int]:
    """Return `rows` numbers below `count` in random order, each as often as any other."""
    return [int(n) for _ in range(-(-rows // count)) for n in draw.permutation(count)][:rows]


def ranking_examples(
    examples: Sequence[TrainingExample], teacher: SentenceTransformer, seed: int = 0
) -> list[TrainingExample]:
    """Label examples with the teacher's cosines of the query to the positive and to each negative.

    Args:
        examples: with the nearest passages as negatives. Each gets `RANDOM_NEGATIVES` positives of other examples too.
        teacher: with its prompts set.
        seed: seeds the random negatives.
    """
    draw = random.Random(seed)
    positives = list(dict.fromkeys(each.positive for each in examples))
    if len(positives) > RANDOM_NEGATIVES:
        draws = [draw.sample(positives, RANDOM_NEGATIVES + 1) for _ in examples]
        examples = [
            replace(
                each, negatives=(*each.negatives, *[text for text in drawn if text != each.positive][:RANDOM_NEGATIVES])
            )
            for each, drawn in zip(examples, draws, strict=True)
        ]
    texts = list(dict.fromkeys(text for each in examples for text in (each.positive, *each.negatives)))
    place = {text: number for number, text in enumerate(texts)}
    vectors = encode(teacher, texts, "document")
    queries = encode(teacher, [each.anchor for each in examples], "query")
    return [
        replace(each, label=(vectors[[place[text] for text in (each.positive, *each.negatives)]] @ query).tolist())
        for each, query in zip(examples, queries, strict=True)
    ]


def compare_with_teacher(
    name: str, model: SentenceTransformer, teacher: SentenceTransformer, dev: Dev
) -> dict[str, Any]:
    """Measure the dev scores of teacher and student, and how much faster the student encodes the same passages."""
    seconds = []
    for each in (teacher, model):
        encode(each, dev.passages()[:8], "document")  # loads what is loaded at first use
        started = time.monotonic()
        encode(each, dev.passages(), "document")
        seconds.append(time.monotonic() - started)
    return {
        "name": name,
        f"dev_{dev.metric}": round(dev_score(dev.values(teacher), dev), 4),
        "student": round(dev_score(dev.values(model), dev), 4),
        "times_faster": round(seconds[0] / max(seconds[1], 1e-9), 1),
    }
