"""Candidates on the same questions: each is searched as an app would search it, then judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import BASELINE, DEPTH, Comparison, judge
from rag_ft.evaluation.metrics import DEFAULT_METRICS
from rag_ft.evaluation.search import Rankings, rank_with_embedding
from rag_ft.evaluation.verdict import VerdictRules
from rag_ft.retrieval.bm25 import BM25

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


def compare(
    dataset: QADataset,
    baseline: BaseEmbedding,
    candidates: Sequence[BaseEmbedding] | BaseEmbedding,
    *,
    split: str = "test",
    name: str = "",
    metrics: Sequence[str] = DEFAULT_METRICS,
    rules: VerdictRules | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Comparison:
    """Compare embeddings on the questions of one split, each through its own Chroma index, and BM25.

    Args:
        dataset: with questions in the split; the whole corpus is searched.
        baseline: the embedding in use.
        candidates: one or several that might replace it.
        split: whose questions are asked.
        name: of the dataset, for the report.
        metrics: names like `ndcg@10`; the headline metric is always among them.
        rules: of the verdict.
        seed: of the bootstrap.
        show_progress: progress bars while passages are embedded.

    Raises:
        InputError: where the split has no question.
    """
    qrels = dataset.require(split)
    candidates = candidates if isinstance(candidates, Sequence) else [candidates]
    if not candidates:
        raise InputError("there is no candidate to compare with the baseline: give at least one")
    models = {BASELINE: baseline} | {
        "candidate" if place == 0 else f"candidate-{place + 1}": model for place, model in enumerate(candidates)
    }
    texts = dataset.passage_texts
    queries = [dataset.queries[query].text for query in qrels]
    found: dict[str, Rankings] = {
        role: rank_with_embedding(model, list(texts), list(texts.values()), queries, DEPTH, show_progress)
        for role, model in models.items()
    }
    found["bm25"] = Rankings(BM25(texts).rank(queries, DEPTH), 1.0, 0.0, 0.0, 0)
    names = {role: display_name(model) for role, model in models.items()} | {"bm25": "bm25"}
    return judge(dataset, split, {role: value.passages for role, value in found.items()}, names, name, metrics, seed, {
        role: {
            "exact_agreement": round(value.exact_agreement, 4),
            "index_seconds": round(value.index_seconds, 2),
            "query_milliseconds": round(value.query_milliseconds, 2),
            "dimension": value.dimension,
        }
        for role, value in found.items()
        if role != "bm25"
    }, rules)  # fmt: skip


def display_name(model: BaseEmbedding) -> str:
    """A model's name for people: the last part of a folder, a hub name as it is."""
    path = Path(model.model_name)
    return path.name if path.is_dir() else model.model_name
