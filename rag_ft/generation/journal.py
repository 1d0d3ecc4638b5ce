"""The journal of an LLM's responses: each one is on the disk before it counts, so no prompt is sent twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import Timeout

from rag_ft.errors import InputError, OutsideError
from rag_ft.files import sha256_of
from rag_ft.jsonl_log import JsonlLog


def request_key(llm: str, prompt: str) -> str:
    """Return the key of a response: another model or another prompt is a new request."""
    return sha256_of(llm, prompt)


class Journal:
    """An append-only JSONL file of responses, one `{"key": …, "answer": …}` per line.

    In a `with` block the journal belongs to one process alone, and a torn last line is cut off.

    Args:
        file: the journal, created by the first response. None keeps the responses in memory only.

    Raises:
        InputError: if the file is something else.
        OutsideError: by the `with` block, if another process writes into the same journal.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.responses: dict[str, str] = {}
        self._exit = ExitStack()
        # A disk that fills up keeps the responses that fit: they are paid for.
        self._log = (
            JsonlLog(file, file.with_name(f".{file.name}.lock"), keep_whole_lines=True) if file is not None else None
        )
        self._read()

    def _read(self) -> None:
        if self._log is None or not self._log.file.exists():
            return
        rows = self._log.rows()
        found = ((row.get("key"), row.get("answer")) for row in rows)
        self.responses = {key: text for key, text in found if isinstance(key, str) and isinstance(text, str)}
        if not self.responses and not self._log.starts_with(b'{"key": '):
            raise InputError(f"{self.file} is no journal of answers: choose another file, nothing is overwritten")

    def record(self, responses: Sequence[tuple[str, str]]) -> None:
        """Store (key, response) pairs; they are on the disk when this returns."""
        # An LLM may break off within a surrogate pair, half of which no file takes.
        responses = [(key, text.encode("utf-8", "replace").decode()) for key, text in responses]
        if self._log is not None:
            self._log.append({"key": key, "answer": text} for key, text in responses)
        self.responses.update(responses)

    def __enter__(self) -> Journal:
        if self._log is not None:
            try:
                self._exit.enter_context(self._log.exclusive())
            except Timeout:
                raise OutsideError(
                    f"another process is writing its answers into {self.file}: wait until it ends, or choose another "
                    "--output"
                ) from None
            self._read()  # another process may have written before the lock was ours
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()
