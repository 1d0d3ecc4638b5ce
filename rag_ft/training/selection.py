"""Which weights are shipped: the base is a candidate, and dev questions decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.styles import KEY_PHRASES
from rag_ft.embedding.encoding import encode
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

POOL = 600
"""Passages that dev questions are searched in: their own, the base's nearest, and a random rest."""

DEPTH = 10

ENOUGH = 30


@dataclass(frozen=True)
class DevQuestions:
    """Dev questions over a pool of passages that is small enough to be encoded again and again.

    Attributes:
        query_ids: the dev questions.
        query_texts: their texts.
        passage_ids: the pool.
        passage_texts: its texts.
        qrels: the dev judgements.
        styles: how each question was made.
    """

    query_ids: list[str]
    query_texts: list[str]
    passage_ids: list[str]
    passage_texts: list[str]
    qrels: Mapping[str, Mapping[str, int]]
    styles: list[str]

    @classmethod
    def of(cls, dataset: QADataset, seed: int = 0, pool: int = POOL) -> DevQuestions:
        """The dev split of a dataset, over its relevant passages and a random rest.

        Test passages may be in the pool as passages to be passed over; no test question is looked at.
        """
        qrels = dataset.require("dev")
        relevant = {passage for grades in qrels.values() for passage in grades}
        others = [passage for passage in dataset.passages if passage not in relevant]
        count = max(0, min(len(others), pool - len(relevant)))
        drawn = set(np.random.default_rng(seed).choice(len(others), count, replace=False).tolist()) if count else set()
        chosen = relevant | {others[place] for place in drawn}
        ids = [passage for passage in dataset.passages if passage in chosen]
        texts = dataset.passage_texts
        return cls(
            list(qrels),
            [dataset.queries[query].text for query in qrels],
            ids,
            [texts[passage] for passage in ids],
            qrels,
            [dataset.queries[query].style for query in qrels],
        )

    def score(self, model: SentenceTransformer) -> float:
        """Mean nDCG@10 over the makings of the questions: key phrases are many, and must not drown the others."""
        found = self.ndcg(model)
        plain = np.array([style == KEY_PHRASES for style in self.styles])
        return float(np.mean([found[chosen].mean() for chosen in (plain, ~plain) if chosen.any()]))

    def level(self, model: SentenceTransformer) -> float:
        """nDCG@10 on the questions that were made without an LLM, or on all where these are few."""
        found = self.ndcg(model)
        plain = np.array([style == KEY_PHRASES for style in self.styles])
        return float((found[plain] if plain.sum() >= ENOUGH else found).mean())

    def ndcg(self, model: SentenceTransformer) -> NDArray[np.float64]:
        """nDCG@10 of each dev question under a model, shape (questions,); the search is exact."""
        queries = encode(model, self.query_texts, "query")
        passages = encode(model, self.passage_texts, "document")
        scores = queries @ passages.T
        depth = min(DEPTH, len(self.passage_ids))
        top = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        rankings = {
            query: [self.passage_ids[place] for place in places]
            for query, places in zip(self.query_ids, top, strict=True)
        }
        return metrics_per_query(rankings, self.qrels, [HEADLINE])[HEADLINE]


State = dict[str, "torch.Tensor"]


def copy_weights(model: SentenceTransformer) -> State:
    """A copy of a model's weights in main memory."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def mixed_weights(base: State, tuned: State, share: float) -> State:
    """Weights between base (share 0) and tuned (share 1); tensors of whole numbers stay the base's."""
    return {
        name: base[name] + share * (tuned[name] - base[name]) if base[name].is_floating_point() else base[name]
        for name in base
    }
