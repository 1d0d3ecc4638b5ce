"""Search all questions with every candidate, as an app would."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.evaluation.retriever_choice import MIN_CHOICE_QUESTIONS
from rag_ft.evaluation.runs.candidates import Hybrid, display_name, kind_of, model_of
from rag_ft.evaluation.runs.dev_fusion import DevPools, question_hash
from rag_ft.evaluation.runs.dev_split import DevSplit, dev_split_of
from rag_ft.evaluation.runs.embedded_corpus import EmbeddedCorpus, query_batch_size
from rag_ft.evaluation.runs.retriever_run import run_retriever
from rag_ft.evaluation.runs.run import Run
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.fusion import Fusion
from rag_ft.retrieval.pooling import make_pool
from rag_ft.retrieval.top_k import MAX_RANK, top_k

if TYPE_CHECKING:
    import numpy as np
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from rag_ft.evaluation.runs.candidates import Candidate

MAX_INDEXED = 20_000
"""Maximum number of passages that are all searched through a Chroma index. With more, metrics come from exact search,
and its agreement with a Chroma index is measured on a sample."""

AGREEMENT_PASSAGES, AGREEMENT_QUESTIONS = 5_000, 500
"""Number of passages and of questions in that sample."""


@dataclass(frozen=True)
class _Scored:
    """The scores of all passages for a block of questions, and the positions of the best ones."""

    rows: Iterable[NDArray[np.float32]]
    tops: Sequence[NDArray[np.intp]]


class CandidateRunner:
    """Runs every candidate on all questions of a split. Shared work is done once.

    Args:
        dataset: the dataset; the whole corpus is searched.
        split: the split of the questions.
        seed: seeds every random choice.
        show_progress: shows progress bars.
    """

    def __init__(self, dataset: QADataset, split: str, seed: int, show_progress: bool) -> None:
        self._dataset, self._split, self._seed, self._show_progress = dataset, split, seed, show_progress
        self._texts = dataset.passage_texts
        self._ids = list(self._texts)
        self._queries = [dataset.queries[query].text for query in dataset.qrels[split]]
        self._corpora: dict[int, EmbeddedCorpus] = {}
        self._dev: DevSplit | None = None
        self._dev_pools: dict[int, DevPools] = {}
        self._bm25: BM25 | None = None
        self._bm25_seconds = 0.0

    def run(self, candidates: Mapping[str, Candidate]) -> dict[str, Run]:
        """Return role -> its run."""
        from llama_index.core.base.base_retriever import BaseRetriever
        from llama_index.core.base.embeddings.base import BaseEmbedding

        self._dev = dev_split_of(self._dataset, self._split, map(model_of, candidates.values()), self._seed)
        runs: dict[str, Run] = {}
        exact: dict[str, Candidate] = {}
        for role, candidate in candidates.items():
            if isinstance(candidate, BaseRetriever):
                runs[role] = run_retriever(candidate, self._queries, MAX_RANK, self._texts)
            elif isinstance(candidate, BaseEmbedding) and len(self._texts) <= MAX_INDEXED:
                runs[role] = self._run_index(candidate)
            else:
                exact[role] = candidate
        runs |= self._run_exactly(exact)
        return {
            role: Run(runs[role].rankings, display_name(candidate), runs[role].details | {"kind": kind_of(candidate)})
            for role, candidate in candidates.items()
        }

    def score_on_dev(self, candidates: Mapping[str, Candidate]) -> tuple[dict[str, float], int] | None:
        """Return nDCG@10 of candidates that were run on the dev questions, and how many there are; None if too few.

        Questions are weighted, so that their sources have the proportions of the compared split.

        The fusion of a hybrid is chosen on other dev questions than those that score it.
        """
        from llama_index.core.base.base_retriever import BaseRetriever

        if (dev := self._dev) is None or dev.weights is None or (dev.weights > 0).sum() < MIN_CHOICE_QUESTIONS:
            return None
        ndcg: dict[str, NDArray[np.float64]] = {}
        for role, candidate in candidates.items():
            if isinstance(candidate, BaseRetriever):
                ndcg[role] = dev.ndcg(run_retriever(candidate, dev.texts, MAX_RANK, self._texts).rankings)
            elif isinstance(candidate, str):
                ndcg[role] = dev.ndcg(self._load_bm25().rank(dev.texts, MAX_RANK))
            elif isinstance(candidate, Hybrid):
                pools, fusion = self._pools_of(self._corpus_of(candidate.embed_model), dev), candidate.fusion
                ndcg[role] = pools.learned_fused() if fusion is None else pools.fused(fusion)
            else:
                scores = self._corpus_of(candidate).scores(dev.texts)
                ndcg[role] = dev.ndcg([self._ids[place] for place in top_k(row, MAX_RANK)] for row in scores)
        return {role: float(values @ dev.weights) for role, values in ndcg.items()}, int((dev.weights > 0).sum())

    def _pools_of(self, corpus: EmbeddedCorpus, dev: DevSplit) -> DevPools:
        if id(corpus) not in self._dev_pools:
            self._dev_pools[id(corpus)] = DevPools(dev, corpus, self._load_bm25())
        return self._dev_pools[id(corpus)]

    def _run_index(self, model: BaseEmbedding) -> Run:
        """Search through a Chroma index."""
        corpus = self._corpus_of(model)
        rankings, agreement, milliseconds = corpus.rank(MAX_RANK)
        details = {"exact_agreement": round(agreement, 4)} | corpus.details()
        return Run(rankings, details=details | {"query_milliseconds": round(milliseconds, 2)})

    def _run_exactly(self, candidates: Mapping[str, Candidate]) -> dict[str, Run]:
        """Score all passages with each candidate, in one pass over the questions."""
        from tqdm.auto import tqdm

        runs = {role: Run([], details=self._details_of(candidate)) for role, candidate in candidates.items()}
        hybrids = [role for role, candidate in candidates.items() if isinstance(candidate, Hybrid)]
        fusions = {role: Fusion.from_dict(runs[role].details["fusion"]) for role in hybrids}
        corpora = {role: self._corpus_of(model_of(each)) for role, each in candidates.items() if each != "bm25"}
        bm25 = self._load_bm25() if fusions or len(corpora) < len(candidates) else None
        depth = max([MAX_RANK, *(fusion.depth for fusion in fusions.values())])
        scoring: dict[int, float] = defaultdict(float)  # seconds by scorer
        ranking: dict[str, float] = defaultdict(float)  # seconds by role
        step = query_batch_size(len(self._texts))
        blocks = range(0, len(self._queries), step)
        quiet = not self._show_progress or len(self._texts) <= MAX_INDEXED
        for start in tqdm(blocks, desc="searching", unit="block", disable=quiet, dynamic_ncols=True):
            scored: dict[int, _Scored] = {}
            if bm25 is not None:
                with _timed(scoring, id(bm25)):
                    rows = list(bm25.scores(self._queries[start : start + step]))
                    scored[id(bm25)] = _Scored(rows, [top_k(row, depth, above=0.0) for row in rows])
            for corpus in {id(corpus): corpus for corpus in corpora.values()}.values():
                with _timed(scoring, id(corpus)):
                    block = corpus.block(start, start + step)
                    scored[id(corpus)] = _Scored(block, [top_k(row, depth) for row in block])
            for role in candidates:
                with _timed(ranking, role):
                    dense = scored[id(corpora.get(role, bm25))]
                    runs[role].rankings += (
                        self._fuse(fusions[role], dense, scored[id(bm25)]) if role in fusions else self._rank(dense)
                    )
        for role, run in runs.items():
            scorers = {id(corpora.get(role, bm25)), *([id(bm25)] if role in fusions else [])}
            seconds = ranking[role] + sum(scoring[scorer] for scorer in scorers)
            embedding = corpora[role].query_milliseconds if role in corpora else 0.0
            run.details["query_milliseconds"] = round(embedding + 1000 * seconds / len(self._queries), 2)
        return runs

    def _rank(self, scored: _Scored) -> list[list[str]]:
        return [[self._ids[position] for position in top[:MAX_RANK]] for top in scored.tops]

    def _fuse(self, fusion: Fusion, dense: _Scored, sparse: _Scored) -> list[list[str]]:
        pools = (
            make_pool(self._ids, similarities, scores, (near[: fusion.depth], matching[: fusion.depth]))
            for similarities, scores, near, matching in zip(
                dense.rows, sparse.rows, dense.tops, sparse.tops, strict=True
            )
        )
        return [[passage for passage, _ in fusion.rank(pool)[:MAX_RANK]] for pool in pools]

    def _details_of(self, candidate: Candidate) -> dict[str, Any]:
        """Return what a candidate costs, and its fusion."""
        if isinstance(candidate, str):
            bm25 = self._load_bm25()
            return {"index_seconds": round(self._bm25_seconds, 2), "index_megabytes": round(bm25.megabytes, 1)}
        corpus = self._corpus_of(model_of(candidate))
        if not isinstance(candidate, Hybrid):
            agreement = corpus.agreement(AGREEMENT_PASSAGES, AGREEMENT_QUESTIONS, self._seed)
            measured = {"exact_agreement": round(agreement, 4)} | corpus.details()
            return measured | {"agreement_passages": AGREEMENT_PASSAGES}
        bm25 = self._load_bm25()
        fusion, questions = self._fusion_of(candidate, corpus)
        details = corpus.details() | {"fusion": fusion.to_dict()}
        details["index_seconds"] = round(corpus.seconds + self._bm25_seconds, 2)
        details["index_megabytes"] = round(corpus.megabytes + bm25.megabytes, 1)
        return details | ({"fusion_learned_on": questions} if questions else {})

    def _corpus_of(self, model: BaseEmbedding) -> EmbeddedCorpus:
        if id(model) not in self._corpora:
            self._corpora[id(model)] = EmbeddedCorpus(model, self._texts, self._queries, self._show_progress)
        return self._corpora[id(model)]

    def _load_bm25(self) -> BM25:
        if self._bm25 is None:
            started = time.monotonic()
            self._bm25 = BM25(self._texts)
            self._bm25_seconds = time.monotonic() - started
        return self._bm25

    def _fusion_of(self, hybrid: Hybrid, corpus: EmbeddedCorpus) -> tuple[Fusion, int]:
        """Return the fusion of a hybrid, and the number of questions that it was learned on here."""
        if hybrid.fusion is not None:
            return hybrid.fusion, 0
        stored = getattr(hybrid.embed_model, "fusion", None)
        if stored and not set(stored.get("asked", ())) & {question_hash(query) for query in self._queries}:
            return Fusion.from_dict(stored), 0
        if self._dev is None or self._dev.weights is None:
            return Fusion(), 0
        learned = self._pools_of(corpus, self._dev).learned
        return learned.fusion, learned.questions


@contextmanager
def _timed(seconds: dict[Any, float], name: object) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] += time.monotonic() - started
