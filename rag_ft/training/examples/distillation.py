"""Training examples labelled by a larger teacher, with its vectors or its passage scores."""

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
"""Number of near and of random passages that a teacher scores in addition to the positive. From near passages alone a
student does not learn that all others are far: with two layers of a model on the demo's policies and `margin-mse`, the
dev score fell from .415 to .340."""


def vector_examples(
    queries: list[str],
    passages: list[str],
    teacher: SentenceTransformer,
    dimension: int,
    seed: int = 0,
    max_texts: int | None = None,
) -> list[TrainingExample]:
    """Make examples of queries and passages with the teacher's vectors as labels.

    Passages without a question are used too, because the label needs no question. Vectors that are longer than the
    student's are projected onto their first principal axes, which preserves most of the cosines (model distillation in
    the examples of sentence-transformers, Reimers).

    Args:
        queries: training questions.
        passages: all passages of the documents that training sees.
        teacher: a model with its prompts set.
        dimension: dimension of the student's vectors, at most the teacher's.
        seed: seeds the sample and the pairing of queries and passages in rows.
        max_texts: maximum number of queries, and of passages; more are sampled.
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
    return [texts[index] for index in draw.choice(len(texts), count, replace=False)] if len(texts) > count else texts


def _repeat_shuffled(count: int, rows: int, draw: np.random.Generator) -> list[int]:
    """Return `rows` numbers below `count` in random order, all about equally often."""
    return [int(n) for _ in range(-(-rows // count)) for n in draw.permutation(count)][:rows]


def ranking_examples(
    examples: Sequence[TrainingExample], teacher: SentenceTransformer, seed: int = 0
) -> list[TrainingExample]:
    """Label examples with the teacher's cosines between the query and its positive and negatives.

    Args:
        examples: examples with near negatives. Each also gets `RANDOM_NEGATIVES` positives of other examples.
        teacher: a model with its prompts set.
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
    index_of = {text: index for index, text in enumerate(texts)}
    vectors = encode(teacher, texts, "document")
    queries = encode(teacher, [each.anchor for each in examples], "query")
    return [
        replace(each, label=(vectors[[index_of[text] for text in (each.positive, *each.negatives)]] @ query).tolist())
        for each, query in zip(examples, queries, strict=True)
    ]


def compare_with_teacher(
    name: str, model: SentenceTransformer, teacher: SentenceTransformer, dev: Dev
) -> dict[str, Any]:
    """Measure the dev scores of teacher and student, and how much faster the student encodes passages."""
    seconds = []
    for each in (teacher, model):
        encode(each, dev.passages()[:8], "document")  # a warm-up that is not timed
        started = time.monotonic()
        encode(each, dev.passages(), "document")
        seconds.append(time.monotonic() - started)
    return {
        "name": name,
        f"dev_{dev.metric}": round(dev_score(dev.values(teacher), dev), 4),
        "student": round(dev_score(dev.values(model), dev), 4),
        "times_faster": round(seconds[0] / max(seconds[1], 1e-9), 1),
    }
