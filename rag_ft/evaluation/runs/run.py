"""A run: the passages that one system ranked for each query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """A run in TREC's sense: the passages that a system ranked for each query.

    Attributes:
        rankings: passage ids for each query, best first, in the order of the split's qrels.
        name: the name of the system, for tables; its role if empty.
        details: other measurements. `query_milliseconds` and `dimension` count in the verdict, and `kind` (see
            `kind_of`) in the conclusion.

    Example:
        >>> from rag_ft.evaluation import Run
        >>> Run([["a", "b"], ["b"]], "my-model").rankings[1]
        ['b']
    """

    rankings: list[list[str]]
    name: str = ""
    details: dict[str, Any] = field(default_factory=dict)
