"""Candidates on the same questions: each is searched as an app would search it, then judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import carve_dev
from rag_ft.errors import InputError
from rag_ft.evaluation.aspects import characters_read_by
from rag_ft.evaluation.comparison import BASELINE, DEPTH, Comparison, judge, resampling_groups
from rag_ft.evaluation.learning_fusion import LearnedFusion, learn_fusion
from rag_ft.evaluation.metrics import DEFAULT_METRICS
from rag_ft.evaluation.search import EmbeddedCorpus, rank_with_retriever
from rag_ft.evaluation.verdict import VerdictRules
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.fusion import Fusion
from rag_ft.retrieval.pooling import pools_of

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding

    Candidate: TypeAlias = "BaseEmbedding | Hybrid | BaseRetriever | Literal['bm25']"


@dataclass(frozen=True)
class Hybrid:
    """A candidate of `compare`: an embedding and BM25, their lists mixed.

    Attributes:
        embed_model: any LlamaIndex embedding.
        fusion: how; None: as the model's folder says, else as it is learned on dev questions, else reciprocal ranks.
    """

    embed_model: BaseEmbedding
    fusion: Fusion | None = None


def compare(
    dataset: QADataset,
    baseline: Candidate,
    candidates: Sequence[Candidate] | Candidate,
    *,
    split: str = "test",
    name: str = "",
    metrics: Sequence[str] = DEFAULT_METRICS,
    rules: VerdictRules | None = None,
    hybrids: bool = True,
    seed: int = 0,
    show_progress: bool = False,
) -> Comparison:
    """Compare retrievers on the questions of one split: embeddings through a Chroma index, and BM25 beside them.

    Args:
        dataset: with questions in the split; the whole corpus is searched.
        baseline: what is in use: an embedding, a `Hybrid`, a LlamaIndex retriever whose nodes have the ids of the
            passages, or `"bm25"`.
        candidates: one or several that might replace it, likewise.
        split: whose questions are asked.
        name: of the dataset, for the report.
        metrics: names like `ndcg@10`; the headline metric is always among them.
        rules: of the verdict.
        hybrids: show the baseline and the first candidate mixed with BM25 too, where they are embeddings. The mix is
            learned on dev questions, which must not be those of `split`.
        seed: of the bootstrap.
        show_progress: progress bars while passages are embedded.

    Raises:
        InputError: where the split has no question.
        OutsideError: where an embedding or a retriever fails.
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    dataset.require(split)
    given = list(candidates) if isinstance(candidates, Sequence) and not isinstance(candidates, str) else [candidates]
    if not given:
        raise InputError("there is no candidate to compare with the baseline: give at least one")
    roles: dict[str, Candidate] = {BASELINE: baseline}
    roles |= {"candidate" if place == 0 else f"candidate-{place + 1}": each for place, each in enumerate(given)}
    if hybrids:
        for role in (BASELINE, "candidate"):
            if isinstance(model := roles[role], BaseEmbedding):
                roles[f"hybrid-{role}"] = Hybrid(model)
    if "bm25" not in roles.values():
        roles["bm25"] = "bm25"
    searches = _Searches(dataset, split, seed, show_progress)
    found = {role: searches.search(each) for role, each in roles.items()}
    return judge(
        dataset,
        split,
        {role: value.passages for role, value in found.items()},
        {role: display_name(each) for role, each in roles.items()},
        name,
        metrics,
        seed,
        {role: value.details for role, value in found.items()},
        rules,
        characters_read_by(given, dataset, split),
    )


@dataclass(frozen=True)
class _Found:
    passages: list[list[str]]
    details: dict[str, Any]


