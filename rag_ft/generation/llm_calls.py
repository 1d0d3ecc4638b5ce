"""Prompts -> answers of an LLM: many calls in flight, retries, a budget, and each answer durable before it counts."""

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
from rag_ft.remote.retries import attempts_for, is_outage, is_retryable, pause_before_next

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.rate_limiter import BaseRateLimiter
    from tenacity import RetryCallState

logger = logging.getLogger(__name__)

GIVE_UP_AFTER, GIVE_UP_AFTER_UNUSABLE = 10, 50
"""So many calls in a row that failed, or got no usable answer, mean that it is the LLM, not a few odd passages."""

ASKED = 2
"""An answer that is not what the prompt asked for is asked for again so often, in all."""


@dataclass(frozen=True)
class Call:
    """One prompt to an LLM.

    Attributes:
        key: what the answer belongs to in the journal (`request_key`).
        prompt: the text that is sent.
        strict: whether an answer is what was asked for; one that is not is asked for again.
        lenient: whether something can be made of an answer when asking again did not help.
    """

    key: str
    prompt: str
    strict: Callable[[str], bool] = lambda answer: True
    lenient: Callable[[str], bool] = lambda answer: True


@dataclass
class Answers:
    """What came of a list of calls.

    Attributes:
        answers: key -> answer.
        failures: key -> the reason why there is none.
        requests: how many requests were sent, retries and repeated questions included.
    """

    answers: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    outages: set[str] = field(default_factory=set)
    """Keys whose failure says something about the LLM or its server, and not about one passage."""


