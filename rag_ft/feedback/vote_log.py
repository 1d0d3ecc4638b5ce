"""What was shown to people and what they picked, one line each, on the disk before anybody goes on."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from filelock import FileLock, Timeout

from rag_ft.ab.sessions import Side
from rag_ft.errors import InputError, OutsideError
from rag_ft.files import outside_failures, sha256_of

if TYPE_CHECKING:
    from rag_ft.feedback.tally import ShownQuery, Tally

Better = Literal["a", "b", "tie", "neither"]
BETTER: tuple[Better, ...] = get_args(Better)

RECENT = 10_000
"""Queries that are remembered; older ones, and those of other processes, are looked up in the file."""

DIGITS = 16
LOCK_SECONDS = 10.0


class Votes:
    """A file of JSON lines that several threads and processes may write; a line counts when it is whole.

    Each line is an `event`: `shown` (a question, and which passages were shown), `passage` (the text of one, once),
    `vote`, `pick`, `unpick`, `failed`, `score`. Questions and passages stand in it: keep it as you keep the documents.

    Args:
        file: made where there is none.

    Raises:
        InputError: where the file holds something else.

    Example:
        >>> import tempfile
        >>> from rag_ft.feedback.vote_log import Votes
        >>> votes = Votes(tempfile.mkdtemp() + "/votes.jsonl")
        >>> votes.shown("q1", "interleave", "user-42", "What is a claim?", passages=["x", "y"], teams=["a", "b"])
        >>> votes.pick("q1", "y")
        'b'
        >>> votes.tally().b
        1
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        with outside_failures(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a+b") as stream:  # it must not be found out after an hour that nothing can be written
                stream.seek(0)
                if stream.read(1) not in (b"", b"{"):
                    raise InputError(f"{self.file} is no file of votes: choose another one, nothing is overwritten")
        self._file_lock = FileLock(f"{self.file}.lock", timeout=LOCK_SECONDS)
        self._recent: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._digests: set[str] = set()
        self._waiting: list[tuple[int, bytes]] = []
        self._asked = self._written = 0
        self._state, self._writing = threading.Lock(), threading.Lock()

    def shown(
        self,
        query: str,
        mode: str,
        session: str,
        question: str,
        *,
        texts: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        """A question was answered.

        Args:
            query: the id under which it can be voted on.
            mode: how both sides came into it.
            session: who asked.
            question: what was asked.
            texts: passage id -> its text as it is embedded, so that a pick can be trained on. Each is kept once.
            **more: `side` that was seen; `passages` with their `teams`; `order` of two sides with the `rankings` of
                each; and which sides `failed`.

        Raises:
            OutsideError: where the file cannot be written.
        """
        row = {"query": query, "mode": mode, "session": session, "question": question, **more}
        digests = {key: digest_of(text) for key, text in (texts or {}).items()}
        if digests:
            row["digests"] = digests
        new = {digest: (texts or {})[key] for key, digest in digests.items() if digest not in self._digests}
        with self._state:
            self._recent[query] = row
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        events = [{"event": "passage", "digest": digest, "text": text} for digest, text in new.items()]
        self._append(*events, {"event": "shown", **row})
        self._digests |= set(new)

    def vote(self, query: str, better: Better) -> None:
        """Somebody prefers a side, or none; who votes again on the same has changed their mind.

        Raises:
            InputError: where nothing was shown under this id.
            OutsideError: where the file cannot be written.
        """
        if better not in BETTER:
            raise InputError(f"the vote is {better!r}: give 'a', 'b', 'tie' or 'neither'")
        self.find(query)
        self._append({"event": "vote", "query": query, "better": better})

    def pick(self, query: str, passage: str, side: Side | None = None) -> Side | None:
        """Somebody used a passage; the side that gets the credit, where one found it alone.

        Args:
            query: the id under which it was shown.
            passage: its id.
            side: in whose ranking it was picked, where both were shown.

        Raises:
            InputError: where nothing was shown under this id, or not this passage.
            OutsideError: where the file cannot be written.
        """
        shown = self._check_shown(query, passage, side)
        self._append({"event": "pick", "query": query, "passage": passage, **({"side": side} if side else {})})
        finders = shown.finders_of(passage)
        return shown.team_of(passage) or (finders[0] if len(finders) == 1 else None)

    def unpick(self, query: str, passage: str) -> None:
        """A pick was a mistake.

        Raises:
            InputError: where nothing was shown under this id, or not this passage.
            OutsideError: where the file cannot be written.
        """
        self._check_shown(query, passage, None)
        self._append({"event": "unpick", "query": query, "passage": passage})

    def failed(self, query: str, side: Side, reason: str) -> None:
        """A side's answer broke off after it was shown."""
        self._append({"event": "failed", "query": query, "side": side, "reason": reason})

    def score(self, query: str, side: Side, metric: str, value: float) -> None:
        """Somebody, or an LLM, scored a side's answer."""
        self._append({"event": "score", "query": query, "side": side, "metric": metric, "value": value})

    def tally(self) -> Tally:
        """How the two sides stand."""
        from rag_ft.feedback.tally import tally_of

        return tally_of(self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """All that was written, in its order; half a line of a killed process is left out."""
        with outside_failures(self.file), self.file.open("rb") as file:
            for line in file:
                if (row := _row(line)) is not None:
                    yield row

    def find(self, query: str) -> dict[str, Any]:
        """What was shown under an id.

        Raises:
            InputError: where nothing was.
        """
        with self._state:
            if (known := self._recent.get(query)) is not None:
                return known
        wanted = json.dumps(query, ensure_ascii=False).encode("utf-8", "replace")
        with outside_failures(self.file), self.file.open("rb") as file:
            for line in file:
                if wanted in line and (row := _row(line)) and row["event"] == "shown" and row.get("query") == query:
                    return row
        raise InputError(f"nothing was shown under {query!r}: give the 'ab_query' of what was")

    def _check_shown(self, query: str, passage: str, side: Side | None) -> ShownQuery:
        from rag_ft.feedback.tally import ShownQuery

        shown = ShownQuery(self.find(query))
        finders = shown.finders_of(passage)
        if passage not in shown.passages and (side not in finders if side is not None else not finders):
            raise InputError(f"the passage {passage[:80]!r} was not shown for {query!r}")
        return shown

    def _append(self, *events: dict[str, Any]) -> None:
        """Put lines on the disk; those of threads that come together are one write."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        lines = b"".join(_utf8(json.dumps({"time": now, **event}, ensure_ascii=False)) + b"\n" for event in events)
        with self._state:
            self._asked += 1
            mine = self._asked
            self._waiting.append((mine, lines))
        with self._writing:
            if self._written >= mine:
                return
            with self._state:
                batch, self._waiting = self._waiting, []
            try:
                self._write(b"".join(lines for _, lines in batch))
            except BaseException:
                # Whoever else waits tries again with what is its own.
                with self._state:
                    self._waiting = [(number, lines) for number, lines in batch if number != mine] + self._waiting
                raise
            self._written = batch[-1][0]

    def _write(self, data: bytes) -> None:
        try:
            with self._file_lock, outside_failures(self.file), self.file.open("a+b", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                # A process that was killed may have left half a line: the next one must not be part of it.
                if before and (file.seek(-1, os.SEEK_END) or True) and file.read(1) != b"\n":
                    data = b"\n" + data
                try:
                    rest = memoryview(data)
                    while rest:  # a disk that fills up takes a part, and says so only the next time
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
        except Timeout:
            raise OutsideError(f"another process holds {self.file}.lock for more than {LOCK_SECONDS:g} s") from None


def digest_of(text: str) -> str:
    """By which the text of a passage is named in a file of votes."""
    return sha256_of(_utf8(text))[:DIGITS]


def _utf8(text: str) -> bytes:
    # Half of a character pair, which a browser may send, is nothing that a file takes.
    return text.encode("utf-8", "replace")


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("event"), str) else None
