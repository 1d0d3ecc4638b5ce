"""A durable log of JSON lines that several threads and processes can append to."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rag_ft.errors import OutsideError
from rag_ft.files import outside_failures

LOCK_SECONDS = 10.0
"""Maximum number of seconds that a write waits for another process."""


class JsonlLog:
    """An append-only file with one JSON object per line.

    `append` returns once its lines are on the disk (fsync). Threads that append at the same time share one write. A
    file lock keeps the lines of several processes apart, and `exclusive` reserves the log for one process.
    Damaged lines, for example the torn last line of a killed process, are skipped when the log is read.

    Args:
        file: the log, created by the first write.
        lock_file: the lock file beside it.
        keep_whole_lines: if a write fails midway, keep the complete lines. By default none is kept.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft.jsonl_log import JsonlLog
        >>> file = Path(tempfile.mkdtemp()) / "log.jsonl"
        >>> log = JsonlLog(file, file.with_suffix(".lock"))
        >>> log.append([{"event": "start"}, {"event": "end"}])
        >>> [row["event"] for row in log.rows()]
        ['start', 'end']
    """

    def __init__(self, file: Path, lock_file: Path, *, keep_whole_lines: bool = False) -> None:
        self.file = file
        self.keep_whole_lines = keep_whole_lines
        # One lock for all threads: they write through `_writing`, one at a time.
        self._lock = FileLock(lock_file, thread_local=False)
        self._queue: list[tuple[int, bytes]] = []
        self._queued = self._written = 0
        self._state, self._writing = threading.Lock(), threading.Lock()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows. They are on the disk when this method returns.

        Raises:
            OutsideError: if the file cannot be written or another process holds it.
        """
        # A browser or an LLM may send half of a surrogate pair, which cannot be written to a file.
        lines = b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows)
        if not lines:
            return
        with self._state:
            self._queued += 1
            number = self._queued
            self._queue.append((number, lines))
        with self._writing:
            if self._written >= number:  # another thread has written these lines together with its own
                return
            with self._state:
                batch, self._queue = self._queue, []
            try:
                self._write(b"".join(lines for _, lines in batch))
            except BaseException:
                # The other threads write their own lines again.
                with self._state:
                    self._queue = [entry for entry in batch if entry[0] != number] + self._queue
                raise
            self._written = batch[-1][0]

    def rows(self, containing: bytes = b"") -> Iterator[dict[str, Any]]:
        """Yield all rows in order, or only those whose line contains the given bytes. Damaged lines are skipped."""
        with outside_failures(self.file), self.file.open("rb") as stream:
            for line in stream:
                if containing in line:
                    with suppress(ValueError, RecursionError):
                        if isinstance(row := json.loads(line), dict):
                            yield row

    def starts_with(self, prefix: bytes) -> bool:
        """Return whether the file begins with a prefix. True for a missing or empty file."""
        if not self.file.exists():
            return True
        with outside_failures(self.file), self.file.open("rb") as stream:
            return stream.read(len(prefix)) in (b"", prefix)

    def _write(self, data: bytes) -> None:
        try:
            with outside_failures(self.file):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self._lock.acquire(timeout=LOCK_SECONDS):
                    self._write_locked(data)
        except Timeout:
            raise OutsideError(
                f"{self._lock.lock_file} has been locked by another process for more than {LOCK_SECONDS:g} s"
            ) from None

    def _write_locked(self, data: bytes) -> None:
        with self.file.open("a+b", buffering=0) as stream:
            end = stream.seek(0, os.SEEK_END)
            if end and _last_byte(stream) != b"\n":  # after a torn line, start a new one
                data = b"\n" + data
            written = 0
            try:
                while written < len(data):  # a disk that fills up accepts a part without an error
                    written += stream.write(memoryview(data)[written:])
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end + (data.rfind(b"\n", 0, written) + 1 if self.keep_whole_lines else 0))
                raise

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the log for this process while the block runs, and cut off a torn last line.

        Raises:
            filelock.Timeout: if another process holds the log.
        """
        with outside_failures(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # The system releases the lock when the process ends, however it ends.
            self._lock.acquire(timeout=0)
            if self.file.exists():
                with self.file.open("rb") as stream:
                    end = sum(len(line) for line in stream if line.endswith(b"\n"))
                if end < self.file.stat().st_size:
                    os.truncate(self.file, end)
        try:
            yield
        finally:
            if not self.file.exists():  # nothing was written, so remove the lock file too
                with suppress(OSError):
                    Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()


def _last_byte(stream: Any) -> bytes:
    stream.seek(-1, os.SEEK_END)
    return bytes(stream.read(1))
