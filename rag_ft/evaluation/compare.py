"""Compare candidates on the same questions: search with each as an app would, then score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.options import CompareOptions
from rag_ft.evaluation.roles import BASELINE, BM25_ROLE, CANDIDATE, HYBRID_PREFIX
from rag_ft.evaluation.runs.candidate_runner import CandidateRunner
from rag_ft.evaluation.runs.candidates import Hybrid
from rag_ft.evaluation.scoring import score_runs
from rag_ft.evaluation.training_notes import (
    base_kept,
    notes_on_base_models,
    notes_on_gains,
    notes_on_training_questions,
)
from rag_ft.evaluation.truncation import min_characters_read

if TYPE_CHECKING:
    from rag_ft.evaluation.runs.candidates import Candidate


def compare(
    dataset: QADataset,
    baseline: Candidate,
    candidates: Sequence[Candidate] | Candidate,
    *,
    split: str = "test",
    options: CompareOptions | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Comparison:
    """Compare retrievers on the questions of a split. Embeddings search a Chroma index; BM25 is always included.

    Args:
        dataset: the dataset; the whole corpus is searched.
        baseline: the retriever in use: an embedding, a `Hybrid`, a LlamaIndex retriever whose nodes have the ids of
            the passages, or `"bm25"`.
        candidates: one or more retrievers that may replace it.
        split: the split of the questions.
        options: the name for the report, metrics, limits of the verdict, and whether hybrids are added.
        seed: seeds every random choice.
        show_progress: shows progress bars while passages are embedded.

    Raises:
        InputError: if the split has no question, or a model was trained on its test questions.
        OutsideError: if an embedding or a retriever fails.

    Example:
        >>> from rag_ft import FineTunedEmbedding, Passage, QADataset, Query, compare
        >>> passages = {"a": Passage("a", "Visitors wear a badge."), "b": Passage("b", "A Kittiwake is a claim form.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "How do I get my money back?")}, {"test": {"q": {"b": 1}}})
        >>> comparison = compare(dataset, "bm25", FineTunedEmbedding.load("local"))
        >>> comparison.models["baseline"]["mrr@10"], comparison.models["candidate"]["mrr@10"]
        (0.0, 1.0)
        >>> comparison.verdict, comparison.reasons["candidate"]
        ('inconclusive', '1 question is too few for a verdict: at least 50 are needed')
    """
    dataset.require(split)
    options = options or CompareOptions()
    if isinstance(candidates, str) or not isinstance(candidates, Sequence):
        candidates = [candidates]
    if not candidates:
        raise InputError("candidates is empty: pass at least one retriever to compare with the baseline")
    roles = _roles(baseline, candidates, options.hybrids)
    training_notes = notes_on_training_questions(roles, dataset, split)
    runner = CandidateRunner(dataset, split, seed, show_progress)
    runs, on_dev = runner.run(roles), runner.score_on_dev(roles)
    truncated = min_characters_read(candidates, dataset, split)
    comparison = score_runs(
        dataset, split, runs, options, characters_read=truncated, on_dev=on_dev, base_kept=base_kept(roles), seed=seed
    )
    more_notes = (*training_notes, *notes_on_base_models(roles), *notes_on_gains(roles, comparison.differences))
    return replace(comparison, notes=(*comparison.notes, *more_notes))


def _roles(baseline: Candidate, candidates: Sequence[Candidate], hybrids: bool) -> dict[str, Candidate]:
    """Give each retriever its role, and add hybrids and BM25."""
    from llama_index.core.base.embeddings.base import BaseEmbedding

    roles: dict[str, Candidate] = {BASELINE: baseline, CANDIDATE: candidates[0]}
    roles |= {f"{CANDIDATE}-{number}": candidate for number, candidate in enumerate(candidates[1:], 2)}
    if hybrids:
        for role in (BASELINE, CANDIDATE):
            if isinstance(model := roles[role], BaseEmbedding):
                roles[HYBRID_PREFIX + role] = Hybrid(model)
    if not any(isinstance(candidate, str) for candidate in roles.values()):
        roles[BM25_ROLE] = "bm25"
    return roles
