"""Dev triplet accuracy: how often a question is nearer to its answer than to a passage that does not answer it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from rag_ft.dataset.splitting import MAX_DEV_QUERIES
from rag_ft.embedding.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer

    from rag_ft.dataset.qa_dataset import QADataset

Triplet = tuple[str, str, str]
"""(question, passage that answers it, passage that does not)."""


def dev_triplets(dataset: QADataset, seed: int = 0) -> list[Triplet]:
    """Return triplets of the dev questions that have negatives, at most about 1,000."""
    texts = dataset.passage_texts
    triplets = [
        (dataset.queries[query].text, texts[positive], texts[negative])
        for query, grades in dataset.qrels.get("dev", {}).items()
        for positive in grades
        for negative in dataset.negatives.get(query, ())
    ]
    return random.Random(seed).sample(triplets, MAX_DEV_QUERIES) if len(triplets) > MAX_DEV_QUERIES else triplets


def triplet_accuracy(model: SentenceTransformer, triplets: Sequence[Triplet]) -> float:
    """Return the fraction of triplets in which the positive is nearer to the question than the negative.

    Args:
        model: a model with its prompts set.
        triplets: at least one triplet.
    """
    questions, positives, negatives = zip(*triplets, strict=True)
    anchors = encode(model, questions, "query")
    near, far = (encode(model, texts, "document") for texts in (positives, negatives))
    return float(((anchors * near).sum(axis=1) > (anchors * far).sum(axis=1)).mean())
