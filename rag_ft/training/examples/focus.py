"""Training for the mix with BM25: on the questions that words alone do not answer."""

from __future__ import annotations

import logging

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.retrieval.bm25 import BM25

logger = logging.getLogger(__name__)

FEWEST = 50
"""Questions that must stay."""


def what_bm25_misses(dataset: QADataset, found_at: int = 1) -> QADataset:
    """A dataset whose training questions are those that BM25 does not answer among its first passages.

    Where a retriever mixes an embedding with BM25, the embedding need not learn what words find anyway. The search is
    among the passages of training documents.

    Args:
        dataset: with a train split.
        found_at: how many passages of BM25 count as found.

    Raises:
        InputError: where under 50 questions stay.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.training.examples.focus import what_bm25_misses
        >>> passages = {"p": Passage("p", "Leave is booked in HELM."), "o": Passage("o", "A Kittiwake is a claim.")}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Whom do I ask for holidays in week {n}?") for n in range(60)}
        >>> queries["words"] = Query("words", "Where is leave booked?")
        >>> dataset = QADataset(passages, queries, {"train": {query: {"p": 1} for query in queries}})
        >>> "words" in what_bm25_misses(dataset).qrels["train"]
        False
    """
    train = dataset.require("train")
    documents = dataset.documents_of(train, "train")
    texts = {key: text for key, text in dataset.passage_texts.items() if dataset.passages[key].document in documents}
    found = BM25(texts).rank([dataset.queries[query].text for query in train], found_at)
    missed = {
        query: grades for (query, grades), top in zip(train.items(), found, strict=True) if not set(top) & set(grades)
    }
    if len(missed) < FEWEST:
        raise InputError(
            f"BM25 misses {len(missed)} of {len(train)} training questions: under {FEWEST} are too few to train on "
            "(leave out --focus)"
        )
    logger.info("trained on the %d of %d questions that BM25 does not answer first", len(missed), len(train))
    return dataset.with_qrels(dataset.qrels | {"train": missed})
