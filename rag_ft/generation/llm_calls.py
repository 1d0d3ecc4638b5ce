"""Calls to an LLM: many in flight, with retries and a budget, and each response stored before it counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from rag_ft.errors import OutsideError, first_line
from rag_ft.generation.journal import Journal
from rag_ft.generation.prompts import REMINDER
from rag_ft.remote.retries import is_last_attempt, is_outage, is_retryable, pause_before_next

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.rate_limiter import BaseRateLimiter

logger = logging.getLogger(__name__)

MAX_OUTAGES_IN_A_ROW, MAX_UNUSABLE_IN_A_ROW = 10, 50
"""After so many failed calls or unusable responses in a row, the LLM is to blame, not a few odd passages."""

MAX_PROMPTS = 2
"""How often an LLM is prompted until its response is valid."""


@dataclass(frozen=True)
class LLMRequest:
    """One prompt to an LLM, which accepts any response. Subclasses check the response.

    Attributes:
        key: the key of the response in the journal (`request_key`).
        prompt: the text that is sent.
    """

    key: str
    prompt: str

    def is_valid(self, response: str) -> bool:
        """Return whether a response has the form that the prompt asks for; the prompt is sent again if not."""
        return True

    def is_usable(self, response: str) -> bool:
        """Return whether something can be made of an invalid response."""
        return True


@dataclass
class LLMResponses:
    """The responses to a list of requests.

    Attributes:
        responses: key -> response.
        failures: key -> why there is no response.
        sent: number of requests sent, including retries and repeated prompts.
        outages: keys whose failure is about the LLM or its server, not about one passage.
    """

    responses: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    outages: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """How requests are sent to an LLM.

    Attributes:
        workers: number of requests in flight.
        limiter: LlamaIndex's rate limiter, one for everything that is sent to a server.
        threads: call the LLM's synchronous method in threads. This is for an LLM whose asynchronous client may belong
            to another event loop, or whose asynchronous method blocks. A `CustomLLM` is always called this way.
        show_progress: show a progress bar with rate and time left.
        description: description of the progress bar.
    """

    workers: int = 8
    limiter: BaseRateLimiter | None = None
    threads: bool = False
    show_progress: bool = False
    description: str = "questions"


async def send_requests(
    llm: LLM, requests: Sequence[LLMRequest], journal: Journal, options: CallOptions | None = None
) -> LLMResponses:
    """Send requests to an LLM, except those whose response is in the journal.

    A request that fails with 429, 5xx, a timeout or a broken connection is sent again after a growing pause, or after
    the server's `Retry-After`. Requests that failed for good are tried once more after all others; those that fail
    again are recorded with their reason, so one bad passage never stops a run.

    Args:
        llm: any LlamaIndex LLM. One with `complete_many` gets its prompts in batches of its `batch_size`.
        requests: the requests; those with the same key are sent once.
        journal: an open journal.
        options: how the requests are sent.

    Raises:
        OutsideError: if 10 calls in a row failed, or all; the responses so far are in the journal.
    """
    options = options or CallOptions()
    distinct = list({request.key: request for request in requests}.values())
    left = [request for request in distinct if request.key not in journal.responses]
    known = len(distinct) - len(left)
    if known:
        logger.info("%s: %d of %d are in the journal already", options.description, known, len(distinct))
    result = LLMResponses()
    with tqdm(
        total=len(distinct), initial=known, desc=options.description, unit="call", disable=not options.show_progress
    ) as bar:
        if hasattr(llm, "complete_many"):
            await _complete_in_batches(llm, distinct, journal, result, bar)
        elif left:
            failed = await _send_twice(llm, left, _InFlight(journal, result, bar), options)
            outage = bool(failed) and all(request.key in result.outages for request in failed)
            if failed and (len(failed) == len(distinct) or (outage and len(failed) == len(left))):
                reason = result.failures[failed[-1].key]
                raise OutsideError(f"all {len(failed)} calls failed ({reason}): fix it and run again")
    result.responses = {each.key: journal.responses[each.key] for each in distinct if each.key in journal.responses}
    return result


async def _complete_in_batches(
    llm: LLM, requests: Sequence[LLMRequest], journal: Journal, result: LLMResponses, bar: tqdm
) -> None:
    # Padding changes the last digits of a response, so the batches must be the same in every run. A batch that a kill
    # interrupted is completed as it was before.
    wanted = {request.key for request in requests if request.key not in journal.responses}
    size = max(1, getattr(llm, "batch_size", 8))
    ordered = sorted(requests, key=lambda request: (len(request.prompt), request.key))
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        if any(request.key in wanted for request in batch):
            prompts = [request.prompt for request in batch]
            texts = await asyncio.to_thread(llm.complete_many, prompts)  # type: ignore[attr-defined]
            new = [(request.key, text) for request, text in zip(batch, texts, strict=True) if request.key in wanted]
            journal.record(new)
            result.sent += len(batch)
            bar.update(len(new))


async def _send_twice(
    llm: LLM, requests: Sequence[LLMRequest], in_flight: _InFlight, options: CallOptions
) -> list[LLMRequest]:
    """Send requests, and once more those that failed; return those that failed again."""
    result = in_flight.result
    with _retrying_sender(llm, options, result) as send:
        failed = await in_flight.run(send, requests, options.workers)
        # An overloaded server may have recovered since.
        if failed and len(failed) < len(requests):
            logger.info("%s: %d calls failed and are tried once more", options.description, len(failed))
            result.failures.clear()
            failed = await in_flight.run(send, failed, max(1, options.workers // 4), is_last_round=True)
    return failed


Send = Callable[[str, bool], Awaitable[str]]
"""(prompt, whether the server has responded before) -> response, after retries."""

_Outcome = tuple[LLMRequest, "str | BaseException", asyncio.Event]
"""A request, its response or error, and the event that says that the outcome is stored."""


@dataclass
class _InFlight:
    """Requests in flight, whose responses share writes to the journal."""

    journal: Journal
    result: LLMResponses
    bar: tqdm

    async def run(
        self, send: Send, requests: Sequence[LLMRequest], workers: int, is_last_round: bool = False
    ) -> list[LLMRequest]:
        """Send requests, a number of them at a time, and return those that failed."""
        self._outages = self._unusable = 0  # in a row
        self._responded = False
        self._failed: list[LLMRequest] = []
        done: asyncio.Queue[_Outcome] = asyncio.Queue()
        waiting = iter(requests)
        tasks = [asyncio.create_task(self._work(send, waiting, done)) for _ in range(min(workers, len(requests)))]
        try:
            left = len(requests)
            while left:
                outcomes = [await done.get()]
                while not done.empty():
                    outcomes.append(done.get_nowait())
                left -= len(outcomes)
                await self._store(outcomes)
                self._check_failures_in_a_row(is_last_round)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            rest = [done.get_nowait() for _ in range(done.qsize())]
            self.journal.record([(request.key, text) for request, text, _ in rest if isinstance(text, str)])
        return self._failed

    async def _work(self, send: Send, waiting: Iterator[LLMRequest], done: asyncio.Queue[_Outcome]) -> None:
        for request in waiting:
            outcome: str | BaseException
            try:
                outcome = await _usable_response(send, request, self._responded)
            except BaseException as error:
                # An HTTP client may cancel a request by itself. Only the cancellation of this task ends it.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                outcome = error
            # The next request waits until this response is on the disk, so a kill only loses what is in flight.
            stored = asyncio.Event()
            done.put_nowait((request, outcome, stored))
            await stored.wait()

    async def _store(self, outcomes: Sequence[_Outcome]) -> None:
        responses: list[tuple[str, str]] = []
        for request, outcome, _ in outcomes:
            if isinstance(outcome, str):
                responses.append((request.key, outcome))
                self._outages, self._unusable, self._responded = 0, 0, True
            elif isinstance(outcome, (Exception, asyncio.CancelledError)):
                self._note_failure(request, outcome)
            else:
                raise outcome
        # The other calls go on during the write.
        await _run_to_the_end(lambda: self.journal.record(responses))
        for _, _, stored in outcomes:
            stored.set()
        self.bar.update(len(responses))

    def _note_failure(self, request: LLMRequest, error: BaseException) -> None:
        if is_outage(error):
            self._outages += 1
            self.result.outages.add(request.key)
        else:
            self._unusable += 1
        self._failed.append(request)
        reason = str(error) if isinstance(error, NoUsableResponseError) else f"the LLM failed: {first_line(error)}"
        self.result.failures[request.key] = reason

    def _check_failures_in_a_row(self, is_last_round: bool) -> None:
        if self._outages >= MAX_OUTAGES_IN_A_ROW or (self._unusable >= MAX_UNUSABLE_IN_A_ROW and not is_last_round):
            raise OutsideError(
                f"{max(self._outages, self._unusable)} calls in a row failed "
                f"({self.result.failures[self._failed[-1].key]}): what was answered is kept, the same command goes on"
            )


async def _run_to_the_end(write: Callable[[], None]) -> None:
    """Write in a thread; a cancellation waits for it, since the journal is closed afterwards."""
    writing = asyncio.create_task(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    finally:
        await asyncio.wait([writing])


async def _usable_response(send: Send, request: LLMRequest, responded: bool) -> str:
    """Return the response to a request; the prompt is sent again if the response is invalid.

    Raises:
        NoUsableResponseError: if nothing can be made of any response.
    """
    texts: list[str] = []
    for turn in range(MAX_PROMPTS):
        texts.append(await send(request.prompt + (REMINDER if turn else ""), responded or turn > 0))
        if request.is_valid(texts[-1]):
            return texts[-1]
    for text in reversed(texts):
        if request.is_usable(text):
            return text
    raise NoUsableResponseError(texts[-1])


class NoUsableResponseError(Exception):
    """An LLM responded with something other than what the prompt asked for."""

    def __str__(self) -> str:
        return f"no usable answer: {' '.join(str(self.args[0]).split())[:60]!r}"


@contextmanager
def _retrying_sender(llm: LLM, options: CallOptions, result: LLMResponses) -> Iterator[Send]:
    """Yield a function that sends a prompt within the budget and retries it."""
    from llama_index.core.llms import CustomLLM
    from tenacity import AsyncRetrying, retry_if_exception

    if getattr(llm, "max_retries", 0):  # its own retries would neither be counted nor wait for the budget
        llm = llm.model_copy(update={"max_retries": 0})
    pool = ThreadPoolExecutor(max_workers=options.workers, thread_name_prefix="rag_ft-llm")
    # The asynchronous method of a CustomLLM is its synchronous one, and would block all other requests.
    in_threads = options.threads or isinstance(llm, CustomLLM)

    async def send_once(prompt: str) -> str:
        if options.limiter is not None:
            await options.limiter.async_acquire()
        result.sent += 1
        if not in_threads:
            return str((await llm.acomplete(prompt)).text)
        return str((await asyncio.get_running_loop().run_in_executor(pool, llm.complete, prompt)).text)

    async def send(prompt: str, responded: bool) -> str:
        retrying = AsyncRetrying(
            stop=lambda state: is_last_attempt(state, responded),
            wait=pause_before_next,
            retry=retry_if_exception(is_retryable),
            reraise=True,
        )
        return await retrying(send_once, prompt)

    try:
        yield send
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
