"""Passages that look like an answer and are none: mined among those that training sees, with guards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.embedding.encoding import encode
from rag_ft.errors import InputError, first_line
from rag_ft.retrieval.normalisation import min_max
from rag_ft.retrieval.top_k import top_k
from rag_ft.training.recipe import Miner

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder, SentenceTransformer

logger = logging.getLogger(__name__)

DEPTH = 100
"""Best passages of a question that negatives are taken from."""

MARGIN = 0.95
"""Share of the right passage's score that a negative may have at most: what comes nearer is often an answer too
(Moreira et al. 2024, NV-Retriever)."""

AT_ONCE = 256


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
    """Give the training questions of a dataset hard negatives.

    A negative is one of the best passages of a question in the documents that training sees, unless it answers the
    question, nearly repeats a passage that does, or scores too near to it.

    Args:
        dataset: with a train split. Negatives that it has already stay, before the mined ones.
        model: finds the dense ones; with its prompts set (`load_sentence_transformer`).
        by: `dense`, `bm25`, `both`, which takes them in turn, or `mix`, which takes what both together rank high.
        count: negatives for each question at most.
        margin: share of the right passage's score that a negative may have at most: of the dense score, and of that of
            BM25 where this one looks alone.
        cross_encoder: drops what it holds for an answer: a passage that scores over `margin` of the right one.
        show_progress: a progress bar while passages are encoded.

    Returns:
        The dataset with negatives; `negative_sources` says where each came from.

    Raises:
        InputError: where dense negatives are asked for without a model, or there is no train split.

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
        raise InputError(f"hard negatives by {by!r} need a model: give one, or mine by 'bm25'")
    train = dataset.require("train")
    units = dataset.split_units
    seen = {units[passage] for relevant in train.values() for passage in relevant}
    documents = dataset.documents_of(train, "train")
    texts = {
        key: text
        for key, text in dataset.passage_texts.items()
        # Of few documents parts are held out.
        if dataset.passages[key].document in documents and units[key] in seen
    }
    ids = list(texts)
    place = {key: number for number, key in enumerate(ids)}
    groups = dataset.near_duplicates
    queries = list(train)
    query_texts = [dataset.queries[query].text for query in queries]
    rankers: dict[str, Callable[[], Iterator[NDArray[np.float32]]]] = {}
    if model is not None and by != "bm25":
        rankers["dense"] = lambda: _dense_scores(model, query_texts, list(texts.values()), show_progress)
    if by != "dense":
        rankers["bm25"] = lambda: _bm25_scores(texts, query_texts)
    found: dict[str, dict[str, str]] = {}
    rows = zip(*(rank() for rank in rankers.values()), strict=True)
    for query, scores_by in zip(queries, rows, strict=True):
        answers = [place[passage] for passage in train[query] if passage in place]
        if not answers:
            continue
        answered = {groups[passage] for passage in train[query]} | {
            groups[passage] for qrels in dataset.qrels.values() for passage in qrels.get(query, ())
        }
        decisive = scores_by[0]  # dense, but where BM25 looks alone
        ceiling = margin * float(decisive[answers].max())
        in_turn = []
        sides = dict(zip(rankers, scores_by, strict=True))
        if by == "mix":
            sides = {"mix": sum(map(min_max, scores_by), np.zeros(len(ids)))}
        for name, scores in sides.items():
            top = top_k(scores, DEPTH)
            in_turn.append([
                (ids[each], name)
                for each in top
                if groups[ids[each]] not in answered and scores[each] > 0 and decisive[each] <= ceiling
            ])  # fmt: skip
        found[query] = _alternating(in_turn, count if cross_encoder is None else 3 * count)
    if cross_encoder is not None:
        found = _without_answers(found, dataset, cross_encoder, margin)
    negatives, sources = dict(dataset.negatives), dict(dataset.negative_sources)
    for query, mined in found.items():
        given = negatives.get(query, [])
        new = [passage for passage in mined if passage not in given][: max(0, count - len(given))]
        if new:
            negatives[query] = [*given, *new]
            sources[query] = {**sources.get(query, {}), **{passage: mined[passage] for passage in new}}
    logger.info("%d of %d training questions have hard negatives", sum(map(bool, negatives.values())), len(queries))
    return replace(dataset, negatives=negatives, negative_sources=sources)


def without_mined(dataset: QADataset) -> QADataset:
    """The dataset with the negatives that were given alone: what a miner found, another one may find better."""
    negatives = {
        query: [passage for passage in found if passage not in dataset.negative_sources.get(query, {})]
        for query, found in dataset.negatives.items()
    }
    return replace(
        dataset, negatives={query: found for query, found in negatives.items() if found}, negative_sources={}
    )


def _dense_scores(
    model: SentenceTransformer, queries: Sequence[str], passages: Sequence[str], show_progress: bool
) -> Iterator[NDArray[np.float32]]:
    vectors = encode(model, passages, "document", show_progress=show_progress)
    asked = encode(model, queries, "query")
    for start in range(0, len(asked), AT_ONCE):
        yield from asked[start : start + AT_ONCE] @ vectors.T


def _bm25_scores(passages: dict[str, str], queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    from rag_ft.retrieval.bm25 import BM25

    yield from BM25(passages).scores(queries)


def _alternating(lists: Sequence[Sequence[tuple[str, str]]], count: int) -> dict[str, str]:
    """The first of each list, then the second, ...: passage -> who found it."""
    taken: dict[str, str] = {}
    for depth in range(max(map(len, lists), default=0)):
        for each in lists:
            if depth < len(each) and len(taken) < count:
                taken.setdefault(*each[depth])
    return taken


def _without_answers(
    found: dict[str, dict[str, str]], dataset: QADataset, cross_encoder: CrossEncoder, margin: float
) -> dict[str, dict[str, str]]:
    texts, train = dataset.passage_texts, dataset.require("train")
    asked = [(query, passage) for query, mined in found.items() for passage in [*train[query], *mined]]
    import torch

    # Between 0 and 1, so that the margin means a share.
    predicted = cross_encoder.predict(
        [(dataset.queries[query].text, texts[passage]) for query, passage in asked], activation_fn=torch.nn.Sigmoid()
    )
    scores = dict(zip(asked, map(float, predicted), strict=True))
    return {
        query: {
            passage: source
            for passage, source in mined.items()
            if scores[query, passage] <= margin * max(scores[query, answer] for answer in train[query])
        }
        for query, mined in found.items()
    }


def load_cross_encoder(name: str, device: str | None = None) -> CrossEncoder:
    """Load a reranker, without pickle and without remote code.

    Args:
        name: a folder or a hub name.
        device: a torch device; the best there is where None.

    Raises:
        InputError: where there is none of this name.
    """
    from sentence_transformers import CrossEncoder

    from rag_ft.quiet import quiet_libraries

    try:
        with quiet_libraries():
            return CrossEncoder(name, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"{name} cannot be loaded as a cross-encoder ({reason}): give a folder or a hub name"
        ) from error
