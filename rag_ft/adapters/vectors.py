"""The vectors that the training of an adapter needs, each computed once."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.adapters.fitting import AdapterExamples
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.embedding.client import EmbeddingClient
from rag_ft.errors import InputError
from rag_ft.training.selection.dev_set import DevQuestions
from rag_ft.training.selection.forgetting import ForgettingProbe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.adapters.recipe import AdapterRecipe

logger = logging.getLogger(__name__)

MAX_PASSAGES = 50_000
"""Maximum number of passages to embed: those that answer a question, and random others."""

MAX_PAIRS = 10_000
"""Maximum number of training pairs: each vector costs money, and a small map learns no more from further pairs."""


@dataclass(frozen=True, kw_only=True)
class AdapterVectors:
    """The unit vectors that the training of an adapter needs.

    Attributes:
        examples: the training examples.
        dev: the dev set; None if no question could be held out.
        queries: the dev questions, shape (questions, dimension).
        passages: the passages that dev questions are searched in, shape (passages, dimension).
        general: the general questions, and their passages.
        reference_vectors: the embedding's vectors of the reference texts.
    """

    examples: AdapterExamples
    dev: DevQuestions | None
    queries: NDArray[np.float32]
    passages: NDArray[np.float32]
    general: tuple[NDArray[np.float32], NDArray[np.float32]]
    reference_vectors: NDArray[np.float32]

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self.reference_vectors.shape[1])

    @classmethod
    def embed(
        cls, dataset: QADataset, client: EmbeddingClient, recipe: AdapterRecipe, show_progress: bool
    ) -> AdapterVectors:
        """Embed all texts, after the cost estimate was approved.

        Args:
            dataset: a dataset with a train split and, optionally, a dev split.
            client: the client that embeds texts.
            recipe: the recipe; its `max_pairs` and `seed` are used.
            show_progress: show progress bars.
        """
        general = ForgettingProbe.shipped()
        texts = dataset.passage_texts
        dev = DevQuestions.of(dataset, recipe.seed, len(texts)) if dataset.qrels.get("dev") else None
        pairs = _pairs(dataset, recipe)
        candidates = _candidate_passages(dataset, pairs)
        index_of = {passage: index for index, passage in enumerate(candidates)}
        anchors = [dataset.queries[query].text for query, _ in pairs]
        dev_queries, dev_passages = (dev.query_texts, dev.passage_texts) if dev is not None else ([], [])
        queries = [*anchors, *dev_queries, *general.queries]
        passages = [*texts.values(), *general.passages]
        client.approve(queries, passages)
        query_vectors = _ByText(queries, client.embed(queries, "query", show_progress))
        passage_vectors = _ByText(passages, client.embed(passages, "passage", show_progress))
        examples = AdapterExamples(
            queries=query_vectors.stack(anchors),
            passages=passage_vectors.stack([texts[passage] for passage in candidates]),
            positives=np.asarray([index_of[passage] for _, passage in pairs], dtype=np.int64),
            answers=_answers(dataset, pairs, candidates),
        )
        return cls(
            examples=examples,
            dev=dev,
            queries=query_vectors.stack(dev_queries),
            passages=passage_vectors.stack(dev_passages),
            general=(query_vectors.stack(general.queries), passage_vectors.stack(general.passages)),
            reference_vectors=client.reference_vectors(),
        )

    def base_ndcg(self, dataset: QADataset, seed: int) -> float:
        """Return the embedding's nDCG@10 among as few passages as the limits of `headroom` were measured with."""
        assert self.dev is not None
        small = DevQuestions.of(dataset, seed)
        index_of = {passage: index for index, passage in enumerate(self.dev.passage_ids)}
        passages = self.passages[[index_of[passage] for passage in small.passage_ids]]
        return small.base_ndcg(small.values_of(self.queries, passages))

    def values(self, queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the nDCG@10 of each dev question, shape (questions,)."""
        assert self.dev is not None
        return self.dev.values_of(queries, passages)


class _ByText:
    """Unit vectors by their text."""

    def __init__(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.dimension = vectors.shape[1]
        self.vectors = dict(zip(texts, vectors / np.maximum(norms, 1e-12), strict=True))

    def stack(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of texts, shape (texts, dimension)."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([self.vectors[text] for text in texts])


def limit_passages(dataset: QADataset, seed: int) -> QADataset:
    """Return a dataset of at most `MAX_PASSAGES`: those that answer a train or dev question, and random others."""
    if len(dataset.passages) <= MAX_PASSAGES:
        return dataset
    qrels = {name: dataset.qrels[name] for name in ("train", "dev") if dataset.qrels.get(name)}
    relevant = {passage for queries in qrels.values() for grades in queries.values() for passage in grades}
    others = [passage for passage in dataset.passages if passage not in relevant]
    sampled = random.Random(seed).sample(others, max(0, min(len(others), MAX_PASSAGES - len(relevant))))
    chosen = relevant | set(sampled)
    logger.info("using %d of %d passages", len(chosen), len(dataset.passages))
    passages = {name: passage for name, passage in dataset.passages.items() if name in chosen}
    return QADataset(passages, dataset.queries, qrels, dataset.info)


def _pairs(dataset: QADataset, recipe: AdapterRecipe) -> list[tuple[str, str]]:
    """Return the training pairs (query id, passage id), with one of several near-duplicate passages per question."""
    near = dataset.near_duplicates
    distinct = {
        (query, near[passage]): (query, passage)
        for query, passage in reversed(dataset.pairs("train"))
        if dataset.queries[query].text.strip() and dataset.passage_texts[passage].strip()
    }
    pairs = list(reversed(distinct.values()))
    if not pairs:
        raise InputError("the train split has no pair in which both the question and the passage have text")
    limit = MAX_PAIRS if recipe.max_pairs is None else recipe.max_pairs
    return pairs if len(pairs) <= limit else random.Random(recipe.seed).sample(pairs, limit)


def _candidate_passages(dataset: QADataset, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the candidate passages, positives and negatives: all passages of the documents with a training question.

    Passages of other documents answer no training question, so a map would learn to avoid them whatever the question:
    on covidqa's unseen documents nDCG@10 fell by .014 at a pull of 10 and by .088 at 1.
    """
    units = dataset.split_units
    trained = {units[passage] for _, passage in pairs}
    return [passage for passage in dataset.passages if units[passage] in trained]


def _answers(dataset: QADataset, pairs: Sequence[tuple[str, str]], candidates: Sequence[str]) -> NDArray[np.int64]:
    """Return (row of `pairs`, index in `candidates`) of each answer to the question and its near-duplicates."""
    near = dataset.near_duplicates
    indices: dict[int, list[int]] = {}
    for index, passage in enumerate(candidates):
        indices.setdefault(near[passage], []).append(index)
    answers = [
        (row, index)
        for row, (query, _) in enumerate(pairs)
        for group in {near[answer] for answer in dataset.answering_passages(query, dataset.qrels["train"][query])}
        for index in indices.get(group, ())
    ]
    return np.asarray(answers, dtype=np.int64).reshape(-1, 2)
