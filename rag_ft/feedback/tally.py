"""The tally of an A/B test: the votes and picks for each variant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rag_ft.feedback.shown_query import shown_queries
from rag_ft.feedback.variants import VARIANTS


@dataclass(frozen=True)
class Tally:
    """The number of queries that each variant won.

    Attributes:
        queries: number of queries whose results were shown.
        a, b: number of queries that each variant won, by a vote or by picks.
        ties: number of queries that neither variant won, including `neither`.
        neither: number of votes that neither variant was good.
        shown: how often each variant was shown, alone or beside the other.
        failed: how often each variant failed.
        credit: session -> -1 (a), 0 or 1 (b) for each query with a vote or pick that showed both variants.
        ratings: variant -> session -> 1 (good), 0 or -1 for each query that only showed this variant.

    Example:
        >>> from rag_ft.feedback import Tally
        >>> print(Tally(queries=3, a=1, b=2))
        3 questions shown: a 1, b 2, ties 0
    """

    queries: int = 0
    a: int = 0
    b: int = 0
    ties: int = 0
    neither: int = 0
    shown: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    credit: dict[str, list[float]] = field(default_factory=dict)
    ratings: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __str__(self) -> str:
        neither = f" ({self.neither} of them neither)" if self.neither else ""
        return f"{self.queries} questions shown: a {self.a}, b {self.b}, ties {self.ties}{neither}"


def tally_of(rows: Iterable[Mapping[str, Any]]) -> Tally:
    """Count the votes and picks in the rows of a vote log."""
    queries = shown_queries(rows).values()
    splits = [query for query in queries if query.assigned is not None]
    picks_count = any(query.picks for query in splits)
    credit: dict[str, list[float]] = {}
    ratings: dict[str, dict[str, list[float]]] = {variant: {} for variant in VARIANTS}
    for query in queries:
        session = str(query.row.get("session"))
        if query.assigned is None:
            if (value := query.credit()) is not None:
                credit.setdefault(session, []).append(value)
        elif (value := query.rating(picks_count)) is not None:
            ratings[query.assigned].setdefault(session, []).append(value)
    decided = Counter(value for values in credit.values() for value in values)
    voted = Counter(query.vote for query in splits)
    seen = Counter(variant for query in queries for variant in query.seen)
    failed = Counter(variant for query in queries for variant in query.failed)
    return Tally(
        queries=len(queries),
        a=decided[-1.0] + voted["a"],
        b=decided[1.0] + voted["b"],
        ties=decided[0.0] + voted["tie"] + voted["neither"],
        neither=sum(query.vote == "neither" for query in queries),
        shown={variant: seen[variant] for variant in VARIANTS},
        failed={variant: failed[variant] for variant in VARIANTS},
        credit=credit,
        ratings=ratings,
    )
