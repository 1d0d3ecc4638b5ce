"""Requests for vectors, to a server or to a model on this machine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.embedding.identity import Role, is_remote, passage_vectors, probe, query_vectors
from rag_ft.errors import InputError, OutsideError, RagFtError, first_line
from rag_ft.remote.estimate import Estimate
from rag_ft.remote.pacing import rate_limiter
from rag_ft.remote.retries import is_last_attempt, is_retryable, pause_before_next

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Request = dict[bytes, str]
"""Texts by their keys."""

Vectors = dict[bytes, "NDArray[np.float32]"]


@dataclass(frozen=True)
class RequestPolicy:
    """How texts are sent to a server.

    Attributes:
        workers: number of requests in flight.
        requests_per_minute: maximum number of requests in any minute.
        approve: gets the estimate before the first request; nothing is sent if it returns False.
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

    def require_approval(self, expected: Estimate) -> None:
        """Show an estimate to `approve`, unless nothing is to be sent.

        Raises:
            InputError: if it is not approved.
        """
        if expected.calls:
            logger.info("vectors: %s", expected)
            if self.approve is not None and not self.approve(expected):
                raise InputError(f"nothing was embedded: {expected}")


class RequestSender:
    """Sends requests for vectors, many at a time to a server, and retries them.

    Args:
        model: any LlamaIndex embedding.
        policy: how texts are sent to a server.
        store: stores vectors before they count; None if they are not stored.
    """

    def __init__(self, model: BaseEmbedding, policy: RequestPolicy, store: Callable[[Vectors], None] | None) -> None:
        self.model, self.policy, self.store = model, policy, store
        self._responded = False
        self._limiter = rate_limiter(policy.requests_per_minute)

    def probe(self) -> NDArray[np.float32]:
        """Return the model's vectors of the probe texts, shape (4, dimension).

        Raises:
            OutsideError: if the embedding fails.
        """
        if not is_remote(self.model):
            return probe(self.model)
        found: NDArray[np.float32] = self._retrying(probe, threading.Event())(_without_own_retries(self.model))
        return found

    def send(self, requests: Sequence[Request], role: Role) -> Iterator[Vectors]:
        """Yield the vectors of each request when they arrive; they are stored by then.

        Raises:
            OutsideError: if the embedding fails for good.
        """
        embed = query_vectors if role == "query" else passage_vectors
        if is_remote(self.model):
            yield from self._send_in_flight(requests, embed)
            return
        for request in requests:
            try:
                vectors = embed(self.model, list(request.values()))
            except RagFtError:
                raise
            except Exception as error:
                raise self._failure(error) from error
            yield self._stored(request, vectors)

    def _send_in_flight(self, requests: Sequence[Request], embed: Callable[..., Any]) -> Iterator[Vectors]:
        ended = threading.Event()
        call, model = self._retrying(embed, ended), _without_own_retries(self.model)
        pool = ThreadPoolExecutor(max_workers=self.policy.workers, thread_name_prefix="rag_ft-vectors")
        waiting = iter(requests)
        running: dict[Future[list[list[float]]], Request] = {}
        try:
            while True:
                # No more requests start than are in flight: what is sent is paid for, and must reach the disk.
                for request in islice(waiting, self.policy.workers - len(running)):
                    running[pool.submit(call, model, list(request.values()))] = request
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    request = running.pop(future)
                    yield self._stored(request, future.result())
        finally:
            ended.set()
            # The other requests in flight are paid for too.
            for future, request in running.items():
                if not future.cancel():
                    try:
                        self._stored(request, future.result())
                    except Exception as error:
                        logger.debug("a request in flight failed too: %s", type(error).__name__)
            pool.shutdown(wait=False, cancel_futures=True)

    def _retrying(self, call: Callable[..., Any], ended: threading.Event) -> Callable[..., Any]:
        """Return a call to the server that is retried, and whose last failure is one clear line."""
        from tenacity import Retrying, retry_if_exception
        from tenacity.nap import sleep_using_event

        retrying = Retrying(
            stop=lambda state: ended.is_set() or is_last_attempt(state, self._responded),
            wait=pause_before_next,
            retry=retry_if_exception(is_retryable),
            sleep=sleep_using_event(ended),
            reraise=True,
        )

        def call_once(*arguments: Any) -> Any:
            if self._limiter is not None:
                self._limiter.acquire()
            found = call(*arguments)
            self._responded = True
            return found

        def call_with_retries(*arguments: Any) -> Any:
            try:
                return retrying(call_once, *arguments)
            except RagFtError:
                raise
            except Exception as error:
                raise self._failure(error) from None  # the chain would print the server's message, keys included

        return call_with_retries

    def _failure(self, error: Exception) -> OutsideError:
        kept = "what was embedded is kept, the same command goes on" if self.store is not None else "run it again"
        return OutsideError(f"the embedding {self.model.model_name} failed ({first_line(error)}): {kept}")

    def _stored(self, request: Request, vectors: Sequence[Sequence[float]]) -> Vectors:
        """Check the vectors of a request and store them.

        Raises:
            OutsideError: if there is not one finite vector per text.
        """
        name = self.model.model_name
        if len(vectors) != len(request) or len({len(vector) for vector in vectors}) != 1:
            raise OutsideError(f"the embedding {name} gave {len(vectors)} vectors of {len(request)} texts: run again")
        numbers = np.asarray(vectors, dtype=np.float32)
        if not np.isfinite(numbers).all():
            raise OutsideError(f"the embedding {name} gave vectors with NaN or infinity: nothing was kept")
        found = dict(zip(request, numbers, strict=True))
        if self.store is not None:
            self.store(found)
        return found


def _without_own_retries(model: BaseEmbedding) -> BaseEmbedding:
    """Return a copy that sends once: its own retries would neither be counted nor wait for the budget."""
    if not getattr(model, "max_retries", 0):
        return model
    copy = model.model_copy(update={"max_retries": 0})
    if getattr(copy, "_client", None) is not None:
        copy._client = None  # type: ignore[attr-defined]  # created with the old number of retries
    return copy
