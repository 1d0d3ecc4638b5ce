"""Passages -> an LLM's questions: several calls at a time, each answer durable before it counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.errors import OutsideError, RagFtError
from rag_ft.generation.journal import Journal, question_key
from rag_ft.generation.prompts import QUESTION_PROMPT, fenced, questions_in

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate

logger = logging.getLogger(__name__)

QUESTION = "question"
GIVE_UP_AFTER = 10
"""So many calls in a row that all failed mean that the LLM is down, not that a passage is odd."""


@dataclass(frozen=True)
class Call:
    """One prompt about one passage."""

    passage: str
    prompt: str
    key: str


def questions_from_llm(
    passages: Sequence[Passage],
    llm: LLM,
    *,
    count: int = 1,
    prompt: BasePromptTemplate | None = None,
    journal: Path | None = None,
    workers: int = 8,
    show_progress: bool = False,
) -> tuple[list[tuple[Query, str]], list[dict[str, str]]]:
    """Ask an LLM for questions on each passage.

    Args:
        passages: what to ask about.
        llm: any LlamaIndex LLM; one that has `complete_many` gets its calls in batches of its `batch_size`.
        count: questions for each passage.
        prompt: with the variables `passage` and `count`; the LLM's own `question_prompt` or `QUESTION_PROMPT`.
        journal: the file that keeps the answers; a run that was killed goes on from it.
        workers: calls in flight.
        show_progress: a progress bar with rate and time left.

    Returns:
        (query, passage id) pairs, and a row for `dropped.jsonl` for each passage without a question.

    Raises:
        OutsideError: where the LLM fails again and again; what was answered is in the journal.
    """
    template = prompt or getattr(llm, "question_prompt", None) or QUESTION_PROMPT
    words = getattr(llm, "passage_words", None)
    # The address counts too: two servers may give different models one name.
    identity = f"{llm.class_name()} {llm.metadata.model_name} {getattr(llm, 'api_base', '') or ''}"
    calls = []
    for passage in passages:
        text = " ".join(passage.text.split()[:words]) if words else passage.text
        asked = template.format(passage=fenced(text), count=count)
        calls.append(Call(passage.id, asked, question_key(identity, asked)))
    failures: dict[str, str] = {}
    with Journal(journal) as book:
        left = [call for call in {call.key: call for call in calls}.values() if call.key not in book.answers]
        if len(left) < len(calls):
            logger.info("%d of %d questions are in the journal already", len(calls) - len(left), len(calls))
        with tqdm(
            total=len(calls),
            initial=len(calls) - len(left),
            desc="questions",
            unit="passage",
            disable=not show_progress,
        ) as bar:
            for answered in _answers(llm, calls, left, workers, failures):
                book.record(answered)
                bar.update(len(answered))
        answers = dict(book.answers)
    pairs: list[tuple[Query, str]] = []
    dropped: list[dict[str, str]] = []
    for call in calls:
        found = questions_in(answers.get(call.key, ""), count)
        pairs += [
            (Query(f"{call.passage}:{QUESTION}{place}", text, QUESTION), call.passage)
            for place, text in enumerate(found, start=1)
        ]
        if not found:
            reason = failures.get(call.key, "the answer holds no question")
            dropped.append({"query": "", "passage": call.passage, "reason": reason, "style": QUESTION})
    return pairs, dropped


Answered = list[tuple[str, str]]


def _answers(
    llm: LLM, calls: Sequence[Call], left: Sequence[Call], workers: int, failures: dict[str, str]
) -> Iterator[Answered]:
    """Answers as they come, each group to be recorded at once."""
    many: Callable[[Sequence[str]], list[str]] | None = getattr(llm, "complete_many", None)
    if many is not None:
        # A batch's padding moves an answer's last digits, so batches are the same in every run, and one
        # that a kill broke is asked as it was before.
        wanted = {call.key for call in left}
        size = max(1, getattr(llm, "batch_size", 8))
        ordered = sorted({call.key: call for call in calls}.values(), key=lambda call: (len(call.prompt), call.key))
        for start in range(0, len(ordered), size):
            batch = ordered[start : start + size]
            if any(call.key in wanted for call in batch):
                answers = many([call.prompt for call in batch])
                yield [(call.key, text) for call, text in zip(batch, answers, strict=True) if call.key in wanted]
        return
    yield from _in_flight(llm, left, workers, failures)


def _in_flight(llm: LLM, calls: Iterable[Call], workers: int, failures: dict[str, str]) -> Iterator[Answered]:
    """Ask with so many calls in flight; a failed call is recorded, too many in a row end the run."""
    from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_random_exponential

    stopped = threading.Event()

    def ask(call: Call) -> str:
        for attempt in Retrying(
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.5, max=10),
            retry=retry_if_not_exception_type(RagFtError),
            reraise=True,
        ):
            with attempt:
                if stopped.is_set():
                    raise OutsideError("stopped")
                return str(llm.complete(call.prompt).text)
        raise AssertionError("a retry either returns or raises")

    in_a_row = answered = 0
    last: BaseException | None = None
    waiting = iter(calls)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="rag_ft-llm")
    try:
        pending = {pool.submit(ask, call): call for call in islice(waiting, workers)}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                call = pending.pop(future)
                error = future.exception()
                if error is None:
                    in_a_row = 0
                    answered += 1
                    yield [(call.key, future.result())]
                else:
                    in_a_row += 1
                    last = error
                    failures[call.key] = f"the LLM failed: {_short(error)}"
                    if in_a_row >= GIVE_UP_AFTER:
                        raise OutsideError(
                            f"the LLM failed {in_a_row} calls in a row ({_short(error)}): what was answered is kept, "
                            "the same command goes on"
                        ) from error
                if (following := next(waiting, None)) is not None:
                    pending[pool.submit(ask, following)] = following
        if last is not None and not answered:
            raise OutsideError(
                f"the LLM failed on all {in_a_row} calls ({_short(last)}): mend it and run again"
            ) from last
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _short(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120].rstrip(". ")
