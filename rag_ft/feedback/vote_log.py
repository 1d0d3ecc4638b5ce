"""The vote log: what was shown to people, with their votes and picks."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag_ft.errors import InputError
from rag_ft.feedback.shown_query import ShownQuery, ShownResults
from rag_ft.feedback.tally import Tally, tally_of
from rag_ft.feedback.variants import PREFERENCES, Preference, Variant
from rag_ft.files import outside_failures, sha256_of
from rag_ft.jsonl_log import JsonlLog

MAX_REMEMBERED = 10_000
"""Maximum number of queries in memory. Older ones, and those of other processes, are looked up in the file."""

DIGEST_DIGITS = 16


class Votes:
    """A JSONL file of votes and picks that several threads and processes can write to.

    Each line is an `event`: `shown` (a question, and what was shown for it), `passage` (the text of a passage, once),
    `vote`, `pick`, `unpick`, `failed` or `score`; the methods have the names of the events. Each line is on the disk
    when its method returns. The file contains questions and passages: protect it like the documents.

    Args:
        file: created if it does not exist.

    Raises:
        InputError: if the file is not a vote log.

    Example:
        >>> import tempfile
        >>> from rag_ft.feedback import ShownResults, Votes
        >>> votes = Votes(tempfile.mkdtemp() + "/votes.jsonl")
        >>> results = ShownResults(passages=["x", "y"], teams=["a", "b"])
        >>> votes.shown("q1", "interleave", "user-42", "What is a claim?", results)
        >>> votes.pick("q1", "y")
        'b'
        >>> votes.tally().b
        1
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self.log = JsonlLog(self.file, Path(f"{self.file}.lock"))
        with outside_failures(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.open("a").close()  # fail early if the file is not writable
        if not self.log.starts_with(b"{"):
            raise InputError(f"{self.file} is not a vote log and is not overwritten: choose another file")
        self._recent: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._recent_lock = threading.Lock()
        self._digests: set[str] = set()

    def shown(
        self,
        query: str,
        mode: str,
        session: str,
        question: str,
        results: ShownResults,
        *,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """Record what was shown for a question.

        Args:
            query: the id for later votes and picks.
            mode: how the variants were combined: `split`, `interleave`, `side-by-side`, `page` or `judged`.
            session: the id of the user or session.
            question: the question.
            results: the passages, rankings or answers that were shown.
            texts: passage id -> its embedded text, so that a pick can become training data. Each text is stored once.

        Raises:
            OutsideError: if the file cannot be written.
        """
        row = {"query": query, "mode": mode, "session": session, "question": question, **results.row()}
        texts = texts or {}
        digests = {passage: digest_of(text) for passage, text in texts.items()}
        if digests:
            row["digests"] = digests
        new = {digest: texts[passage] for passage, digest in digests.items() if digest not in self._digests}
        with self._recent_lock:
            self._recent[query] = row
            while len(self._recent) > MAX_REMEMBERED:
                self._recent.popitem(last=False)
        events = [{"event": "passage", "digest": digest, "text": text} for digest, text in new.items()]
        self._append(*events, {"event": "shown", **row})
        self._digests |= set(new)

    def vote(self, query: str, better: Preference) -> None:
        """Record which variant a person prefers. The last vote on a query counts.

        Raises:
            InputError: if the id is unknown.
            OutsideError: if the file cannot be written.
        """
        if better not in PREFERENCES:
            raise InputError(f"the vote is {better!r}: pass 'a', 'b', 'tie' or 'neither'")
        self.find(query)
        self._append({"event": "vote", "query": query, "better": better})

    def pick(self, query: str, passage: str, variant: Variant | None = None) -> Variant | None:
        """Record that a person picked a passage, and return the variant that gets the credit, if there is one.

        Args:
            query: the id under which the passage was shown.
            passage: its id.
            variant: the variant in whose ranking it was picked, if both rankings were shown.

        Raises:
            InputError: if the id is unknown, or the passage was not shown for it.
            OutsideError: if the file cannot be written.
        """
        shown = self._require_shown(query, passage, variant)
        self._append({"event": "pick", "query": query, "passage": passage, **({"side": variant} if variant else {})})
        finders = shown.finders_of(passage)
        return shown.team_of(passage) or (finders[0] if len(finders) == 1 else None)

    def unpick(self, query: str, passage: str) -> None:
        """Record that a pick was a mistake.

        Raises:
            InputError: if the id is unknown, or the passage was not shown for it.
            OutsideError: if the file cannot be written.
        """
        self._require_shown(query, passage, None)
        self._append({"event": "unpick", "query": query, "passage": passage})

    def failed(self, query: str, variant: Variant, reason: str) -> None:
        """Record that a variant failed while its answer was shown."""
        self._append({"event": "failed", "query": query, "side": variant, "reason": reason})

    def score(self, query: str, variant: Variant, metric: str, value: float) -> None:
        """Record the score that a person or an LLM gave to a variant's answer."""
        self._append({"event": "score", "query": query, "side": variant, "metric": metric, "value": value})

    def tally(self) -> Tally:
        """Return the tally of all votes and picks so far."""
        return tally_of(self.rows())

    def rows(self, containing: bytes = b"") -> Iterator[dict[str, Any]]:
        """Yield all events in order, or only those whose line contains the given bytes. Damaged lines are skipped."""
        return (row for row in self.log.rows(containing) if isinstance(row.get("event"), str))

    def find(self, query: str) -> dict[str, Any]:
        """Return what was shown under an id.

        Raises:
            InputError: if the id is unknown.
        """
        with self._recent_lock:
            if (recent := self._recent.get(query)) is not None:
                return recent
        for row in self.rows(json.dumps(query, ensure_ascii=False).encode("utf-8", "replace")):
            if row["event"] == "shown" and row.get("query") == query:
                return row
        raise InputError(f"nothing was shown under {query!r}: pass the 'ab_query' of a shown result")

    def _require_shown(self, query: str, passage: str, variant: Variant | None) -> ShownQuery:
        shown = ShownQuery(self.find(query))
        finders = shown.finders_of(passage)
        if passage not in shown.passages and (variant not in finders if variant else not finders):
            raise InputError(f"the passage {passage[:80]!r} was not shown for {query!r}")
        return shown

    def _append(self, *events: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.log.append({"time": now, **event} for event in events)


def digest_of(text: str) -> str:
    """Return the digest that identifies the text of a passage in a vote log."""
    return sha256_of(text.encode("utf-8", "replace"))[:DIGEST_DIGITS]
