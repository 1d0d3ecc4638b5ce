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
"""Maximum number of passages that are embedded: those that answer a question, and a random rest."""

MAX_PAIRS = 10_000
"""Maximum number of pairs to train on: each vector costs money, and a small map learns no more."""


@dataclass(frozen=True, kw_only=True)
class AdapterVectors:
    """What the training of an adapter needs, as unit vectors.

    Attributes:
        examples: what is trained on.
        dev: what selects; None if nothing could be held out.
        queries: the dev questions, shape (questions, dimension).
        passages: the passages that dev questions are searched in, shape (passages, dimension).
        general: the general questions, and their passages.
        probe: what the embedding makes of the probe texts.
    """

    examples: AdapterExamples
    dev: DevQuestions | None
    queries: NDArray[np.float32]
    passages: NDArray[np.float32]
    general: tuple[NDArray[np.float32], NDArray[np.float32]]
    probe: NDArray[np.float32]

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self.probe.shape[1])

    @classmethod
    def embed(
        cls, dataset: QADataset, client: EmbeddingClient, recipe: AdapterRecipe, show_progress: bool
    ) -> AdapterVectors:
        """Embed what is needed, after the estimate was approved.

        Args:
            dataset: a dataset with a train split, and a dev split if there is one.
            client: embeds texts.
            recipe: its `max_pairs` and `seed`.
            show_progress: show progress bars.
        """
        general = ForgettingProbe.shipped()
        texts = dataset.passage_texts
        dev = DevQuestions.of(dataset, recipe.seed, len(texts)) if dataset.qrels.get("dev") else None
        pairs = _pairs(dataset, recipe)
        contrasted = _contrasted(dataset, pairs)
        place = {passage: number for number, passage in enumerate(contrasted)}
        anchors = [dataset.queries[query].text for query, _ in pairs]
        dev_queries, dev_passages = (dev.query_texts, dev.passage_texts) if dev is not None else ([], [])
        queries = [*anchors, *dev_queries, *general.queries]
        passages = [*texts.values(), *general.passages]
        client.approve(queries, passages)
        query_vectors = _ByText(queries, client.embed(queries, "query", show_progress))
        passage_vectors = _ByText(passages, client.embed(passages, "passage", show_progress))
        examples = AdapterExamples(
            queries=query_vectors.stack(anchors),
            passages=passage_vectors.stack([texts[passage] for passage in contrasted]),
            positives=np.asarray([place[passage] for _, passage in pairs], dtype=np.int64),
            answers=_answers(dataset, pairs, contrasted),
        )
        return cls(
            examples=examples,
            dev=dev,
            queries=query_vectors.stack(dev_queries),
            passages=passage_vectors.stack(dev_passages),
            general=(query_vectors.stack(general.queries), passage_vectors.stack(general.passages)),
            probe=client.probe(),
        )

    def base_ndcg(self, dataset: QADataset, seed: int) -> float:
        """Return the embedding's nDCG@10 among as few passages as `headroom` was measured with."""
        assert self.dev is not None
        small = DevQuestions.of(dataset, seed)
        place = {passage: number for number, passage in enumerate(self.dev.passage_ids)}
        passages = self.passages[[place[passage] for passage in small.passage_ids]]
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
        """Return the vectors of some texts, shape (texts, dimension)."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([self.vectors[text] for text in texts])


def limit_passages(dataset: QADataset, seed: int) -> QADataset:
    """Return a dataset of at most `MAX_PASSAGES`: those that answer a train or dev question, and a random rest."""
    if len(dataset.passages) <= MAX_PASSAGES:
        return dataset
    qrels = {name: dataset.qrels[name] for name in ("train", "dev") if dataset.qrels.get(name)}
    relevant = {passage for queries in qrels.values() for grades in queries.values() for passage in grades}
    others = [passage for passage in dataset.passages if passage not in relevant]
    rest = random.Random(seed).sample(others, max(0, min(len(others), MAX_PASSAGES - len(relevant))))
    kept = relevant | set(rest)
    logger.info("%d of %d passages take part", len(kept), len(dataset.passages))
    passages = {name: passage for name, passage in dataset.passages.items() if name in kept}
    return QADataset(passages, dataset.queries, qrels, dataset.info)


def _pairs(dataset: QADataset, recipe: AdapterRecipe) -> list[tuple[str, str]]:
    """Return (query id, passage id) to train on; of near-duplicate passages one for each question."""
    near = dataset.near_duplicates
    distinct = {
        (query, near[passage]): (query, passage)
        for query, passage in reversed(dataset.pairs("train"))
        if dataset.queries[query].text.strip() and dataset.passage_texts[passage].strip()
    }
    pairs = list(reversed(distinct.values()))
    if not pairs:
        raise InputError("the train split has no pair of a question and a passage with text in them")
    limit = MAX_PAIRS if recipe.max_pairs is None else recipe.max_pairs
    return pairs if len(pairs) <= limit else random.Random(recipe.seed).sample(pairs, limit)


def _contrasted(dataset: QADataset, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the passages that questions are told apart from: all passages of the documents that training asks about.

    Passages of other documents answer none of its questions, so a map would learn to avoid them, whatever is asked: on
    covidqa's unseen documents nDCG@10 fell by .014 at a pull of 10 and by .088 at 1.
    """
    units = dataset.split_units
    trained = {units[passage] for _, passage in pairs}
    return [passage for passage in dataset.passages if units[passage] in trained]


def _answers(dataset: QADataset, pairs: Sequence[tuple[str, str]], contrasted: Sequence[str]) -> NDArray[np.int64]:
    """Return (row of `pairs`, place in `contrasted`) of what answers a row's question, or nearly repeats it."""
    near = dataset.near_duplicates
    places: dict[int, list[int]] = {}
    for place, passage in enumerate(contrasted):
        places.setdefault(near[passage], []).append(place)
    found = [
        (row, place)
        for row, (query, _) in enumerate(pairs)
        for group in {near[answer] for answer in dataset.qrels["train"][query]}
        for place in places.get(group, ())
    ]
    return np.asarray(found, dtype=np.int64).reshape(-1, 2)
