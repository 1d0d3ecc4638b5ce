"""The dev questions of a comparison: held out of training and not in the compared split.

The fusion with BM25 is learned on them, and they choose the retriever to use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset, Query
from rag_ft.dataset.sources import HUMAN, KEY_PHRASES
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import QUESTION_SKETCH_SIZE, hash_of
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.resampling import resampling_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_DEV_QUESTIONS = 20
"""Minimum number of dev questions to learn a fusion, or of a source to choose a retriever."""

MIN_FRACTION = 0.1
"""Fraction of the compared questions from which on dev must have questions of their source."""


@dataclass(frozen=True, kw_only=True)
class DevSplit:
    """Dev questions with their relevant passages.

    Attributes:
        texts: the questions.
        qrels: query id -> passage id -> grade, in the same order.
        groups: the group that each question is resampled with.
        one_answer: the questions whose relevant passages all hold the same answer.
        weights: the weight of each question in a score that chooses a retriever, shape (questions,): sources have the
            same proportions as in the compared split. None if dev has too few questions of a source.
    """

    texts: Sequence[str]
    qrels: dict[str, dict[str, int]]
    groups: Sequence[object]
    one_answer: set[str]
    weights: NDArray[np.float64] | None

    def ndcg(self, rankings: Iterable[Sequence[str]]) -> NDArray[np.float64]:
        """Return nDCG@10 of the rankings, shape (questions,)."""
        ranked = dict(zip(self.qrels, map(list, rankings), strict=True))
        return metrics_per_query(ranked, self.qrels, [HEADLINE], self.one_answer)[HEADLINE]

    @property
    def has_one_answer(self) -> list[bool]:
        """Whether each question has one answer."""
        return [query in self.one_answer for query in self.qrels]


def dev_split_of(dataset: QADataset, split: str, models: Iterable[Any], seed: int) -> DevSplit | None:
    """Return the dev questions that no model was trained on and that are not in a split; None if they are few.

    If the dataset has no dev split, they are held out with the seed of the first model that was trained, so that they
    are the questions that selected its weights. Nothing is held out of train for a model without a record, which may
    have been trained on all of it.

    Args:
        dataset: a dataset with a dev split, or with a train split.
        split: the split that is compared.
        models: the embeddings. Those of rag_ft have a `record`, which is empty for a base model.
        seed: seeds the hold-out if no model was trained.
    """
    if split == "dev":
        return None
    records = [getattr(model, "record", None) for model in models if not isinstance(model, str)]
    trainings = [record["training"] | record for record in records if record and record.get("training")]
    if not dataset.qrels.get("dev"):
        if split == "train" or None in records:
            return None
        seeds = [recipe["seed"] for record in trainings if "seed" in (recipe := _recipe_of(record))]
        dataset = hold_out_dev(dataset, seed=int(seeds[0]) if seeds else seed)
    compared = {dataset.queries[query].text for query in dataset.qrels.get(split, {})}
    texts = {query: dataset.queries[query].text for query in dataset.qrels.get("dev", {})}
    unseen = _not_trained_on([text for text in texts.values() if text not in compared], trainings)
    dev = {query: dataset.qrels["dev"][query] for query, text in texts.items() if text in unseen}
    if len(dev) < MIN_DEV_QUESTIONS:
        return None
    part = dataset.with_qrels({"dev": dev})
    return DevSplit(
        texts=part.texts("dev"),
        qrels=dev,
        groups=resampling_groups(part, "dev")[0],
        one_answer=part.one_answer("dev"),
        weights=_weights(part.questions("dev"), dataset.questions(split)),
    )


def _recipe_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the recipe of a model, or that of an adapter."""
    recipe = record.get("recipe") or record.get("adapter")
    return recipe if isinstance(recipe, Mapping) else {}


def _not_trained_on(texts: Iterable[str], trainings: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the texts that no training has among its questions.

    A record has the 2,000 smallest hashes. If it is full and has any of the texts, then nothing is known about the
    texts with larger hashes, and they are left out too.
    """
    left = {text: hash_of(text) for text in texts}
    for training in trainings:
        hashes = set(training.get("questions", ()))
        found = hashes & set(left.values())
        last = max(hashes) if found and len(hashes) >= QUESTION_SKETCH_SIZE else None
        left = {text: value for text, value in left.items() if value not in found and (last is None or value <= last)}
    return set(left)


def _weights(dev_queries: Sequence[Query], queries: Sequence[Query]) -> NDArray[np.float64] | None:
    """Weight dev questions so that their sources have the proportions of other questions.

    Key phrases share all words with their passages. If they chose the retriever for people's questions, it would
    nearly always be BM25.
    """
    dev = list(map(_source, dev_queries))
    of_dev, of_compared = Counter(dev), Counter(map(_source, queries))
    wanted = {source: count for source, count in of_compared.items() if count >= MIN_FRACTION * len(queries)}
    if not wanted or any(of_dev[source] < MIN_DEV_QUESTIONS for source in wanted):
        return None
    weights = np.array([wanted.get(source, 0) / of_dev[source] for source in dev])
    return weights / weights.sum()


def _source(query: Query) -> str:
    """Return the source of a question, with all questions by LLMs as one."""
    if query.source in ("", HUMAN):
        return HUMAN
    return KEY_PHRASES if query.source == KEY_PHRASES else "other"
