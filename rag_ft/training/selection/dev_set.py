"""The dev set: held-out questions over a small pool of passages, used to select weights."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from rag_ft.dataset.sources import HUMAN, KEY_PHRASES
from rag_ft.dataset.splitting import MAX_DEV_QUERIES
from rag_ft.embedding.encoding import encode
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from rag_ft.dataset.qa_dataset import QADataset

POOL_SIZE = 600
"""Number of passages that dev questions search: those that answer them, and random others."""

QUERY_BATCH = 256
"""Number of queries that are scored against the pool at once."""

MAX_RANK = 10

MIN_UNITS = 30
"""Minimum number of questions (or scored pairs) of a source for a separate score."""

DocumentStatus = Literal["seen", "unseen"]
"""Whether training sees the document that a question is about."""


class Dev(Protocol):
    """A dev set, used to select weights. Its units are questions or scored pairs."""

    @property
    def metric(self) -> str:
        """The metric's name."""

    @property
    def sources(self) -> list[str]:
        """The source of each unit. A candidate must not lose on any source."""

    @property
    def documents(self) -> list[DocumentStatus]:
        """The status of each unit's document; empty if unknown. A candidate must not lose on either."""

    @property
    def groups(self) -> list[object]:
        """The group of each unit; groups are resampled as a whole."""

    def values(self, model: SentenceTransformer) -> NDArray[np.float64]:
        """Return the metric of each unit under a model, shape (units,)."""

    def passages(self) -> list[str]:
        """Return passages to check a model's vectors with."""

    def texts(self) -> list[str]:
        """Return every text that `values` encodes."""


@dataclass(frozen=True, kw_only=True)
class DevQuestions:
    """Dev questions over a pool of passages that is small enough to encode many times. The metric is nDCG@10.

    Attributes:
        query_ids: the dev questions.
        query_texts: their texts.
        passage_ids: the pool.
        passage_texts: its texts.
        qrels: the dev judgements.
        sources: `key phrases`, `real` (asked by people) or `other`, with the prefix `earlier` for questions of an
            earlier dataset.
        groups: the document of each question; documents are resampled as a whole.
        documents: whether training sees each question's document.
        one_answer: the questions whose relevant passages all hold the same answer.
        metric: `ndcg@10`.
    """

    query_ids: list[str]
    query_texts: list[str]
    passage_ids: list[str]
    passage_texts: list[str]
    qrels: Mapping[str, Mapping[str, int]]
    sources: list[str]
    groups: list[object]
    documents: list[DocumentStatus]
    one_answer: set[str] = field(default_factory=set)
    metric: str = HEADLINE

    @classmethod
    def of(cls, dataset: QADataset, seed: int = 0, pool_size: int = POOL_SIZE) -> DevQuestions:
        """Make the dev set of a dataset's dev split.

        The pool may contain test passages, as passages that are not relevant. No test question is used. If there are
        more than 1,000 questions, they are sampled in proportion to their sources.

        Args:
            dataset: a dataset with a dev split.
            seed: seeds every random choice.
            pool_size: number of passages to search. Relevant passages are always included.
        """
        earlier = set(dataset.info.get("earlier_questions", ()))
        names = {KEY_PHRASES: "key phrases", HUMAN: "real"}
        source = {
            query: ("earlier " if query in earlier else "") + names.get(dataset.queries[query].source, "other")
            for query in dataset.require("dev")
        }
        sampled = _sample_by_source(source, MAX_DEV_QUERIES, seed)
        dev = {query: dataset.qrels["dev"][query] for query in sampled}
        # Ten relevant passages per question are enough: nDCG@10 ignores further ones.
        relevant = {
            passage for grades in dev.values() for passage in sorted(grades, key=lambda p: -grades[p])[:MAX_RANK]
        }
        qrels = {query: {p: grade for p, grade in grades.items() if p in relevant} for query, grades in dev.items()}
        answers = {passage for grades in dev.values() for passage in grades}
        others = [passage for passage in dataset.passages if passage not in answers]
        pool = relevant | _sample(others, pool_size - len(relevant), seed)
        passage_ids = [passage for passage in dataset.passages if passage in pool]
        texts = dataset.passage_texts
        split = dataset.with_qrels(dataset.qrels | {"dev": dev})
        seen = split.seen_queries("dev")
        return cls(
            query_ids=list(qrels),
            query_texts=[dataset.queries[query].text for query in qrels],
            passage_ids=passage_ids,
            passage_texts=[texts[passage] for passage in passage_ids],
            qrels=qrels,
            sources=[source[query] for query in qrels],
            groups=resampling_groups(split, "dev")[0],
            documents=["seen" if query in seen else "unseen" for query in qrels],
            one_answer=split.one_answer("dev"),
        )

    def values(self, model: SentenceTransformer) -> NDArray[np.float64]:
        """Return the nDCG@10 of each dev question under a model, shape (questions,). The search is exact."""
        return self.values_of(encode(model, self.query_texts, "query"), encode(model, self.passage_texts, "document"))

    def values_of(self, queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the nDCG@10 of each dev question, shape (questions,).

        Args:
            queries: unit vectors in the order of `query_texts`, shape (questions, dimension).
            passages: unit vectors in the order of `passage_texts`, shape (pool, dimension).
        """
        rankings = {}
        for start in range(0, len(queries), QUERY_BATCH):
            top = top_k_rows(queries[start : start + QUERY_BATCH] @ passages.T, MAX_RANK)
            for query, indices in zip(self.query_ids[start : start + QUERY_BATCH], top, strict=True):
                rankings[query] = [self.passage_ids[index] for index in indices]
        return metrics_per_query(rankings, self.qrels, [HEADLINE], self.one_answer)[HEADLINE]

    def passages(self) -> list[str]:
        """Return the texts of the pool."""
        return self.passage_texts

    def texts(self) -> list[str]:
        """Return the questions and the pool."""
        return [*self.query_texts, *self.passage_texts]

    def base_ndcg(self, values: NDArray[np.float64]) -> float:
        """Return the mean over the questions generated without an LLM, or over all questions if those are few."""
        plain = np.array([source.endswith("key phrases") for source in self.sources])
        return float((values[plain] if plain.sum() >= MIN_UNITS else values).mean())

    def chance(self) -> float:
        """Return the approximate nDCG@10 of a random ranking."""
        discounts = 1 / np.log2(np.arange(2, min(MAX_RANK, len(self.passage_ids)) + 2))
        expected = [
            len(relevant) / max(1, len(self.passage_ids)) * discounts.sum() / discounts[: len(relevant)].sum()
            for relevant in self.qrels.values()
        ]
        return float(np.mean(expected))


def _sample_by_source(source: Mapping[str, str], size: int, seed: int) -> Sequence[str]:
    """Sample queries in proportion to their sources, at least `MIN_UNITS` of each source that has them."""
    if len(source) <= size:
        return list(source)
    rng, sampled = random.Random(seed), set[str]()
    for name, count in Counter(source.values()).items():
        queries = [query for query, its in source.items() if its == name]
        sampled |= set(rng.sample(queries, max(round(size * count / len(source)), min(MIN_UNITS, count))))
    return [query for query in source if query in sampled]


def _sample(passages: Sequence[str], size: int, seed: int) -> set[str]:
    size = max(0, min(len(passages), size))
    if not size:
        return set()
    return {passages[index] for index in np.random.default_rng(seed).choice(len(passages), size, replace=False)}
