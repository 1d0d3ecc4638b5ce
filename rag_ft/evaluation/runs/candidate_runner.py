"""All questions through every candidate, as an app would search; what several of them need is made once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.evaluation.comparison import DEPTH
from rag_ft.evaluation.runs.candidates import Hybrid, model_of
from rag_ft.evaluation.runs.dev_fusion import fusion_on_dev, question_hash
from rag_ft.evaluation.runs.embedded_corpus import EmbeddedCorpus, questions_at_once, rank_with_retriever
from rag_ft.evaluation.runs.fusion_learning import LearnedFusion
from rag_ft.retrieval.bm25 import BM25, WordScores
from rag_ft.retrieval.fusion import Fusion
from rag_ft.retrieval.pooling import pool_of
from rag_ft.retrieval.top_k import top_k

if TYPE_CHECKING:
    import numpy as np
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from rag_ft.evaluation.runs.candidates import Candidate

BM25_ROLE = "bm25"

INDEXED = 20_000
"""Passages up to which all go into a Chroma index. Of more the exact search gives the figures, and what an index of
some of them finds stands beside."""

SAMPLED = 5_000
"""Passages of that index."""

ASKED = 500
"""Questions by which an index is held beside the exact search."""


@dataclass
class Found:
    passages: list[list[str]]
    details: dict[str, Any]


class CandidateRunner:
    """Searches all questions with every candidate; what several of them need is made once."""

    def __init__(self, dataset: QADataset, split: str, seed: int, show_progress: bool) -> None:
        self._dataset, self._split, self._seed, self._show_progress = dataset, split, seed, show_progress
        self._texts = dataset.passage_texts
        self._queries = [dataset.queries[query].text for query in dataset.qrels[split]]
        self._corpora: dict[int, EmbeddedCorpus] = {}
        self._words: BM25 | None = None
        self._words_seconds = 0.0

    def of(self, roles: Mapping[str, Candidate]) -> dict[str, Found]:
        """What each finds."""
        from llama_index.core.base.base_retriever import BaseRetriever
        from llama_index.core.base.embeddings.base import BaseEmbedding

        found: dict[str, Found] = {}
        exact: dict[str, Candidate] = {}
        for role, each in roles.items():
            if isinstance(each, BaseRetriever):
                passages, milliseconds = rank_with_retriever(each, self._queries, DEPTH, self._texts)
                found[role] = Found(passages, {"query_milliseconds": round(milliseconds, 2)})
            elif isinstance(each, BaseEmbedding) and len(self._texts) <= INDEXED:
                found[role] = self._through_chroma(each)
            else:
                exact[role] = each
        found |= self._exactly(exact)
        return {role: found[role] for role in roles}

    def _through_chroma(self, model: BaseEmbedding) -> Found:
        corpus = self._corpus(model)
        passages, agreement, milliseconds = corpus.rank(DEPTH)
        return Found(passages, corpus_details(corpus, agreement) | {"query_milliseconds": round(milliseconds, 2)})

    def _exactly(self, roles: Mapping[str, Candidate]) -> dict[str, Found]:
        """Rank all passages by each candidate, in one pass over the questions."""
        from tqdm.auto import tqdm

        found = {role: Found([], self._details(each)) for role, each in roles.items()}
        mixed = [role for role, each in roles.items() if isinstance(each, Hybrid)]
        fusions = {role: Fusion.from_dict(found[role].details["fusion"]) for role in mixed}
        words = self._bm25() if fusions or "bm25" in roles.values() else None
        corpora = {role: self._corpus(model_of(each)) for role, each in roles.items() if each != "bm25"}
        seconds: dict[str, float] = defaultdict(float)
        step = questions_at_once(len(self._texts))
        blocks = range(0, len(self._queries), step)
        ids = list(self._texts)
        quiet = not self._show_progress or len(self._texts) <= INDEXED
        for start in tqdm(blocks, desc="searching", unit="block", disable=quiet, dynamic_ncols=True):
            queries = self._queries[start : start + step]
            by_words: list[WordScores] = []
            firsts: dict[str, list[NDArray[np.intp]]] = {}
            with _timed(seconds, BM25_ROLE):
                if words is not None:
                    by_words = list(words.search(queries))
                    firsts[BM25_ROLE] = [top_k(each.scores, DEPTH, above=0.0) for each in by_words]
            similarities: dict[str, NDArray[np.float32]] = {}
            for name, corpus in {str(id(each)): each for each in corpora.values()}.items():
                with _timed(seconds, name):
                    similarities[name] = corpus.block(start, start + step)
                    firsts[name] = [top_k(row, DEPTH) for row in similarities[name]]
            for role in roles:
                name = str(id(corpora[role])) if role in corpora else BM25_ROLE
                with _timed(seconds, f"mix {role}"):
                    if role in fusions:
                        pairs = zip(firsts[name], firsts[BM25_ROLE], strict=True)
                        found[role].passages += self._mixed(fusions[role], similarities[name], by_words, list(pairs))
                    else:
                        found[role].passages += [[ids[place] for place in row] for row in firsts[name]]
        for role, value in found.items():
            taken = seconds[f"mix {role}"] + (seconds[BM25_ROLE] if role in fusions or role not in corpora else 0.0)
            embedding = corpora[role].query_milliseconds if role in corpora else 0.0
            taken += seconds[str(id(corpora[role]))] if role in corpora else 0.0
            value.details["query_milliseconds"] = round(embedding + 1000 * taken / len(self._queries), 2)
        return found

    def _mixed(
        self,
        fusion: Fusion,
        similarities: NDArray[np.float32],
        by_words: Sequence[WordScores],
        firsts: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    ) -> list[list[str]]:
        """The passages of a block of questions, by an embedding and BM25 mixed."""
        ids = list(self._texts)
        known = firsts if fusion.depth <= DEPTH else [None] * len(by_words)
        pools = (
            pool_of(ids, row, words, fusion.depth, places)
            for row, words, places in zip(similarities, by_words, known, strict=True)
        )
        return [[passage for passage, _ in fusion.ranked(pool)[:DEPTH]] for pool in pools]

    def _details(self, candidate: Candidate) -> dict[str, Any]:
        """What a candidate takes, and how it mixes."""
        if isinstance(candidate, str):
            words = self._bm25()
            return {"index_seconds": round(self._words_seconds, 2), "index_megabytes": round(words.megabytes, 1)}
        corpus = self._corpus(model_of(candidate))
        if not isinstance(candidate, Hybrid):
            agreement = corpus.agreement(SAMPLED, ASKED, self._seed)
            return corpus_details(corpus, agreement) | {"agreement_passages": SAMPLED}
        words = self._bm25()
        fusion, learned = self._fusion(candidate, corpus, words)
        details = corpus_details(corpus) | {"fusion": fusion.to_dict()}
        details["index_seconds"] = round(corpus.seconds + self._words_seconds, 2)
        details["index_megabytes"] = round(corpus.megabytes + words.megabytes, 1)
        return details | ({"fusion_learned_on": learned.questions} if learned is not None else {})

    def _corpus(self, model: BaseEmbedding) -> EmbeddedCorpus:
        if id(model) not in self._corpora:
            self._corpora[id(model)] = EmbeddedCorpus(model, self._texts, self._queries, self._show_progress)
        return self._corpora[id(model)]

    def _bm25(self) -> BM25:
        if self._words is None:
            began = time.monotonic()
            self._words = BM25(self._texts)
            self._words_seconds = time.monotonic() - began
        return self._words

    def _fusion(self, hybrid: Hybrid, corpus: EmbeddedCorpus, words: BM25) -> tuple[Fusion, LearnedFusion | None]:
        if hybrid.fusion is not None:
            return hybrid.fusion, None
        kept = getattr(hybrid.embed_model, "fusion", None)
        if kept and not set(kept.get("asked", ())) & {question_hash(query) for query in self._queries}:
            return Fusion.from_dict(kept), None
        learned = fusion_on_dev(self._dataset, self._split, corpus, words, self._seed)
        return (learned.fusion, learned) if learned is not None else (Fusion(), None)


def corpus_details(corpus: EmbeddedCorpus, agreement: float | None = None) -> dict[str, Any]:
    """What an embedding's index takes."""
    return ({"exact_agreement": round(agreement, 4)} if agreement is not None else {}) | {
        "index_seconds": round(corpus.seconds, 2),
        "dimension": corpus.dimension,
        "index_megabytes": round(corpus.megabytes, 1),
    }


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] += time.monotonic() - began
