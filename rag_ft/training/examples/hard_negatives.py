"""Hard negatives: passages that resemble an answer without being one, mined among those that training sees."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.embedding.encoding import encode
from rag_ft.errors import InputError
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.normalisation import min_max
from rag_ft.retrieval.top_k import top_k
from rag_ft.training.examples.cross_encoder_filter import without_answers
from rag_ft.training.recipe import Miner

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder, SentenceTransformer

logger = logging.getLogger(__name__)

CANDIDATES = 100
"""Number of top-ranked passages of a query that negatives are taken from."""

MARGIN = 0.95
"""Maximum score of a negative as a fraction of the positive's score: a passage that scores higher is often an answer
too (Moreira et al. 2024, NV-Retriever)."""

QUERY_BATCH_SIZE = 256

SPARE_FOR_FILTER = 3
"""Factor on the number of mined negatives if a cross-encoder filters them."""


def mine_negatives(
    dataset: QADataset,
    model: SentenceTransformer | None = None,
    *,
    by: Miner = "both",
    count: int = 3,
    margin: float = MARGIN,
    cross_encoder: CrossEncoder | None = None,
    show_progress: bool = False,
) -> QADataset:
    """Mine hard negatives for the training questions of a dataset.

    A negative is one of the top-ranked passages of a question in the documents that training sees. It does not answer
    the question, does not nearly repeat a passage that does, and scores clearly lower than it.

    Args:
        dataset: a dataset with a train split. Its own negatives are kept, before the mined ones.
        model: a model with its prompts set (`load_sentence_transformer`), which finds the dense negatives.
        by: `dense`, `bm25`, `both` in turn, or `mix`, which ranks passages by the sum of both scores.
        count: maximum number of negatives per question.
        margin: maximum score of a negative as a fraction of the positive's: the dense score, or BM25's with
            `by="bm25"`.
        cross_encoder: removes passages that score over `margin` of the positive, because they are probably answers.
        show_progress: show a progress bar while passages are encoded.

    Returns:
        The dataset with negatives; `negative_sources` names the miner of each.

    Raises:
        InputError: if dense negatives are requested without a model, or there is no train split.

    Example:
        >>> from rag_ft import Passage, QADataset, Query, mine_negatives
        >>> texts = {"leave": "Leave is booked in HELM by noon.", "desk": "A desk is booked at the porter's lodge."}
        >>> passages = {key: Passage(key, text) for key, text in texts.items()}
        >>> queries = {"q1": Query("q1", "Where is leave booked?"), "q2": Query("q2", "Where is a desk booked?")}
        >>> dataset = QADataset(passages, queries, {"train": {"q1": {"leave": 1}, "q2": {"desk": 1}}})
        >>> mine_negatives(dataset, by="bm25", count=1).negatives
        {'q1': ['desk'], 'q2': ['leave']}
    """
    if by != "bm25" and model is None:
        raise InputError(f"hard negatives by {by!r} need a model: pass one, or mine by 'bm25'")
    train, groups = dataset.require("train"), dataset.near_duplicates
    texts = dataset.training_passages
    ids = list(texts)
    index_of = {key: index for index, key in enumerate(ids)}
    queries = dataset.texts("train")
    scorers: dict[str, Iterator[NDArray[np.float32]]] = {}
    if model is not None and by != "bm25":
        scorers["dense"] = _dense_scores(model, queries, list(texts.values()), show_progress)
    if by != "dense":
        scorers["bm25"] = BM25(texts).scores(queries)
    mined: dict[str, dict[str, str]] = {}
    for query, scores_of_query in zip(train, zip(*scorers.values(), strict=True), strict=True):
        answers = [index_of[passage] for passage in train[query] if passage in index_of]
        if not answers:
            continue
        relevant = [passage for qrels in dataset.qrels.values() for passage in qrels.get(query, ())]
        answer_groups = {groups[passage] for passage in dataset.answering_passages(query, relevant)}
        decisive = scores_of_query[0]  # the dense score, or BM25's if there is no other
        ceiling = margin * float(decisive[answers].max())
        rankings = dict(zip(scorers, scores_of_query, strict=True))
        if by == "mix":
            rankings = {"mix": sum(map(min_max, scores_of_query), np.zeros(len(ids)))}
        candidates = [
            [
                (ids[n], miner)
                for n in top_k(scores, CANDIDATES)
                if groups[ids[n]] not in answer_groups and scores[n] > 0 and decisive[n] <= ceiling
            ]
            for miner, scores in rankings.items()
        ]
        mined[query] = _interleave(candidates, count if cross_encoder is None else SPARE_FOR_FILTER * count)
    if cross_encoder is not None:
        mined = without_answers(mined, dataset, cross_encoder, margin)
    negatives, sources = _add_mined(dataset.negatives, dataset.negative_sources, mined, count)
    logger.info("%d of %d training questions have hard negatives", sum(map(bool, negatives.values())), len(train))
    return dataset.with_negatives(negatives, sources)


def _dense_scores(
    model: SentenceTransformer, queries: Sequence[str], passages: Sequence[str], show_progress: bool
) -> Iterator[NDArray[np.float32]]:
    passage_vectors = encode(model, passages, "document", show_progress=show_progress)
    query_vectors = encode(model, queries, "query")
    for start in range(0, len(query_vectors), QUERY_BATCH_SIZE):
        yield from query_vectors[start : start + QUERY_BATCH_SIZE] @ passage_vectors.T


def _interleave(rankings: Sequence[Sequence[tuple[str, str]]], count: int) -> dict[str, str]:
    """Take the first passage of each ranking, then the second, and so on: passage -> its miner."""
    taken: dict[str, str] = {}
    for rank in range(max(map(len, rankings), default=0)):
        for ranking in rankings:
            if rank < len(ranking) and len(taken) < count:
                taken.setdefault(*ranking[rank])
    return taken


def _add_mined(
    negatives: Mapping[str, list[str]],
    sources: Mapping[str, dict[str, str]],
    mined: Mapping[str, dict[str, str]],
    count: int,
) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """Add mined negatives to existing ones, up to `count` per query, with the miner of each."""
    negatives, sources = dict(negatives), dict(sources)
    for query, miner_of in mined.items():
        existing = negatives.get(query, [])
        new = [passage for passage in miner_of if passage not in existing][: max(0, count - len(existing))]
        if new:
            negatives[query] = [*existing, *new]
            sources[query] = {**sources.get(query, {}), **{passage: miner_of[passage] for passage in new}}
    return negatives, sources
