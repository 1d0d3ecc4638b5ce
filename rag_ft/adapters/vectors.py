"""The vectors that a training of an adapter needs, each computed once."""

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

logger = logging.getLogger(__name__)

MOST_PASSAGES = 50_000
"""Passages whose vectors are computed: those that answer a question, and of the others a random rest."""

MOST_PAIRS = 10_000
"""Pairs that are learned from: the vectors of each cost money, and a small map learns no more."""


@dataclass(frozen=True)
class AdapterVectors:
    """What a training of an adapter needs, as vectors of length 1, each computed once.

    Attributes:
        examples: what is learned from.
        dev: what chooses; None where nothing could be held out.
        queries: the dev questions, shape (questions, dimension).
        passages: those that dev questions are searched in, shape (passages, dimension).
        general: the general questions, and their passages.
        probe: what the embedding makes of the probe texts.
    """

    examples: AdapterExamples
    dev: DevQuestions | None
    queries: NDArray[np.float32]
    passages: NDArray[np.float32]
    general: tuple[NDArray[np.float32], NDArray[np.float32]]
    probe: NDArray[np.float32]

    @classmethod
    def of(
        cls, dataset: QADataset, source: EmbeddingClient, max_pairs: int | None, seed: int, show_progress: bool
    ) -> AdapterVectors:
        """Embed what is needed, after the estimate was approved."""
        general = ForgettingProbe.shipped()
        texts = dataset.passage_texts
        dev = DevQuestions.of(dataset, seed, len(texts)) if dataset.qrels.get("dev") else None
        pairs = _pairs(dataset, max_pairs, seed)
        against = _against(dataset, pairs)
        place = {passage: number for number, passage in enumerate(against)}
        asked = [dataset.queries[query].text for query, _ in pairs]
        queries = [*asked, *(dev.query_texts if dev else ()), *general.queries]
        passages = [*texts.values(), *general.passages]
        source.approve(queries, passages)
        of_query = _by_text(queries, source.embed(queries, "query", show_progress))
        of_passage = _by_text(passages, source.embed(passages, "passage", show_progress))

        def stacked(known: dict[str, NDArray[np.float32]], wanted: Sequence[str]) -> NDArray[np.float32]:
            return np.stack([known[text] for text in wanted])

        width = next(iter(of_passage.values())).shape[0]
        return cls(
            AdapterExamples(
                stacked(of_query, asked),
                stacked(of_passage, [texts[passage] for passage in against]),
                np.asarray([place[passage] for _, passage in pairs], dtype=np.int64),
                _answers(dataset, pairs, against),
            ),
            dev,
            stacked(of_query, dev.query_texts) if dev else np.zeros((0, width), dtype=np.float32),
            stacked(of_passage, dev.passage_texts) if dev else np.zeros((0, width), dtype=np.float32),
            (stacked(of_query, general.queries), stacked(of_passage, general.passages)),
            source.probe(),
        )

    def level(self, dataset: QADataset, seed: int) -> float:
        """nDCG@10 of the embedding among as few passages as `headroom` was measured on."""
        assert self.dev is not None
        small = DevQuestions.of(dataset, seed)
        place = {passage: number for number, passage in enumerate(self.dev.passage_ids)}
        return small.level(
            small.values_of(self.queries, self.passages[[place[passage] for passage in small.passage_ids]])
        )

    def values(self, queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.float64]:
        """nDCG@10 of each dev question, shape (questions,)."""
        assert self.dev is not None
        return self.dev.values_of(queries, passages)


def bounded(dataset: QADataset, seed: int) -> QADataset:
    """Of a very large corpus, the passages that are asked about and a random rest."""
    if len(dataset.passages) <= MOST_PASSAGES:
        return dataset
    qrels = {name: dataset.qrels[name] for name in ("train", "dev") if dataset.qrels.get(name)}
    asked = {passage for questions in qrels.values() for found in questions.values() for passage in found}
    others = [passage for passage in dataset.passages if passage not in asked]
    drawn = asked | set(random.Random(seed).sample(others, max(0, min(len(others), MOST_PASSAGES - len(asked)))))
    logger.info("%d of %d passages take part", len(drawn), len(dataset.passages))
    return QADataset(
        {name: passage for name, passage in dataset.passages.items() if name in drawn},
        dataset.queries,
        qrels,
        dataset.info,
    )


def _pairs(dataset: QADataset, max_pairs: int | None, seed: int) -> list[tuple[str, str]]:
    """(query id, passage id) to learn from; of passages that nearly repeat each other one for each question."""
    near = dataset.near_duplicates
    distinct = {
        (query, near[passage]): (query, passage)
        for query, passage in reversed(dataset.pairs("train"))
        if dataset.queries[query].text.strip() and dataset.passage_texts[passage].strip()
    }
    pairs = list(reversed(distinct.values()))
    if not pairs:
        raise InputError("the train split has no pair of a question and a passage with text in them")
    most = MOST_PAIRS if max_pairs is None else max_pairs
    return pairs if len(pairs) <= most else random.Random(seed).sample(pairs, most)


def _against(dataset: QADataset, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The passages that questions are told apart from: all of the documents that training asks about.

    Those of other documents answer none of its questions, so that a map would learn to avoid them, whatever is asked:
    on covidqa's new documents nDCG@10 fell by .014 at a pull of 10 and by .088 at 1.
    """
    units = dataset.split_units
    asked = {units[passage] for _, passage in pairs}
    return [passage for passage in dataset.passages if units[passage] in asked]


def _answers(dataset: QADataset, pairs: Sequence[tuple[str, str]], against: Sequence[str]) -> NDArray[np.int64]:
    """(row of `pairs`, place in `against`) of what answers a row's question, or nearly repeats what does."""
    near = dataset.near_duplicates
    places: dict[int, list[int]] = {}
    for place, passage in enumerate(against):
        places.setdefault(near[passage], []).append(place)
    found = [
        (row, place)
        for row, (query, _) in enumerate(pairs)
        for group in {near[answer] for answer in dataset.qrels["train"][query]}
        for place in places.get(group, ())
    ]
    return np.asarray(found, dtype=np.int64).reshape(-1, 2)


def _by_text(texts: Sequence[str], vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(texts, vectors / np.maximum(lengths, 1e-12), strict=True))
