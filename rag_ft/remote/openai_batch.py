"""The OpenAI Batch API: files of requests, answered within a day at half the price; a restart goes on with them.

Source: the Batch API reference, platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm.auto import tqdm

from rag_ft.errors import OutsideError
from rag_ft.files import read_json, write_json

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

LISTED = 2000
"""Batches of the account, the newest first, among which one that was started and not noted is looked for."""

FIRST_POLL, LONGEST_POLL = 5.0, 60.0
"""Seconds between two looks at a batch: more as it takes longer."""

ENDED = {"completed", "failed", "expired", "cancelled"}

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings"]

Line = dict[str, Any]
"""A request, or its result."""


class BatchJob:
    """The batches whose answers go into one file: sent, waited for, and collected.

    Args:
        client: the OpenAI client.
        journal: where the answers go; the batches' ids are kept beside it (`NAME.batches.json`).
        endpoint: what each line asks, like `/v1/embeddings`.
        stop: ends the waiting.
    """

    def __init__(self, client: OpenAI, journal: Path, endpoint: Endpoint, stop: threading.Event) -> None:
        self.client = client
        self.endpoint = endpoint
        self.stop = stop
        self.file = journal.with_name(f"{journal.name}.batches.json")
        known = read_json(self.file) if self.file.exists() else {}
        self.name: str = known.get("job") or uuid.uuid4().hex
        self.open: list[str] = known.get("open", [])
        self.collected: list[str] = known.get("collected", [])
        if known:
            self._find_unnoted()

    def _find_unnoted(self) -> None:
        """A run that was killed between the server's yes and our note of it has left a batch that bears our name."""
        with batch_failures():
            for batch in islice(self.client.batches.list(limit=100), LISTED):
                ours = (batch.metadata or {}).get("rag_ft") == self.name
                if ours and batch.id not in self.open and batch.id not in self.collected:
                    self.open.append(batch.id)

    def _note(self) -> None:
        write_json(self.file, {"job": self.name, "open": self.open, "collected": self.collected})

    def send(self, lines: Sequence[Line]) -> None:
        """Upload the lines and start a batch of them; its id is on the disk when this returns."""
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        self._note()
        with batch_failures():
            uploaded = self.client.files.create(file=("rag_ft.jsonl", content), purpose="batch")
            # Not repeated by the client: the server may have begun it although its answer was lost.
            started = self.client.with_options(max_retries=0).batches.create(
                input_file_id=uploaded.id,
                endpoint=self.endpoint,
                completion_window="24h",
                metadata={"rag_ft": self.name},
            )
        self.open.append(started.id)
        self._note()
        logger.info("batch %s: %d requests", started.id, len(lines))

    def results(self, poll_seconds: float | None, show_progress: bool) -> Iterator[list[Line]]:
        """The lines of each open batch when it has ended; it is collected when the next one is asked for."""
        for identifier in list(self.open):
            with batch_failures():
                batch = self._wait(identifier, poll_seconds, show_progress)
                files = [file for file in (batch.output_file_id, batch.error_file_id) if file]
                texts = [self.client.files.content(file).text for file in files]
            if not texts and batch.status in ("failed", "cancelled"):
                self._collected(identifier)
                errors = getattr(batch.errors, "data", None) or []
                reason = errors[0].message if errors else "no reason given"
                raise OutsideError(f"the batch {identifier} {batch.status} ({str(reason)[:200]}): run again")
            lines = []
            for text in texts:
                for line in text.splitlines():
                    with contextlib.suppress(ValueError):
                        lines.append(json.loads(line))
            yield [line for line in lines if isinstance(line, dict)]
            self._collected(identifier)

    def _wait(self, identifier: str, poll_seconds: float | None, show_progress: bool) -> Any:
        pause = poll_seconds or FIRST_POLL
        with tqdm(desc=f"batch {identifier[:20]}", unit="request", disable=not show_progress) as bar:
            while True:
                batch = self.client.batches.retrieve(identifier)
                if counts := batch.request_counts:
                    bar.total = counts.total
                    bar.n = counts.completed + counts.failed
                    bar.refresh()
                if batch.status in ENDED:
                    return batch
                if self.stop.wait(pause):
                    raise OutsideError(f"stopped: the batch {identifier} runs on, the same command goes on with it")
                pause = pause if poll_seconds else min(LONGEST_POLL, pause * 1.3)

    def _collected(self, identifier: str) -> None:
        self.open.remove(identifier)
        self.collected.append(identifier)
        self._note()


@contextlib.contextmanager
def batch_failures() -> Iterator[None]:
    """Turn the client's errors into one clear line; keys never stand in it."""
    import openai

    what = "the Batch API"
    try:
        yield
    except openai.APIStatusError as error:
        raise OutsideError(
            f"{what} answered {error.status_code}: what was done is kept, the same command goes on"
        ) from error
    except openai.APIError as error:
        raise OutsideError(
            f"{what} cannot be reached ({type(error).__name__}): what was done is kept, the same command goes on"
        ) from error
