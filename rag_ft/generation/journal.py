"""The journal of LLM responses. Each response is on the disk before it is used, so no prompt is sent twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import Timeout

from rag_ft.errors import InputError, OutsideError
from rag_ft.files import sha256_of
from rag_ft.jsonl_log import JsonlLog


def request_key(llm: str, prompt: str) -> str:
    """Return the key of a response. It depends on the model and the prompt."""
    return sha256_of(llm, prompt)


class Journal:
    """An append-only JSONL file of responses, one `{"key": …, "answer": …}` per line.

    A `with` block locks the journal for this process and cuts off a torn last line.

    Args:
        file: the journal, created by the first response. None keeps the responses in memory only.

    Raises:
        InputError: if the file is not a journal.
        OutsideError: in the `with` statement, if another process is using the journal.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.responses: dict[str, str] = {}
        self._exit = ExitStack()
        # If the disk fills up, the responses that fit are kept, because they are paid for.
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
            raise InputError(f"{self.file} is not a journal of responses and is not overwritten: choose another file")

    def record(self, responses: Sequence[tuple[str, str]]) -> None:
        """Store (key, response) pairs. They are on the disk when this method returns."""
        # An LLM may stop within a surrogate pair, half of which cannot be written to a file.
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
                    f"another process is writing to {self.file}: wait until it ends, or choose another --output"
                ) from None
            self._read()  # another process may have written before this one got the lock
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()
