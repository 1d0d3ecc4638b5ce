"""A large teacher into a small student: its vectors, or its opinion of passages, become the labels of training."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.embedding.encoding import encode
from rag_ft.training.examples.pairs import TrainingExample
from rag_ft.training.loop.principal_axes import onto_principal_axes
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import Dev

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NEAR, FAR = 2, 2
"""Passages beside the right one that a teacher ranks for a question: the nearest, and some at random. By the nearest
alone a student never hears that all else is far (two layers of a model on the demo's policies, `margin-mse`: dev fell
from .415 to .340)."""


def vector_examples(
    dataset: QADataset, teacher: SentenceTransformer, dimension: int, seed: int = 0, most: int | None = None
) -> list[TrainingExample]:
    """Questions and passages with the teacher's vectors as labels.

    Every passage of the documents that training sees is taught, also those that no question asks for: the student
    needs no label for it. Vectors that are longer than the student's are turned onto their first principal axes,
    which keeps most of the cosines (Reimers' recipe for model distillation).

    Args:
        dataset: with a train split.
        teacher: with its prompts set.
        dimension: of the student's vectors, not more than the teacher's.
        seed: of the order in which passages meet questions.
        most: rows, of questions and passages drawn at random.
    """
    train = dataset.require("train")
    documents = dataset.documents_of(train, "train")
    passages = [
        text
        for key, text in dataset.passage_texts.items()
        if dataset.passages[key].document in documents and text.strip()
    ]
    queries = [dataset.queries[query].text for query in train if dataset.queries[query].text.strip()]
    draw = np.random.default_rng(seed)
    if most is not None:
        queries, passages = (_some(texts, most, draw) for texts in (queries, passages))
    rows = max(len(queries), len(passages))
    query_vectors, passage_vectors = encode(teacher, queries, "query"), encode(teacher, passages, "document")
    query_vectors, passage_vectors = onto_principal_axes(query_vectors, passage_vectors, dimension)
    asked, shown = _repeated(len(queries), rows, draw), _repeated(len(passages), rows, draw)
    return [
        TrainingExample(queries[q], passages[p], label=np.stack([query_vectors[q], passage_vectors[p]]))
        for q, p in zip(asked, shown, strict=True)
    ]


def _some(texts: list[str], most: int, draw: np.random.Generator) -> list[str]:
    places = draw.choice(len(texts), most, replace=False) if len(texts) > most else range(len(texts))
    return [texts[place] for place in places]


def _repeated(count: int, rows: int, draw: np.random.Generator) -> list[int]:
    """Each number as often as any other, at random, `rows` of them."""
    return [int(n) for _ in range(-(-rows // count)) for n in draw.permutation(count)][:rows]


def ranking_examples(
    pairs: Sequence[TrainingExample], teacher: SentenceTransformer, seed: int = 0
) -> list[TrainingExample]:
    """Pairs with more negatives, labelled with the teacher's cosine to the passage and to each negative.

    Args:
        pairs: with the nearest passages as negatives; `FAR` of the others' passages come beside them.
        teacher: with its prompts set.
        seed: of the draw.
    """
    draw = random.Random(seed)
    passages = list(dict.fromkeys(pair.positive for pair in pairs))
    if len(passages) > FAR:
        drawn = [[text for text in draw.sample(passages, FAR + 1) if text != pair.positive][:FAR] for pair in pairs]
        pairs = [replace(pair, negatives=(*pair.negatives, *far)) for pair, far in zip(pairs, drawn, strict=True)]
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.positive, *pair.negatives)))
    place = {text: number for number, text in enumerate(texts)}
    vectors = encode(teacher, texts, "document")
    asked = encode(teacher, [pair.anchor for pair in pairs], "query")
    return [
        replace(pair, label=(vectors[[place[text] for text in (pair.positive, *pair.negatives)]] @ query).tolist())
        for pair, query in zip(pairs, asked, strict=True)
    ]


def compare_with_teacher(
    name: str, model: SentenceTransformer, teacher: SentenceTransformer, dev: Dev
) -> dict[str, Any]:
    """The teacher's dev figure beside the student's, and how much faster the student reads the same passages."""
    seconds = []
    for each in (teacher, model):
        encode(each, dev.passages()[:8], "document")  # what is loaded at first use is not counted
        began = time.monotonic()
        encode(each, dev.passages(), "document")
        seconds.append(time.monotonic() - began)
    return {
        "name": name,
        f"dev_{dev.metric}": round(dev_score(dev.values(teacher), dev), 4),
        "student": round(dev_score(dev.values(model), dev), 4),
        "times_faster": round(seconds[0] / max(seconds[1], 1e-9), 1),
    }
