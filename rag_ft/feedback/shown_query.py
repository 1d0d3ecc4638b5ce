"""A query whose results were shown to a person, with the votes and picks that followed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rag_ft.feedback.variants import PREFERENCES, VARIANTS, Preference, Variant, other

CREDIT: dict[Preference, float] = {"a": -1.0, "b": 1.0, "tie": 0.0, "neither": 0.0}


@dataclass(frozen=True, kw_only=True)
class ShownResults:
    """What was shown for a query: one list of passages, or the ranking or answer of each variant.

    Attributes:
        order: the variants in the order in which they were shown.
        passages: ids of the passages, if a single list was shown.
        teams: for each of these passages the variant that placed it.
        variant: the only variant that was shown.
        rankings: variant -> ids of its passages.
        names: variant -> the name of its model.
        milliseconds: variant -> its response time.
        answers: variant -> its answer.
        judge_preferences: the preference of the LLM judge for each order of the two answers.
        failed: variant -> why it has no results.

    Example:
        >>> from rag_ft.feedback.shown_query import ShownResults
        >>> ShownResults(variant="a", passages=["x"], teams=["a"]).row()
        {'passages': ['x'], 'teams': ['a'], 'side': 'a'}
    """

    order: Sequence[Variant] | None = None
    passages: Sequence[str] | None = None
    teams: Sequence[Variant] | None = None
    variant: Variant | None = None
    rankings: Mapping[Variant, Sequence[str]] | None = None
    names: Mapping[Variant, str] | None = None
    milliseconds: Mapping[Variant, float] | None = None
    answers: Mapping[Variant, str] | None = None
    judge_preferences: Sequence[Preference] | None = None
    failed: Mapping[Variant, str] | None = None

    def row(self) -> dict[str, Any]:
        """Return the results under the keys that they have in the vote log."""
        stored_keys = {"variant": "side", "judge_preferences": "said"}
        values = {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}
        return {stored_keys.get(name, name): value for name, value in values.items() if value is not None}


@dataclass
class ShownQuery:
    """A query whose results were shown, with its votes and picks.

    Attributes:
        row: the line of the vote log. It is not trusted: each value is checked when it is read.
        vote: the last vote.
        picks: passage id -> the variant in whose ranking it was picked, if known.
        broken_off: variants whose answer was interrupted by an error while it was shown.
    """

    row: Mapping[str, Any]
    vote: Preference | None = None
    picks: dict[str, Variant | None] = field(default_factory=dict)
    broken_off: set[str] = field(default_factory=set)

    @property
    def rankings(self) -> dict[Variant, list[str]]:
        """Variant -> its passages, if both variants were shown."""
        rankings = _mapping(self.row.get("rankings"))
        return {variant: _strings(rankings.get(variant)) for variant in VARIANTS}

    @property
    def passages(self) -> list[str]:
        """The passages of a single list."""
        return _strings(self.row.get("passages"))

    def finders_of(self, passage: str) -> list[Variant]:
        """Return the variants whose rankings contain a passage."""
        return [variant for variant in VARIANTS if passage in self.rankings[variant]]

    def team_of(self, passage: str) -> Variant | None:
        """Return the variant that placed a passage in the single list."""
        teams = _strings(self.row.get("teams"))
        return _variant(dict(zip(self.passages, teams, strict=False)).get(passage))

    @property
    def failed(self) -> set[str]:
        """The variants that failed."""
        return {*map(str, _mapping(self.row.get("failed"))), *self.broken_off}

    @property
    def assigned(self) -> Variant | None:
        """The variant that a split assigned, even if it failed and the other one answered."""
        variant = _variant(self.row.get("side"))
        if variant is None:
            return None
        return other(variant) if other(variant) in _mapping(self.row.get("failed")) else variant

    @property
    def seen(self) -> set[str]:
        """The variants that were shown."""
        if variant := _variant(self.row.get("side")):
            return {variant}
        return set(_strings(self.row.get("order")) or _strings(self.row.get("teams"))) & set(VARIANTS)

    def credit(self) -> float | None:
        """Return -1 (a), 0 or 1 (b), or None if undecided or only one variant was seen. A vote overrides picks."""
        if _mapping(self.row.get("failed")):
            return None  # only one variant was seen
        if self.vote is not None:
            return CREDIT[self.vote]
        if not self.picks:
            return None
        total = sum(self._credit_of(passage) for passage in self.picks)
        return float((total > 0) - (total < 0))

    def _credit_of(self, passage: str) -> int:
        """Return the credit of a pick: to the team of an interleaved list, or to the better of two ranks."""
        if passage in self.passages:
            return {"a": -1, "b": 1, None: 0}[self.team_of(passage)]
        ranks = {
            variant: ranking.index(passage) if passage in ranking else math.inf
            for variant, ranking in self.rankings.items()
        }
        return (ranks["a"] > ranks["b"]) - (ranks["a"] < ranks["b"])

    def rating(self, picks_count: bool) -> float | None:
        """Return 1 (good), 0 or -1 (bad) for the only variant that was seen.

        Args:
            picks_count: whether people pick passages at all. If so, no pick counts as 0.
        """
        if self.vote is not None:
            return {self.row.get("side"): 1.0, "tie": 0.0}.get(self.vote, -1.0)
        return float(bool(self.picks)) if picks_count and self.passages else None

    def add(self, row: Mapping[str, Any]) -> None:
        """Apply a later event of this query. Invalid events are ignored."""
        event, variant = row.get("event"), _variant(row.get("side"))
        if event == "vote" and row.get("better") in PREFERENCES:
            self.vote = row["better"]
        elif event == "pick" and isinstance(passage := row.get("passage"), str):
            finders = self.finders_of(passage)
            if passage in self.passages or (variant in finders if variant else finders):
                self.picks[passage] = variant
        elif event == "unpick":
            self.picks.pop(str(row.get("passage")), None)
        elif event == "failed" and variant:
            self.broken_off.add(variant)


def shown_queries(rows: Iterable[Mapping[str, Any]]) -> dict[str, ShownQuery]:
    """Return query id -> `ShownQuery` for the rows of a vote log. Invalid rows are ignored."""
    queries: dict[str, ShownQuery] = {}
    for row in rows:
        key = row.get("query")
        if not isinstance(key, str):
            continue
        if row.get("event") == "shown" and isinstance(row.get("question"), str):
            queries.setdefault(key, ShownQuery(row))
        elif key in queries:
            queries[key].add(row)
    return queries


def _variant(value: Any) -> Variant | None:
    return value if value in VARIANTS else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list | tuple) else []
