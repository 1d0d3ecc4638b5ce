"""The forgetting probe: general questions that ship with rag_ft and belong to no collection."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.embedding.encoding import encode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

FILE = Path(__file__).parent / "general_questions.jsonl"

SCALE = 20.0
"""Scale of the cosine in the softmax (1 / temperature)."""


@dataclass(frozen=True)
class ForgettingProbe:
    """General questions, each with the passage that answers it.

    Attributes:
        queries: the questions.
        passages: the passage that answers each question.
    """

    queries: list[str]
    passages: list[str]

    @classmethod
    def shipped(cls) -> ForgettingProbe:
        """Load the questions that ship with rag_ft."""
        rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
        return cls([row["query"] for row in rows], [row["passage"] for row in rows])

    def score(self, model: SentenceTransformer) -> float:
        """Return the mean softmax probability of the right passages, from 0 to 1.

        Nearly every model ranks them first, so the score measures the margin, not the rank.

        Example:
            >>> from rag_ft.embedding.loading import load_sentence_transformer
            >>> from rag_ft.training.selection.forgetting import ForgettingProbe
            >>> ForgettingProbe.shipped().score(load_sentence_transformer("local")) > 0.7
            True
        """
        return self.score_of(encode(model, self.queries, "query"), encode(model, self.passages, "document"))

    @staticmethod
    def score_of(queries: NDArray[np.float32], passages: NDArray[np.float32]) -> float:
        """Return the score of unit vectors, in the order of the questions, both of shape (questions, dimension)."""
        similarity = SCALE * queries @ passages.T
        similarity -= similarity.max(axis=1, keepdims=True)
        probabilities = np.exp(similarity)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return float(np.diagonal(probabilities).mean())
