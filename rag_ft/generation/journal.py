"""Answers of an LLM, durable before they count: a killed run asks nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from rag_ft.files import outside_failures, sha256_of


def question_key(llm: str, prompt: str) -> str:
    """What an answer belongs to: the model and the prompt; a change of either asks anew."""
    return sha256_of(llm, prompt)


class Journal:
    """An append-only JSONL file of answers, one `{"key": …, "answer": …}` a line.

    Answers that are recorded together reach the disk in one write; a line that a kill cut off is dropped
    when the journal is opened again.

    Args:
        file: the journal; made when the first answer comes. None keeps the answers in memory alone.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.answers: dict[str, str] = {}
        self._stream: IO[bytes] | None = None
        if file is not None and file.exists():
            self._recover(file)

    def _recover(self, file: Path) -> None:
        with outside_failures(file):
            content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                if isinstance(entry["answer"], str):
                    self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                continue
        if len(whole) < len(content):
            with file.open("rb+") as stream:
                stream.truncate(len(whole))

    def record(self, answers: Sequence[tuple[str, str]]) -> None:
        """Make answers durable: they are on the disk when this returns."""
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
            self._stream.write("".join(lines).encode())
            os.fsync(self._stream.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
