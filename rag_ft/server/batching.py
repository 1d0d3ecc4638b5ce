"""Dynamic batching: one thread encodes the texts of many callers together. No caller waits for another's long list."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.embedding.encoding import USUAL_CHARACTERS_PER_TOKEN
from rag_ft.server.protocol import Role
from rag_ft.server.served_model import ServedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

MIN_CALLERS = 8
"""A caller may fill at most this fraction (1/8) of a batch before the next caller's texts are added."""


class QueueFullError(Exception):
    """The queue of waiting texts is full.

    Attributes:
        retry_after: expected number of whole seconds until the queue has room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full for {retry_after} s")
        self.retry_after = retry_after


class EncodingError(Exception):
    """The model failed on a caller's texts."""


@dataclass(frozen=True)
class EmbeddedTexts:
    """The vectors of a caller's texts.

    Attributes:
        vectors: shape (texts, dimension).
        tokens: number of tokens that the model read.
    """

    vectors: NDArray[np.float32]
    tokens: int


@dataclass(eq=False)
class _Job:
    """A caller's texts in the queue. The longest are taken first, so that a batch has texts of similar length."""

    texts: list[str]
    role: Role
    costs: list[int]
    future: asyncio.Future[EmbeddedTexts]
    order: list[int] = field(init=False)
    taken: int = 0
    remaining: int = field(init=False)
    tokens: int = 0
    vectors: NDArray[np.float32] | None = None
    is_cancelled: bool = False

    def __post_init__(self) -> None:
        self.order = sorted(range(len(self.texts)), key=lambda position: -self.costs[position])
        self.remaining = len(self.texts)

    def take(self, budget: int) -> list[int]:
        """Take the next texts, at least one and otherwise up to a number of tokens; return their positions."""
        start, spent = self.taken, 0
        while self.taken < len(self.order):
            cost = self.costs[self.order[self.taken]]
            if self.taken > start and spent + cost > budget:
                break
            spent += cost
            self.taken += 1
        return self.order[start : self.taken]


