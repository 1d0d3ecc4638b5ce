"""Rows of `dropped.jsonl`: the questions that were left out of a dataset, and why."""

from __future__ import annotations

from rag_ft.dataset.qa_dataset import Query

DroppedRow = dict[str, str]
"""A line of `dropped.jsonl`: query, passage, reason, style."""


def dropped_row(query: Query, passage: str, reason: str) -> DroppedRow:
    """Return the row of `dropped.jsonl` for a question.

    Args:
        query: the question.
        passage: the id or text of its passage; empty if there is none.
        reason: why it was left out.
    """
    return {"query": query.text, "passage": passage, "reason": reason, "style": query.source}
