"""The OpenAI Batch API: files of requests, answered within a day at half the price. A restart resumes the batches.

Source: the Batch API reference, platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm.auto import tqdm

from rag_ft.errors import OutsideError, without_secrets
from rag_ft.files import read_json, write_json
from rag_ft.remote.pacing import split_by_size

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

MAX_LISTED = 2000
"""Number of the account's newest batches that are searched for one that was started but not recorded."""

FIRST_POLL, LONGEST_POLL = 5.0, 60.0
"""First and longest pause between two polls of a batch, in seconds."""

ROUNDS = 3
"""Maximum number of times a request is sent; each round sends what failed in the previous one."""

ENDED = {"completed", "failed", "expired", "cancelled"}

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings"]

Line = dict[str, Any]
"""A request, as one line of a batch file."""


@dataclass(frozen=True)
class LineResult:
    """The result of one request.

    Attributes:
        custom_id: the id of the request.
        body: the body of the response; empty if there is none.
        reason: the server's reason for a failure; otherwise the status of the response.
    """

    custom_id: str
    body: dict[str, Any]
    reason: str

    @staticmethod
    def of(line: Line) -> LineResult:
        """Read a line of an output or error file."""
        response = line.get("response") or {}
        body = response.get("body") or {}
        if not isinstance(body, dict):
            body = {}
        error = line.get("error") or body.get("error") or {}
        reason = error.get("message") or error.get("code") or f"status {response.get('status_code')}"
        return LineResult(str(line.get("custom_id")), body, without_secrets(str(reason))[:120])


class BatchJob:
    """The batches whose responses go into one file.

    Args:
        client: the OpenAI client.
        answers: the file of the responses. The ids of the batches are stored beside it (`NAME.batches.json`).
        endpoint: the endpoint that processes each line.
        stop: another thread sets it to end the waiting; the batches continue on the server.
        show_progress: show a progress bar.
    """

    def __init__(
        self,
        client: OpenAI,
        answers: Path,
        endpoint: Endpoint,
        stop: threading.Event | None = None,
        show_progress: bool = False,
    ) -> None:
        self.client = client
        self.endpoint = endpoint
        self.stop = stop or threading.Event()
        self.show_progress = show_progress
        self.file = answers.with_name(f"{answers.name}.batches.json")
        saved = read_json(self.file) if self.file.exists() else {}
        self.name: str = saved.get("job") or uuid.uuid4().hex
        self.open_ids: list[str] = saved.get("open", [])
        self.collected_ids: list[str] = saved.get("collected", [])
        if saved:
            self._find_unrecorded()

    def run(
        self,
        missing: Callable[[int], Sequence[tuple[str, dict[str, Any]]]],
        store: Callable[[list[LineResult], int], None],
        *,
        size_of: Callable[[Line], int],
        max_requests: int,
        max_size: int,
    ) -> int:
        """Send the missing requests and store the responses, in at most `ROUNDS` rounds; return how many were sent.

        Each batch is recorded as soon as it has an id. Batches of an earlier run are collected before anything is sent,
        so no request is paid for twice.

        Args:
            missing: called with the number of the round; returns (id, request body) pairs without a stored response.
            store: stores results; called with the results and the round that sent them, 0 for an earlier run.
            size_of: returns the size of a request.
            max_requests: maximum number of requests in one batch.
            max_size: maximum total size of the requests in one batch.

        Raises:
            OutsideError: if the server rejects a batch or cannot be reached; repeat the call to resume.
        """
        sent = 0
        for round_number in range(ROUNDS + 1):  # round 0 only collects
            if round_number:
                bodies = missing(round_number)
                if not bodies:
                    break
                if round_number > 1:
                    logger.info("batch: sending %d failed requests again", len(bodies))
                lines = [
                    {"custom_id": key, "method": "POST", "url": self.endpoint, "body": body} for key, body in bodies
                ]
                for batch_lines in split_by_size(lines, size_of, max_requests, max_size):
                    self._send(batch_lines)
                sent += len(lines)
            for identifier in list(self.open_ids):
                store(self._results(identifier), round_number)
                self._close(identifier)
        return sent

    def _results(self, identifier: str) -> list[LineResult]:
        with _batch_api_failures():
            batch = self._wait(identifier)
            files = [file for file in (batch.output_file_id, batch.error_file_id) if file]
            texts = [self.client.files.content(file).text for file in files]
        if not texts and batch.status in ("failed", "cancelled"):
            self._close(identifier)
            errors = getattr(batch.errors, "data", None) or []
            reason = errors[0].message if errors else "no reason given"
            raise OutsideError(f"the batch {identifier} {batch.status} ({str(reason)[:200]}): run again")
        results = []
        for line in (line for text in texts for line in text.splitlines()):
            with contextlib.suppress(ValueError):
                if isinstance(row := json.loads(line), dict):
                    results.append(LineResult.of(row))
        return results

    def _find_unrecorded(self) -> None:
        """Find batches of this job whose ids were not recorded, since the run was killed."""
        with _batch_api_failures():
            for batch in islice(self.client.batches.list(limit=100), MAX_LISTED):
                is_own_batch = (batch.metadata or {}).get("rag_ft") == self.name
                if is_own_batch and batch.id not in self.open_ids and batch.id not in self.collected_ids:
                    self.open_ids.append(batch.id)

    def _send(self, lines: Sequence[Line]) -> None:
        """Upload the lines and start a batch of them; its id is on disk when this returns."""
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        self._save()
        with _batch_api_failures():
            uploaded = self.client.files.create(file=("rag_ft.jsonl", content), purpose="batch")
            # The client must not retry: the server may have started the batch although its response was lost.
            started = self.client.with_options(max_retries=0).batches.create(
                input_file_id=uploaded.id,
                endpoint=self.endpoint,
                completion_window="24h",
                metadata={"rag_ft": self.name},
            )
        self.open_ids.append(started.id)
        self._save()
        logger.info("batch %s: %d requests", started.id, len(lines))

    def _wait(self, identifier: str) -> Any:
        pause = FIRST_POLL
        with tqdm(desc=f"batch {identifier[:20]}", unit="request", disable=not self.show_progress) as bar:
            while True:
                batch = self.client.batches.retrieve(identifier)
                if counts := batch.request_counts:
                    bar.total = counts.total
                    bar.n = counts.completed + counts.failed
                    bar.refresh()
                if batch.status in ENDED:
                    return batch
                if self.stop.wait(pause):
                    raise OutsideError(
                        f"stopped: the batch {identifier} is still running; repeat the command to resume"
                    )
                pause = min(LONGEST_POLL, pause * 1.3)

    def _close(self, identifier: str) -> None:
        self.open_ids.remove(identifier)
        self.collected_ids.append(identifier)
        self._save()

    def _save(self) -> None:
        write_json(self.file, {"job": self.name, "open": self.open_ids, "collected": self.collected_ids})


@contextlib.contextmanager
def _batch_api_failures() -> Iterator[None]:
    """Turn the client's errors into an `OutsideError` of one line, without keys."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise OutsideError(
            f"the Batch API returned status {error.status_code}: progress is saved; run the same command to resume"
        ) from error
    except openai.APIError as error:
        raise OutsideError(
            f"the Batch API cannot be reached ({type(error).__name__}): progress is saved; run the same command to "
            "resume"
        ) from error
