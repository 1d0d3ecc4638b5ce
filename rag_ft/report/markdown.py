"""A comparison as Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.rank_changes import largest
from rag_ft.report.contents import ReportContents
from rag_ft.report.judged_answers import AnswerComparison
from rag_ft.report.rendering import template_environment

MAX_CHANGES = 5
"""Maximum number of wins, and of regressions, to list."""


def to_markdown(
    comparison: Comparison,
    dataset: QADataset | None = None,
    training: Mapping[str, Any] | None = None,
    title: str = "",
    command: str = "",
    answers: AnswerComparison | None = None,
) -> str:
    """Return a comparison as Markdown. The arguments are those of `write_report`, except the file.

    Raises:
        InputError: if the comparison has no candidate, or was made on another dataset.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import Run, score_runs
        >>> from rag_ft.report import to_markdown
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "How do I get holidays?")}, {"test": {"q": {"a": 1}}})
        >>> comparison = score_runs(dataset, "test", {"baseline": Run([["b", "a"]]), "candidate": Run([["a", "b"]])})
        >>> print(to_markdown(comparison, dataset).splitlines()[0])
        ## Keep the baseline for now
    """
    contents = ReportContents(
        comparison=comparison, dataset=dataset, training=training, title=title, command=command, answers=answers
    )
    largest_changes = {
        role: {kind: largest(changes, kind, MAX_CHANGES) for kind in ("win", "loss")}
        for role, changes in contents.rank_changes.items()
    }
    template = template_environment("report", autoescape=False).get_template("report.md.j2")
    text = template.render(**contents.template_values(), largest_changes=largest_changes, dataset=dataset)
    return f"{text.strip()}\n"