class Batcher:
    """A bounded queue of texts and one thread that encodes them.

    Texts queue up while the thread encodes. The next batch takes texts from each caller in turn, up to the number of
    tokens that suits the model. So many single queries share a batch, and long lists fill the rest of it.

    Args:
        model: the model that encodes.
        queued_texts: maximum number of waiting texts.
        wait_seconds: seconds that an idle thread waits for more texts after the first.
        on_batch: called in the thread with the number of texts and the seconds of each batch.
    """

    def __init__(
        self,
        model: ServedModel,
        queued_texts: int,
        wait_seconds: float,
        on_batch: Callable[[int, float], None] = lambda texts, seconds: None,
    ) -> None:
        self._model, self._queued_texts, self._wait, self._on_batch = model, queued_texts, wait_seconds, on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._texts_per_second = 100.0
        self.queued = 0

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    def start(self) -> None:
        """Start the thread; call it within the event loop of the callers."""
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current batch, and fail the waiting texts."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    async def embed(self, texts: list[str], role: Role) -> EmbeddedTexts:
        """Embed texts; if the caller is cancelled, its texts are removed from the queue.

        Raises:
            QueueFullError: if too many texts are waiting.
            EncodingError: if the model fails on them.
        """
        loop = asyncio.get_running_loop()
        limit = self._model.max_length or math.inf
        costs = [int(min(len(text) // USUAL_CHARACTERS_PER_TOKEN + 3, limit)) for text in texts]
        job = _Job(texts, role, costs, loop.create_future())
        with self._changed:
            if not self.alive:
                raise EncodingError("the server is stopping")
            if self.queued + len(texts) > self._queued_texts:
                raise QueueFullError(self._seconds_until_room(len(texts)))
            self._jobs.append(job)
            self.queued += len(texts)
            self._changed.notify()
        try:
            return await job.future
        finally:
            self._withdraw(job)

    def _seconds_until_room(self, texts: int) -> int:
        too_many = self.queued + texts - self._queued_texts
        return min(60, max(1, math.ceil(too_many / self._texts_per_second)))

    def _withdraw(self, job: _Job) -> None:
        """Remove the remaining texts of a caller from the queue, after it disconnected or the model failed on one."""
        job.is_cancelled = True
        if job.taken == len(job.texts):
            return
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self.queued -= len(job.texts) - job.taken

    def _run(self) -> None:
        with self._model.ready_to_encode():
            while True:
                batch = self._next_batch()
                if batch is None:
                    return
                began = time.perf_counter()
                self._encode(batch)
                seconds = time.perf_counter() - began
                texts = sum(len(positions) for _, positions in batch)
                self._texts_per_second += 0.1 * (texts / max(seconds, 1e-6) - self._texts_per_second)
                self._on_batch(texts, seconds)

    def _next_batch(self) -> list[tuple[_Job, list[int]]] | None:
        """Wait for texts and take some from each caller; return None if the thread should end."""
        with self._changed:
            idle = not self._jobs
            while not self._jobs and not self._stopping:
                self._changed.wait()
        if idle and self._wait and not self._stopping:
            time.sleep(self._wait)
        with self._changed:
            if self._stopping:
                self._deliver([(job, EncodingError("the server is stopping")) for job in self._jobs])
                self._jobs.clear()
                return None
            batch: dict[_Job, list[int]] = {}
            budget = self._model.batch_tokens
            while self._jobs and budget > 0:
                job = self._jobs.popleft()
                positions = job.take(min(budget, self._model.batch_tokens // MIN_CALLERS))
                budget -= sum(job.costs[position] for position in positions)
                self.queued -= len(positions)
                batch.setdefault(job, []).extend(positions)
                if job.taken < len(job.texts):
                    self._jobs.append(job)
            return list(batch.items())

    def _encode(self, batch: list[tuple[_Job, list[int]]]) -> None:
        """Encode a batch, queries first, and deliver the jobs that are complete."""
        roles: tuple[Role, Role] = ("query", "passage")
        for role in roles:
            pieces = [piece for piece in batch if piece[0].role == role]
            failure = ""
            try:
                self._encode_pieces(pieces, role)
            except Exception as error:
                failure = type(error).__name__
            if not failure:
                self._deliver([(job, None) for job, _ in pieces if job.remaining == 0])
            elif len(pieces) > 1:  # so that a caller's text fails only that caller's request
                for piece in pieces:
                    self._encode([piece])
            else:
                logger.error("encoding failed: %s", failure)
                failed = pieces[0][0]
                self._withdraw(failed)
                self._deliver([(failed, EncodingError(f"the model failed ({failure})"))])

    def _encode_pieces(self, pieces: list[tuple[_Job, list[int]]], role: Role) -> None:
        pieces = [(job, positions) for job, positions in pieces if not job.is_cancelled]
        texts = [job.texts[position] for job, positions in pieces for position in positions]
        if not texts:
            return
        vectors, tokens = self._model.encode(texts, role)
        start = 0
        for job, positions in pieces:
            end = start + len(positions)
            if job.vectors is None:
                job.vectors = np.empty((len(job.texts), vectors.shape[1]), dtype=np.float32)
            job.vectors[positions] = vectors[start:end]
            job.tokens += sum(tokens[start:end])
            job.remaining -= len(positions)
            start = end

    def _deliver(self, finished: list[tuple[_Job, EncodingError | None]]) -> None:
        """Pass all results to the event loop in one step."""

        def set_results() -> None:
            for job, error in finished:
                if job.future.done():
                    continue
                if error is not None:
                    job.future.set_exception(error)
                else:
                    assert job.vectors is not None
                    job.future.set_result(EmbeddedTexts(job.vectors, job.tokens))

        if finished and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(set_results)
