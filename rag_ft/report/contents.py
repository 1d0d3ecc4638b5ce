"""The contents that the HTML and the Markdown form of a report share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.embedding.training_summary import TrainingSummary
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.comparison_table import best_score
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.rank_changes import RankChange, check_same_questions, compute_rank_changes
from rag_ft.evaluation.roles import BM25_ROLE
from rag_ft.evaluation.slices import SLICE_TITLES, Slice
from rag_ft.report.judged_answers import AnswerComparison
from rag_ft.report.reproducibility import how_to_reproduce

HEADLINES = {
    "ship": "Ship it: retrieval improved",
    "inconclusive": "Not decided: no clear result yet",
    "keep-baseline": "Keep the baseline: no worthwhile gain",
}


@dataclass(frozen=True, kw_only=True)
class ReportContents:
    """A comparison and the other contents of its report.

    Attributes:
        comparison: a comparison with at least one candidate.
        dataset: the dataset of the comparison.
        training: the contents of the model's `rag_ft.json`.
        title: shown above the verdict.
        command: the command that reproduces the comparison.
        answers: answers of two query engines that an LLM judged.

    Raises:
        InputError: if the comparison has no candidate, or was made on another dataset.
    """

    comparison: Comparison
    dataset: QADataset | None = None
    training: Mapping[str, Any] | None = None
    title: str = ""
    command: str = ""
    answers: AnswerComparison | None = None

    def __post_init__(self) -> None:
        if not self.comparison.candidates:
            raise InputError("the comparison has no candidate: compare at least two models")
        if self.dataset is not None and self.comparison.rankings:
            check_same_questions(self.comparison, self.dataset)

    @cached_property
    def rank_changes(self) -> dict[str, Sequence[RankChange]]:
        """Candidate -> rank change of each question; empty if the dataset or the rankings are missing."""
        if self.dataset is None or not self.comparison.rankings:
            return {}
        return {role: compute_rank_changes(self.comparison, self.dataset, role) for role in self.comparison.candidates}

    @property
    def slices(self) -> dict[str, Slice]:
        """Title of each slice that has questions -> its metrics: seen and unseen documents first."""
        titled = {SLICE_TITLES.get(name, name): figures for name, figures in self.comparison.slices.items()}
        return {title: figures for title, figures in (titled | self.comparison.aspects).items() if figures.queries}

    def template_values(self) -> dict[str, Any]:
        """Return the values that both templates use."""
        comparison = self.comparison
        return {
            "comparison": comparison,
            "candidate": comparison.candidates[0],
            "title": self.title,
            "headlines": HEADLINES,
            "headline": HEADLINE,
            "best": {metric: best_score(comparison.models, metric) for metric in comparison.metrics},
            "bm25_wins": self._bm25_wins(),
            "slices": self.slices,
            "changes": {
                role: {kind: sum(change.kind == kind for change in changes) for kind in ("win", "loss", "same")}
                for role, changes in self.rank_changes.items()
            },
            "summary": self._summary(),
            "answers": self.answers,
            "command": self.command,
            "reproduce": how_to_reproduce(comparison, self.dataset, self.training),
        }

    def _summary(self) -> TrainingSummary | None:
        """Return the summary of the training; None if the report has none."""
        return TrainingSummary.of(self.training) if self.training and self.training.get("training") else None

    def _bm25_wins(self) -> bool:
        """Return whether BM25 scores higher than the first candidate, which readers should know before shipping it."""
        models = self.comparison.models
        return BM25_ROLE in models and models[BM25_ROLE][HEADLINE] > models[self.comparison.candidates[0]][HEADLINE]
