"""Send requests to an LLM: concurrently, with retries and a rate limit. Each response is stored before it is used."""

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
"""Number of consecutive failures (failed calls, unusable responses) after which the run stops."""

MAX_PROMPTS = 2
"""Maximum number of times that a prompt is sent until its response is valid."""


@dataclass(frozen=True)
class LLMRequest:
    """One prompt to an LLM. Any response is accepted; subclasses check it.

    Attributes:
        key: the key of the response in the journal (`request_key`).
        prompt: the text that is sent.
    """

    key: str
    prompt: str

    def is_valid(self, response: str) -> bool:
        """Return whether a response has the requested format. If not, the prompt is sent again."""
        return True

    def is_usable(self, response: str) -> bool:
        """Return whether an invalid response can still be used."""
        return True


@dataclass
class LLMResponses:
    """The responses to a list of requests.

    Attributes:
        responses: key -> response.
        failures: key -> why there is no response.
        sent: number of requests sent, including retries and repeated prompts.
        outages: keys of requests that failed because of the LLM or its server, not because of their passage.
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
        limiter: a LlamaIndex rate limiter, shared by all requests to a server.
        threads: call the LLM's synchronous method in threads. Use it if the LLM's asynchronous client may belong to
            another event loop, or its asynchronous method blocks. A `CustomLLM` is always called this way.
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

    A request that fails with 429, 5xx, a timeout or a broken connection is retried after a growing pause, or after the
    server's `Retry-After`. Requests whose retries failed are sent once more after all others. Those that fail again are
    recorded with their reason, so one bad passage never stops a run.

    Args:
        llm: any LlamaIndex LLM. If it has `complete_many`, prompts are sent in batches of its `batch_size`.
        requests: the requests; those with the same key are sent once.
        journal: an open journal.
        options: how the requests are sent.

    Raises:
        OutsideError: if 10 consecutive calls failed, or all. The responses so far are in the journal.
    """
    options = options or CallOptions()
    distinct = list({request.key: request for request in requests}.values())
    missing = [request for request in distinct if request.key not in journal.responses]
    in_journal = len(distinct) - len(missing)
    if in_journal:
        logger.info("%s: %d of %d are already in the journal", options.description, in_journal, len(distinct))
    result = LLMResponses()
    with tqdm(
        total=len(distinct),
        initial=in_journal,
        desc=options.description,
        unit="call",
        disable=not options.show_progress,
    ) as bar:
        if hasattr(llm, "complete_many"):
            await _complete_in_batches(llm, distinct, journal, result, bar)
        elif missing:
            failed = await _send_twice(llm, missing, _InFlight(journal, result, bar), options)
            outage = bool(failed) and all(request.key in result.outages for request in failed)
            if failed and (len(failed) == len(distinct) or (outage and len(failed) == len(missing))):
                reason = result.failures[failed[-1].key]
                raise OutsideError(f"all {len(failed)} calls failed ({reason}): fix it and run again")
    result.responses = {each.key: journal.responses[each.key] for each in distinct if each.key in journal.responses}
    return result


async def _complete_in_batches(
    llm: LLM, requests: Sequence[LLMRequest], journal: Journal, result: LLMResponses, bar: tqdm
) -> None:
    # Padding changes the logits slightly, so the batches must be the same in every run. A batch that was interrupted is
    # computed again as a whole.
    missing = {request.key for request in requests if request.key not in journal.responses}
    size = max(1, getattr(llm, "batch_size", 8))
    ordered = sorted(requests, key=lambda request: (len(request.prompt), request.key))
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        if any(request.key in missing for request in batch):
            prompts = [request.prompt for request in batch]
            texts = await asyncio.to_thread(llm.complete_many, prompts)  # type: ignore[attr-defined]
            new = [(request.key, text) for request, text in zip(batch, texts, strict=True) if request.key in missing]
            journal.record(new)
            result.sent += len(batch)
            bar.update(len(new))


