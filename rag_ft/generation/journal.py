"""Answers of an LLM, durable before they count: a killed run asks nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from rag_ft.errors import InputError, OutsideError
from rag_ft.files import outside_failures, sha256_of

if TYPE_CHECKING:
    from filelock import BaseFileLock


def question_key(llm: str, prompt: str) -> str:
    """What an answer belongs to: the model and the prompt; a change of either asks anew."""
    return sha256_of(llm, prompt)


class Journal:
    """An append-only JSONL file of answers, one `{"key": …, "answer": …}` a line.

    Answers that are recorded together reach the disk in one write; a line that a kill cut off is dropped
    when the journal is opened again. Within a `with` block the journal belongs to one process alone.

    Args:
        file: the journal; made when the first answer comes. None keeps the answers in memory alone.

    Raises:
        OutsideError: by the `with` block, where another process writes into the same journal.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.answers: dict[str, str] = {}
        self._stream: IO[bytes] | None = None
        self._lock: BaseFileLock | None = None
        self._read()

    def _read(self) -> bytes:
        """Take the whole lines of the file; return them."""
        if self.file is None or not self.file.exists():
            return b""
        with outside_failures(self.file):
            content = self.file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                if isinstance(entry["answer"], str):
                    self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                continue
        if content and not self.answers and not content.startswith(b'{"key": '):
            raise InputError(f"{self.file} is no journal of answers: choose another file, nothing is overwritten")
        return whole

    def record(self, answers: Sequence[tuple[str, str]]) -> None:
        """Make answers durable: they are on the disk when this returns."""
        if not answers:
            return
        # An LLM may break off within a character pair; half of one is nothing that a file takes.
        answers = [(key, answer.encode("utf-8", "replace").decode()) for key, answer in answers]
        if self.file is not None:
            self._append(self.file, answers)
        self.answers.update(answers)

    def _append(self, file: Path, answers: Sequence[tuple[str, str]]) -> None:
        lines = [json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n" for key, answer in answers]
        with outside_failures(file):
            if self._stream is None:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._stream = file.open("ab", buffering=0)
            data = memoryview("".join(lines).encode())
            while data:  # a disk that fills up takes a part, and says so only the next time
                data = data[self._stream.write(data) :]
            os.fsync(self._stream.fileno())

    def __enter__(self) -> Journal:
        if self.file is None:
            return self
        from filelock import FileLock, Timeout

        with outside_failures(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # The system frees the lock when its process ends, however it ends.
            self._lock = FileLock(self.file.with_name(f".{self.file.name}.lock"))
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                self._lock = None
                raise OutsideError(
                    f"another process is writing its answers into {self.file}: wait until it ends, or choose another "
                    "--output"
                ) from None
            # Another process may have written between the first look and the lock.
            whole = self._read()
            if self.file.exists() and len(whole) < self.file.stat().st_size:
                with self.file.open("rb+") as stream:
                    stream.truncate(len(whole))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._lock is not None:
            if self.file is not None and not self.file.exists():  # nothing was answered: nothing is left behind
                with suppress(OSError):
                    Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None
