"""What was shown to people and what they picked, one line each, on the disk before anybody goes on."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from rag_ft.errors import InputError
from rag_ft.files import outside_failures

Side = Literal["a", "b"]


@dataclass(frozen=True)
class Standing:
    """How two sides stand.

    Attributes:
        queries: that were shown.
        a, b: votes and picks for each side.
        ties: votes for neither.
        shown: how often each side was shown, alone or among both.
        failed: how often each side failed.
        credit: session -> (credit for b minus credit for a) of each of its queries that somebody decided.
    """

    queries: int
    a: int
    b: int
    ties: int
    shown: dict[str, int]
    failed: dict[str, int]
    credit: dict[str, list[float]]


class Votes:
    """A file of JSON lines that several threads and processes may write; a line counts when it is whole.

    Args:
        file: made where there is none.

    Example:
        >>> import tempfile
        >>> from rag_ft.retrieval.votes import Votes
        >>> votes = Votes(tempfile.mkdtemp() + "/votes.jsonl")
        >>> votes.shown("q1", "interleave", "user-42", "What is a claim?", passages=["x", "y"], teams=["a", "b"])
        >>> votes.pick("q1", "y")
        'b'
        >>> votes.standing().b
        1
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        with outside_failures(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.touch()
        self._lock = FileLock(f"{self.file}.lock")
        self._thread_lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}

    def shown(self, query: str, mode: str, session: str, question: str, **more: Any) -> None:
        """A question was answered.

        Args:
            query: the id under which it can be voted on.
            mode: how both sides came into it.
            session: who asked.
            question: what was asked.
            **more: `side`, or `passages` with their `teams`, or `order`; and which sides `failed`.
        """
        row = {"query": query, "mode": mode, "session": session, "question": question, **more}
        self._known[query] = row
        self._append({"event": "shown", **row})

    def vote(self, query: str, better: Side | Literal["tie"]) -> None:
        """Somebody prefers a side, or neither.

        Raises:
            InputError: where nothing was shown under this id.
        """
        if better not in ("a", "b", "tie"):
            raise InputError(f"the vote is {better!r}: give 'a', 'b' or 'tie'")
        self._shown(query)
        self._append({"event": "vote", "query": query, "better": better})

    def pick(self, query: str, passage: str) -> Side | None:
        """Somebody used a passage; the side that gets the credit, where one found it.

        Raises:
            InputError: where nothing was shown under this id, or not this passage.
        """
        row = self._shown(query)
        passages, teams = row.get("passages", []), row.get("teams", [])
        if passage not in passages:
            raise InputError(f"the passage {passage!r} was not shown for {query!r}")
        self._append({"event": "pick", "query": query, "passage": passage})
        return teams[passages.index(passage)] if teams else None

    def _shown(self, query: str) -> dict[str, Any]:
        if query not in self._known:
            self._known |= {row["query"]: row for row in self.rows() if row.get("event") == "shown"}
        if query not in self._known:
            raise InputError(f"nothing was shown under {query!r}: give the 'ab_query' of what was")
        return self._known[query]

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **row}, ensure_ascii=False)
        with self._thread_lock, self._lock, outside_failures(self.file), self.file.open("a+b") as file:
            # A process that was killed may have left half a line: the next one must not be part of it.
            if file.tell() and (file.seek(-1, os.SEEK_END) or True) and file.read(1) != b"\n":
                file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> Iterator[dict[str, Any]]:
        """All that was written; half a line of a killed process is left out."""
        lines = self.file.read_bytes().split(b"\n")
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row

    def standing(self) -> Standing:
        """How the two sides stand."""
        shown: dict[str, dict[str, Any]] = {}
        decided: dict[str, float] = {}
        counts = {"a": 0, "b": 0, "tie": 0}
        for row in self.rows():
            if row.get("event") == "shown":
                shown[row["query"]] = row
            elif row.get("event") == "vote" and row["query"] in shown:
                counts[row["better"]] += 1
                decided[row["query"]] = {"a": -1.0, "b": 1.0, "tie": 0.0}[row["better"]]
            elif row.get("event") == "pick" and row["query"] in shown:
                of = shown[row["query"]]
                if of.get("mode") == "interleave" and row["passage"] in of["passages"]:
                    side = of["teams"][of["passages"].index(row["passage"])]
                    counts[side] += 1
                    decided[row["query"]] = decided.get(row["query"], 0.0) + (1.0 if side == "b" else -1.0)
        credit: dict[str, list[float]] = {}
        for query, value in decided.items():
            credit.setdefault(shown[query]["session"], []).append(max(-1.0, min(1.0, value)))
        sides = [side for row in shown.values() for side in _sides(row)]
        failed = [side for row in shown.values() for side in row.get("failed", {})]
        return Standing(
            len(shown), counts["a"], counts["b"], counts["tie"],
            {side: sides.count(side) for side in ("a", "b")},
            {side: failed.count(side) for side in ("a", "b")},
            credit,
        )  # fmt: skip


def _sides(row: dict[str, Any]) -> set[str]:
    return {row["side"]} if "side" in row else set(row.get("order") or row.get("teams", []))