async def _send_twice(
    llm: LLM, requests: Sequence[LLMRequest], in_flight: _InFlight, options: CallOptions
) -> list[LLMRequest]:
    """Send requests, send those that failed once more, and return those that failed again."""
    result = in_flight.result
    with _retrying_sender(llm, options, result) as send:
        failed = await in_flight.run(send, requests, options.workers)
        # An overloaded server may have recovered by now.
        if failed and len(failed) < len(requests):
            logger.info("%s: %d calls failed and are sent once more", options.description, len(failed))
            result.failures.clear()
            failed = await in_flight.run(send, failed, max(1, options.workers // 4), is_last_round=True)
    return failed


Send = Callable[[str, bool], Awaitable[str]]
"""(prompt, whether the server has responded before) -> response, after retries."""

_Outcome = tuple[LLMRequest, "str | BaseException", asyncio.Event]
"""A request, its response or error, and the event that is set when the outcome is stored."""


@dataclass
class _InFlight:
    """Sends requests concurrently and writes their responses to the journal in groups."""

    journal: Journal
    result: LLMResponses
    bar: tqdm

    async def run(
        self, send: Send, requests: Sequence[LLMRequest], workers: int, is_last_round: bool = False
    ) -> list[LLMRequest]:
        """Send requests with a number of workers, and return those that failed."""
        self._outages = self._unusable = 0  # consecutive failures
        self._responded = False
        self._failed: list[LLMRequest] = []
        finished: asyncio.Queue[_Outcome] = asyncio.Queue()
        waiting = iter(requests)
        tasks = [asyncio.create_task(self._work(send, waiting, finished)) for _ in range(min(workers, len(requests)))]
        try:
            remaining = len(requests)
            while remaining:
                outcomes = [await finished.get()]
                while not finished.empty():
                    outcomes.append(finished.get_nowait())
                remaining -= len(outcomes)
                await self._store(outcomes)
                self._check_consecutive_failures(is_last_round)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            unsaved = [finished.get_nowait() for _ in range(finished.qsize())]
            self.journal.record([(request.key, text) for request, text, _ in unsaved if isinstance(text, str)])
        return self._failed

    async def _work(self, send: Send, waiting: Iterator[LLMRequest], finished: asyncio.Queue[_Outcome]) -> None:
        for request in waiting:
            outcome: str | BaseException
            try:
                outcome = await _usable_response(send, request, self._responded)
            except BaseException as error:
                # An HTTP client may cancel a request. Only the cancellation of this task ends the task.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                outcome = error
            # The next request waits until this response is on the disk, so a kill only loses requests in flight.
            stored = asyncio.Event()
            finished.put_nowait((request, outcome, stored))
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
        # Other calls continue during the write.
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

    def _check_consecutive_failures(self, is_last_round: bool) -> None:
        if self._outages >= MAX_OUTAGES_IN_A_ROW or (self._unusable >= MAX_UNUSABLE_IN_A_ROW and not is_last_round):
            raise OutsideError(
                f"{max(self._outages, self._unusable)} consecutive calls failed "
                f"({self.result.failures[self._failed[-1].key]}): progress is saved; run the same command to resume"
            )


async def _run_to_the_end(write: Callable[[], None]) -> None:
    """Write in a thread. A cancellation waits for the write, because the journal is closed afterwards."""
    writing = asyncio.create_task(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    finally:
        await asyncio.wait([writing])


async def _usable_response(send: Send, request: LLMRequest, responded: bool) -> str:
    """Return the response to a request. If it is invalid, the prompt is sent again.

    Raises:
        NoUsableResponseError: if no response can be used.
    """
    texts: list[str] = []
    for attempt in range(MAX_PROMPTS):
        texts.append(await send(request.prompt + (REMINDER if attempt else ""), responded or attempt > 0))
        if request.is_valid(texts[-1]):
            return texts[-1]
    for text in reversed(texts):
        if request.is_usable(text):
            return text
    raise NoUsableResponseError(texts[-1])


class NoUsableResponseError(Exception):
    """The response of an LLM does not contain what the prompt asked for."""

    def __str__(self) -> str:
        return f"no usable answer: {' '.join(str(self.args[0]).split())[:60]!r}"


@contextmanager
def _retrying_sender(llm: LLM, options: CallOptions, result: LLMResponses) -> Iterator[Send]:
    """Yield a function that sends a prompt within the rate limit and retries it."""
    from llama_index.core.llms import CustomLLM
    from tenacity import AsyncRetrying, retry_if_exception

    if getattr(llm, "max_retries", 0):  # its own retries would be neither counted nor rate-limited
        llm = llm.model_copy(update={"max_retries": 0})
    pool = ThreadPoolExecutor(max_workers=options.workers, thread_name_prefix="rag_ft-llm")
    # The asynchronous method of a CustomLLM calls its synchronous one, which would block all other requests.
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