async def answer_calls(
    llm: LLM,
    calls: Sequence[Call],
    journal: Journal,
    *,
    workers: int = 8,
    limiter: BaseRateLimiter | None = None,
    threads: bool = False,
    show_progress: bool = False,
    description: str = "questions",
) -> Answers:
    """Answer calls, those in the journal from there, the others by the LLM.

    A request that fails with 429, 5xx, a timeout or a broken connection is sent again after a growing pause, or after
    the server's `Retry-After`. What failed for good is tried once more when all others are done, and is then recorded
    with its reason: one bad passage never stops a run.

    Args:
        llm: any LlamaIndex LLM; one that has `complete_many` gets its calls in batches of its `batch_size`.
        calls: what to ask; calls with one key are asked once.
        journal: open; what it holds is not asked again.
        workers: requests in flight.
        limiter: LlamaIndex's, asked before each request; one for all that is sent to a server.
        threads: call the LLM's synchronous method, each in a thread: for an LLM whose asynchronous client may belong
            to another event loop, or whose asynchronous method blocks. A `CustomLLM` is called so anyway.
        show_progress: a progress bar with rate and time left.
        description: of the progress bar.

    Raises:
        OutsideError: where 10 calls in a row failed, or all; what was answered is in the journal.
    """
    distinct = list({call.key: call for call in calls}.values())
    left = [call for call in distinct if call.key not in journal.responses]
    if len(left) < len(distinct):
        logger.info("%s: %d of %d are in the journal already", description, len(distinct) - len(left), len(distinct))
    result = Answers()
    with tqdm(
        total=len(distinct),
        initial=len(distinct) - len(left),
        desc=description,
        unit="call",
        disable=not show_progress,
    ) as bar:
        if hasattr(llm, "complete_many"):
            await _in_batches(llm, distinct, {call.key for call in left}, journal, result, bar)
        elif left:
            with _asking(llm, workers, limiter, threads, result) as ask:
                failed = await _in_flight(ask, left, workers, journal, result, bar)
                # An overloaded server, or an LLM in a bad minute, may have come to itself since.
                if failed and len(failed) < len(left):
                    logger.info("%s: %d calls failed and are tried once more", description, len(failed))
                    result.failures.clear()
                    failed = await _in_flight(ask, failed, max(1, workers // 4), journal, result, bar, last_round=True)
            outage = bool(failed) and all(call.key in result.outages for call in failed)
            if failed and (len(failed) == len(distinct) or (outage and len(failed) == len(left))):
                reason = result.failures[failed[-1].key]
                raise OutsideError(f"all {len(failed)} calls failed ({reason}): mend it and run again")
    result.answers = {call.key: journal.responses[call.key] for call in distinct if call.key in journal.responses}
    return result


async def _in_batches(
    llm: LLM, calls: Sequence[Call], wanted: set[str], journal: Journal, result: Answers, bar: tqdm
) -> None:
    # A batch's padding moves an answer's last digits, so batches are the same in every run, and one that a kill
    # broke is asked as it was before.
    size = max(1, getattr(llm, "batch_size", 8))
    ordered = sorted(calls, key=lambda call: (len(call.prompt), call.key))
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        if any(call.key in wanted for call in batch):
            texts = await asyncio.to_thread(llm.complete_many, [call.prompt for call in batch])  # type: ignore[attr-defined]
            answered = [(call.key, text) for call, text in zip(batch, texts, strict=True) if call.key in wanted]
            journal.record(answered)
            result.requests += len(batch)
            bar.update(len(answered))


Ask = Callable[[str, bool], Awaitable[str]]
"""A prompt, and whether any call was answered yet -> its answer, after retries."""


async def _in_flight(
    ask: Ask,
    calls: Sequence[Call],
    workers: int,
    journal: Journal,
    result: Answers,
    bar: tqdm,
    last_round: bool = False,
) -> list[Call]:
    """Answer calls, so many at a time; return those that failed."""
    waiting = iter(calls)
    failed: list[Call] = []
    outages = unusable = 0  # in a row
    answered = False
    done: asyncio.Queue[tuple[Call, str | BaseException, asyncio.Event]] = asyncio.Queue()

    async def work() -> None:
        for call in waiting:
            outcome: str | BaseException
            try:
                outcome = await _accepted(ask, call, answered)
            except BaseException as error:
                # An HTTP client may cancel a request of its own accord; only our own end is the end.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                outcome = error
            # The next call waits until this answer is on the disk: a kill loses what is in flight, and no more.
            durable = asyncio.Event()
            done.put_nowait((call, outcome, durable))
            await durable.wait()

    tasks = [asyncio.create_task(work()) for _ in range(min(workers, len(calls)))]
    try:
        left = len(calls)
        while left:
            came = [await done.get()]
            while not done.empty():
                came.append(done.get_nowait())
            left -= len(came)
            good: list[tuple[str, str]] = []
            for call, outcome, _ in came:
                if isinstance(outcome, str):
                    good.append((call.key, outcome))
                    outages, unusable, answered = 0, 0, True
                elif not isinstance(outcome, (Exception, asyncio.CancelledError)):
                    raise outcome
                else:
                    if is_outage(outcome):
                        outages += 1
                        result.outages.add(call.key)
                    else:
                        unusable += 1
                    failed.append(call)
                    result.failures[call.key] = _reason(outcome)
            # Several answers share one write to the disk, and the other calls go on meanwhile.
            await _to_the_end(journal.record, good)
            for _, _, durable in came:
                durable.set()
            bar.update(len(good))
            if outages >= GIVE_UP_AFTER or (unusable >= GIVE_UP_AFTER_UNUSABLE and not last_round):
                raise OutsideError(
                    f"{max(outages, unusable)} calls in a row failed ({result.failures[failed[-1].key]}): what was "
                    "answered is kept, the same command goes on"
                )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        rest = [done.get_nowait() for _ in range(done.qsize())]
        journal.record([(call.key, outcome) for call, outcome, _ in rest if isinstance(outcome, str)])
    return failed


async def _to_the_end(write: Callable[[list[tuple[str, str]]], None], answers: list[tuple[str, str]]) -> None:
    """Write in a thread; a cancellation waits for it, since the journal is closed after that."""
    writing = asyncio.create_task(asyncio.to_thread(write, answers))
    try:
        await asyncio.shield(writing)
    finally:
        await asyncio.wait([writing])


async def _accepted(ask: Ask, call: Call, answered: bool) -> str:
    """The answer to a call, asked for again where it is not what was asked for.

    Raises:
        NoUsableAnswerError: where nothing can be made of any of the answers.
    """
    texts: list[str] = []
    for turn in range(ASKED):
        texts.append(await ask(call.prompt + (REMINDER if turn else ""), answered or turn > 0))
        if call.strict(texts[-1]):
            return texts[-1]
    for text in reversed(texts):
        if call.lenient(text):
            return text
    raise NoUsableAnswerError(texts[-1])


class NoUsableAnswerError(Exception):
    """An LLM answered, and not with what it was asked for."""

    def __str__(self) -> str:
        return f"no usable answer: {' '.join(str(self.args[0]).split())[:60]!r}"


@contextmanager
def _asking(llm: LLM, workers: int, limiter: BaseRateLimiter | None, threads: bool, result: Answers) -> Iterator[Ask]:
    """How one prompt becomes one answer: through the budget, with retries."""
    from llama_index.core.llms import CustomLLM
    from tenacity import AsyncRetrying, retry_if_exception

    if getattr(llm, "max_retries", 0):  # its own tries would neither be counted nor wait for the budget
        llm = llm.model_copy(update={"max_retries": 0})
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="rag_ft-llm")
    # A CustomLLM's asynchronous method is its synchronous one, and would hold all others up.
    in_threads = threads or isinstance(llm, CustomLLM)

    async def once(prompt: str) -> str:
        if limiter is not None:
            await limiter.async_acquire()
        result.requests += 1
        if not in_threads:
            return str((await llm.acomplete(prompt)).text)
        return str((await asyncio.get_running_loop().run_in_executor(pool, llm.complete, prompt)).text)

    async def ask(prompt: str, answered: bool) -> str:
        def stop(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            return state.attempt_number >= attempts_for(error, answered)

        retrying = AsyncRetrying(
            stop=stop,
            wait=pause_before_next,
            retry=retry_if_exception(is_retryable),
            reraise=True,
        )
        return await retrying(once, prompt)

    try:
        yield ask
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _reason(error: BaseException) -> str:
    """One short line on what went wrong."""
    return str(error) if isinstance(error, NoUsableAnswerError) else f"the LLM failed: {first_line(error)}"
