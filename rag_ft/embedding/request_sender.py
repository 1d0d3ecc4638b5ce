"""Requests for vectors, to a server or to a local model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.embedding.identity import Role, is_remote, passage_vectors, query_vectors, reference_vectors
from rag_ft.errors import InputError, OutsideError, RagFtError, first_line
from rag_ft.remote.estimate import Estimate
from rag_ft.remote.pacing import rate_limiter
from rag_ft.remote.retries import is_last_attempt, is_retryable, pause_before_next

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Request = dict[bytes, str]
"""Key -> text."""

Vectors = dict[bytes, "NDArray[np.float32]"]
"""Key -> vector."""


@dataclass(frozen=True)
class RequestPolicy:
    """How texts are sent to a server.

    Attributes:
        workers: number of requests in flight.
        requests_per_minute: maximum number of requests in any minute.
        approve: called with the estimate before the first request; if it returns False, nothing is sent.
        batch: use the OpenAI Batch API, at half the price and within a day.

    Example:
        >>> from rag_ft.embedding import RequestPolicy
        >>> from rag_ft.remote import Estimate
        >>> def approve(estimate):
        ...     return estimate.dollars is not None and estimate.dollars < 1
        >>> request_policy = RequestPolicy(workers=4, requests_per_minute=500, approve=approve)  # for train_adapter
        >>> request_policy.approve(Estimate("text-embedding-3-small", 20, 2_000_000, 0, dollars=0.04))
        True
    """

    workers: int = 8
    requests_per_minute: float | None = None
    approve: Callable[[Estimate], bool] | None = None
    batch: bool = False

    def require_approval(self, estimate: Estimate) -> None:
        """Pass an estimate to `approve`, unless there is nothing to send.

        Raises:
            InputError: if it is not approved.
        """
        if estimate.calls:
            logger.info("vectors: %s", estimate)
            if self.approve is not None and not self.approve(estimate):
                raise InputError(f"nothing was embedded, since the estimate was not approved: {estimate}")


class RequestSender:
    """Sends requests for vectors, many at a time to a server, and retries them.

    Args:
        model: any LlamaIndex embedding.
        policy: how texts are sent to a server.
        store: stores vectors before they are used; None if they are not stored.
    """

    def __init__(self, model: BaseEmbedding, policy: RequestPolicy, store: Callable[[Vectors], None] | None) -> None:
        self.model, self.policy, self.store = model, policy, store
        self._responded = False
        self._limiter = rate_limiter(policy.requests_per_minute)

    def reference_vectors(self) -> NDArray[np.float32]:
        """Return the model's vectors of the reference texts, shape (4, dimension).

        Raises:
            OutsideError: if the embedding fails.
        """
        if not is_remote(self.model):
            return reference_vectors(self.model)
        call = self._retrying(reference_vectors, threading.Event())
        return call(_without_own_retries(self.model))  # type: ignore[no-any-return]

    def send(self, requests: Sequence[Request], role: Role) -> Iterator[Vectors]:
        """Yield the vectors of each request as they arrive; they are already stored.

        Raises:
            OutsideError: if the embedding fails after all retries.
        """
        embed = query_vectors if role == "query" else passage_vectors
        if is_remote(self.model):
            yield from self._send_in_parallel(requests, embed)
            return
        for request in requests:
            try:
                vectors = embed(self.model, list(request.values()))
            except RagFtError:
                raise
            except Exception as error:
                raise self._failure(error) from error
            yield self._stored(request, vectors)

    def _send_in_parallel(self, requests: Sequence[Request], embed: Callable[..., Any]) -> Iterator[Vectors]:
        stopped = threading.Event()
        call, model = self._retrying(embed, stopped), _without_own_retries(self.model)
        pool = ThreadPoolExecutor(max_workers=self.policy.workers, thread_name_prefix="rag_ft-vectors")
        waiting = iter(requests)
        running: dict[Future[list[list[float]]], Request] = {}
        try:
            while True:
                # Only as many requests start as are in flight: each one is paid for, so its vectors must be stored.
                for request in islice(waiting, self.policy.workers - len(running)):
                    running[pool.submit(call, model, list(request.values()))] = request
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    request = running.pop(future)
                    yield self._stored(request, future.result())
        finally:
            stopped.set()
            # The other requests in flight are paid for too, so their vectors are stored.
            for future, request in running.items():
                if not future.cancel():
                    try:
                        self._stored(request, future.result())
                    except Exception as error:
                        logger.debug("a request in flight failed too: %s", type(error).__name__)
            pool.shutdown(wait=False, cancel_futures=True)

    def _retrying(self, call: Callable[..., Any], stopped: threading.Event) -> Callable[..., Any]:
        """Return a call to the server that is retried, and whose last failure becomes an error of one line."""
        from tenacity import Retrying, retry_if_exception
        from tenacity.nap import sleep_using_event

        retrying = Retrying(
            stop=lambda state: stopped.is_set() or is_last_attempt(state, self._responded),
            wait=pause_before_next,
            retry=retry_if_exception(is_retryable),
            sleep=sleep_using_event(stopped),
            reraise=True,
        )

        def call_once(*arguments: Any) -> Any:
            if self._limiter is not None:
                self._limiter.acquire()
            result = call(*arguments)
            self._responded = True
            return result

        def call_with_retries(*arguments: Any) -> Any:
            try:
                return retrying(call_once, *arguments)
            except RagFtError:
                raise
            except Exception as error:
                raise self._failure(error) from None  # the chain would print the server's message, keys included

        return call_with_retries

    def _failure(self, error: Exception) -> OutsideError:
        fix = "progress is saved; run the same command to resume" if self.store is not None else "run it again"
        return OutsideError(f"the embedding {self.model.model_name} failed ({first_line(error)}): {fix}")

    def _stored(self, request: Request, vectors: Sequence[Sequence[float]]) -> Vectors:
        """Check the vectors of a request and store them.

        Raises:
            OutsideError: if there is not one finite vector per text.
        """
        name = self.model.model_name
        if len(vectors) != len(request) or len({len(vector) for vector in vectors}) != 1:
            raise OutsideError(f"the embedding {name} returned {len(vectors)} vectors for {len(request)} texts: retry")
        numbers = np.asarray(vectors, dtype=np.float32)
        if not np.isfinite(numbers).all():
            raise OutsideError(
                f"the embedding {name} returned vectors with NaN or infinity: none was stored, run again"
            )
        by_key = dict(zip(request, numbers, strict=True))
        if self.store is not None:
            self.store(by_key)
        return by_key


def _without_own_retries(model: BaseEmbedding) -> BaseEmbedding:
    """Return a copy without retries: they would not be counted, and would ignore the rate limit."""
    if not getattr(model, "max_retries", 0):
        return model
    copy = model.model_copy(update={"max_retries": 0})
    if getattr(copy, "_client", None) is not None:
        copy._client = None  # type: ignore[attr-defined]  # created with the old number of retries
    return copy
