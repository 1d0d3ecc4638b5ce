"""What a model forgets: general questions that ship with the project and have nothing to do with any collection."""

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


@dataclass(frozen=True)
class ForgettingProbe:
    """General questions, each with the passage that answers it.

    Attributes:
        queries: the questions.
        passages: the passage of each.
    """

    queries: list[str]
    passages: list[str]

    @classmethod
    def shipped(cls) -> ForgettingProbe:
        """The questions that ship with the project."""
        rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
        return cls([row["query"] for row in rows], [row["passage"] for row in rows])

    def score(self, model: SentenceTransformer) -> float:
        """How sure a model is of the right passages, from 0 to 1: the mean of their shares in the softmax.

        Nearly every model ranks them right, so that ranks say nothing; how far they stand out does.

        Example:
            >>> from rag_ft.embedding.loading import load_sentence_transformer
            >>> from rag_ft.training.selection.forgetting import ForgettingProbe
            >>> ForgettingProbe.shipped().score(load_sentence_transformer("local")) > 0.7
            True
        """
        return self.score_of(encode(model, self.queries, "query"), encode(model, self.passages, "document"))

    @staticmethod
    def score_of(queries: NDArray[np.float32], passages: NDArray[np.float32]) -> float:
        """The same of vectors of length 1, in the order of `queries` and `passages`."""
        similarity = SCALE * queries @ passages.T
        similarity -= similarity.max(axis=1, keepdims=True)
        shares = np.exp(similarity)
        shares /= shares.sum(axis=1, keepdims=True)
        return float(np.diagonal(shares).mean())
