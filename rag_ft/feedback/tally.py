"""How two sides stand: what people's votes and picks come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rag_ft.ab.sessions import SIDES, Side, other
from rag_ft.feedback.vote_log import BETTER, Better

CREDIT: dict[Better, float] = {"a": -1.0, "b": 1.0, "tie": 0.0, "neither": 0.0}


@dataclass(frozen=True)
class Tally:
    """How two sides stand.

    Attributes:
        queries: that were shown.
        a, b: decided for each side, by a vote or by picks.
        ties: decided for none of them, `neither` among them.
        neither: votes that none of them was any good.
        shown: how often each side was shown, alone or among both.
        failed: how often each side failed.
        credit: session -> -1 (a), 0 or 1 (b) of each of its queries that somebody decided, having seen both sides.
        ratings: side -> session -> 1 (good), 0 or -1 of each of its queries, where a session saw one side alone.
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
        more = f" ({self.neither} of them neither)" if self.neither else ""
        return f"{self.queries} questions shown: a {self.a}, b {self.b}, ties {self.ties}{more}"


@dataclass
class ShownQuery:
    """A question that was shown, and what people made of it.

    Attributes:
        row: as it was written.
        vote: the last one.
        picks: passage id -> in whose ranking it was picked, where that was said.
        broke: sides whose answer broke off later.
    """

    row: Mapping[str, Any]
    vote: Better | None = None
    picks: dict[str, Side | None] = field(default_factory=dict)
    broke: set[str] = field(default_factory=set)

    @property
    def rankings(self) -> dict[Side, list[str]]:
        """Side -> the passages that it showed, where both were shown apart."""
        return {side: _names(_mapping(self.row.get("rankings")).get(side)) for side in SIDES}

    @property
    def passages(self) -> list[str]:
        """The passages of one list."""
        return _names(self.row.get("passages"))

    def finders_of(self, passage: str) -> list[Side]:
        """The sides whose rankings hold a passage."""
        return [side for side in SIDES if passage in self.rankings[side]]

    def team_of(self, passage: str) -> Side | None:
        """Who placed a passage in the one list."""
        teams = _names(self.row.get("teams"))
        team = dict(zip(self.passages, teams, strict=False)).get(passage)
        return team if team in SIDES else None  # type: ignore[return-value]

    @property
    def failed(self) -> set[str]:
        """The sides that failed."""
        return {*map(str, _mapping(self.row.get("failed"))), *self.broke}

    @property
    def assigned(self) -> Side | None:
        """Whose turn it was in a split, whoever answered in the end."""
        side = self.row.get("side")
        if side not in SIDES:
            return None
        return other(side) if other(side) in _mapping(self.row.get("failed")) else side

    @property
    def seen(self) -> set[str]:
        """The sides that were seen."""
        if self.row.get("side") in SIDES:
            return {str(self.row["side"])}
        return set(_names(self.row.get("order")) or _names(self.row.get("teams"))) & set(SIDES)

    def credit(self) -> float | None:
        """-1 (a), 0 or 1 (b), where both sides were seen and somebody decided; a vote counts more than picks."""
        if _mapping(self.row.get("failed")):
            return None  # one side was seen: that says nothing of the other
        if self.vote is not None:
            return CREDIT[self.vote]
        if not self.picks:
            return None
        return float(_sign(sum(self._credit_of(passage) for passage in self.picks)))

    def _credit_of(self, passage: str) -> int:
        """Of a pick: for who placed it in an interleaved list; for who ranked it higher of two rankings."""
        if passage in self.passages:
            return {"a": -1, "b": 1, None: 0}[self.team_of(passage)]
        places = {
            side: ranking.index(passage) if passage in ranking else math.inf for side, ranking in self.rankings.items()
        }
        return (places["a"] > places["b"]) - (places["a"] < places["b"])

    def rating(self, picks_count: bool) -> float | None:
        """1 (good), 0 or -1 (bad) of the one side that was seen.

        Args:
            picks_count: whether people pick at all: then no pick is a word too.
        """
        if self.vote is not None:
            return {self.row.get("side"): 1.0, "tie": 0.0}.get(self.vote, -1.0)
        return float(bool(self.picks)) if picks_count and self.passages else None


def shown_queries(rows: Iterable[Mapping[str, Any]]) -> dict[str, ShownQuery]:
    """Query id -> what was shown, and what people made of it; rows that say nothing sensible are left out."""
    queries: dict[str, ShownQuery] = {}
    for row in rows:
        key, event = row.get("query"), row.get("event")
        if not isinstance(key, str):
            continue
        if event == "shown" and isinstance(row.get("question"), str):
            queries.setdefault(key, ShownQuery(row))
        elif (query := queries.get(key)) is None:
            continue
        elif event == "vote" and row.get("better") in BETTER:
            query.vote = row["better"]
        elif event == "pick" and isinstance(passage := row.get("passage"), str):
            side = row.get("side") if row.get("side") in SIDES else None
            if passage in query.passages or any(
                passage in ranking for each, ranking in query.rankings.items() if side in (None, each)
            ):
                query.picks[passage] = side
        elif event == "unpick":
            query.picks.pop(str(row.get("passage")), None)
        elif event == "failed" and row.get("side") in SIDES:
            query.broke.add(row["side"])
    return queries


def tally_of(rows: Iterable[Mapping[str, Any]]) -> Tally:
    """How the sides stand by the rows of a file of votes."""
    queries = shown_queries(rows)
    splits = [query for query in queries.values() if query.assigned is not None]
    paired = [query for query in queries.values() if query.assigned is None]
    picks_count = any(query.picks for query in splits)
    credit: dict[str, list[float]] = {}
    ratings: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    for query in paired:
        if (value := query.credit()) is not None:
            credit.setdefault(str(query.row.get("session")), []).append(value)
    for query in splits:
        if (value := query.rating(picks_count)) is not None:
            ratings[str(query.assigned)].setdefault(str(query.row.get("session")), []).append(value)
    decided = Counter(value for values in credit.values() for value in values)
    voted = Counter(query.vote for query in splits)
    seen = Counter(side for query in queries.values() for side in query.seen)
    failed = Counter(side for query in queries.values() for side in query.failed)
    neither = sum(query.vote == "neither" for query in queries.values())
    return Tally(
        queries=len(queries),
        a=decided[-1.0] + voted["a"],
        b=decided[1.0] + voted["b"],
        ties=decided[0.0] + voted["tie"] + voted["neither"],
        neither=neither,
        shown={side: seen[side] for side in SIDES},
        failed={side: failed[side] for side in SIDES},
        credit=credit,
        ratings=ratings,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