class _Searches:
    """Searches all questions with any candidate; what several of them need is made once."""

    def __init__(self, dataset: QADataset, split: str, seed: int, show_progress: bool) -> None:
        self._dataset, self._split, self._seed, self._show_progress = dataset, split, seed, show_progress
        self._texts = dataset.passage_texts
        self._queries = [dataset.queries[query].text for query in dataset.qrels[split]]
        self._corpora: dict[int, EmbeddedCorpus] = {}
        self._words: tuple[BM25, float] | None = None

    def search(self, candidate: Candidate) -> _Found:
        from llama_index.core.base.embeddings.base import BaseEmbedding

        if isinstance(candidate, BaseEmbedding):
            return self._embedding(candidate)
        if isinstance(candidate, Hybrid):
            return self._hybrid(candidate)
        if isinstance(candidate, str):
            return self._bm25()
        passages, milliseconds = rank_with_retriever(candidate, self._queries, DEPTH, self._texts)
        return _Found(passages, {"query_milliseconds": round(milliseconds, 2)})

    def _corpus(self, model: BaseEmbedding) -> EmbeddedCorpus:
        if id(model) not in self._corpora:
            self._corpora[id(model)] = EmbeddedCorpus(model, self._texts, self._queries, self._show_progress)
        return self._corpora[id(model)]

    def _embedding(self, model: BaseEmbedding) -> _Found:
        corpus = self._corpus(model)
        passages, agreement, milliseconds = corpus.rank(DEPTH)
        return _Found(passages, {
            "exact_agreement": round(agreement, 4),
            "index_seconds": round(corpus.seconds, 2),
            "query_milliseconds": round(milliseconds, 2),
            "dimension": corpus.dimension,
            "index_megabytes": round(corpus.megabytes, 1),
        })  # fmt: skip

    def _bm25(self) -> _Found:
        words, seconds = self._word_index()
        began = time.monotonic()
        passages = words.rank(self._queries, DEPTH)
        return _Found(passages, {
            "index_seconds": round(seconds, 2),
            "query_milliseconds": _each(time.monotonic() - began, self._queries),
            "index_megabytes": round(words.megabytes, 1),
        })  # fmt: skip

    def _word_index(self) -> tuple[BM25, float]:
        if self._words is None:
            began = time.monotonic()
            self._words = BM25(self._texts), 0.0
            self._words = self._words[0], time.monotonic() - began
        return self._words

    def _hybrid(self, hybrid: Hybrid) -> _Found:
        corpus, (words, seconds) = self._corpus(hybrid.embed_model), self._word_index()
        fusion, learned = self._fusion(hybrid, corpus, words)
        began = time.monotonic()
        pools = pools_of(corpus, words, self._queries, fusion.depth)
        passages = [[passage for passage, _ in fusion.ranked(pool)[:DEPTH]] for pool in pools]
        details: dict[str, Any] = {
            "index_seconds": round(corpus.seconds + seconds, 2),
            "query_milliseconds": corpus.query_milliseconds + _each(time.monotonic() - began, self._queries),
            "dimension": corpus.dimension,
            "index_megabytes": round(corpus.megabytes + words.megabytes, 1),
            "fusion": fusion.to_dict(),
        }
        if learned is not None:
            details["fusion_learned_on"] = learned.questions
        return _Found(passages, details)

    def _fusion(self, hybrid: Hybrid, corpus: EmbeddedCorpus, words: BM25) -> tuple[Fusion, LearnedFusion | None]:
        if hybrid.fusion is not None:
            return hybrid.fusion, None
        if kept := getattr(hybrid.embed_model, "fusion", None):
            return Fusion.from_dict(kept), None
        learned = _learned(self._dataset, self._split, corpus, words, self._seed)
        return (learned.fusion, learned) if learned is not None else (Fusion(), None)


FEWEST_DEV = 20
"""Dev questions under which a mix is not learned."""


def _learned(dataset: QADataset, split: str, corpus: EmbeddedCorpus, words: BM25, seed: int) -> LearnedFusion | None:
    """The mix that is best on dev; None where there are too few dev questions besides those that are asked."""
    if not dataset.qrels.get("dev") and dataset.qrels.get("train"):
        dataset = carve_dev(dataset, seed=seed)
    dev = dataset.qrels.get("dev", {})
    if split == "dev" or len(dev) < FEWEST_DEV:
        return None
    queries = [dataset.queries[query].text for query in dev]
    pools = list(pools_of(corpus, words, queries))
    return learn_fusion(pools, list(dev.values()), resampling_groups(dataset, "dev")[0], seed)


def learn_fusion_of(
    dataset: QADataset, embed_model: BaseEmbedding, *, seed: int = 0, show_progress: bool = False
) -> LearnedFusion:
    """Learn how an embedding and BM25 are mixed best, on the dev questions of a dataset.

    Args:
        dataset: the one that the model was trained on, with its dev split; where it has none, the same questions are
            taken out of train as in training with this seed.
        embed_model: any LlamaIndex embedding.
        seed: of the training.
        show_progress: a progress bar while passages are embedded.

    Raises:
        InputError: where there are under 20 dev questions.
    """
    texts = dataset.passage_texts
    corpus = EmbeddedCorpus(embed_model, texts, [], show_progress)
    learned = _learned(dataset, "", corpus, BM25(texts), seed)
    if learned is None:
        raise InputError(
            f"the dataset has {len(dataset.qrels.get('dev', {}))} dev questions: at least {FEWEST_DEV} are needed to "
            "learn how lists are mixed"
        )
    return learned


def _each(seconds: float, queries: Sequence[str]) -> float:
    return round(1000 * seconds / max(1, len(queries)), 2)


def reach_of(candidate: Candidate) -> int:
    """Tokens that a candidate reads of a passage; 0 where it has no such bound, or none is known."""
    model = candidate.embed_model if isinstance(candidate, Hybrid) else candidate
    return int(getattr(model, "max_length", None) or 0)


def display_name(candidate: Candidate) -> str:
    """A name for people: the last part of a folder, a hub name as it is."""
    if isinstance(candidate, str):
        return candidate
    if isinstance(candidate, Hybrid):
        return f"hybrid:{display_name(candidate.embed_model)}"
    name = getattr(candidate, "model_name", None) or getattr(candidate, "name", None)
    if not name:
        return type(candidate).__name__
    path = Path(name)
    return path.name if path.is_dir() else str(name)
