"""Passages -> an LLM's questions: what each passage is asked, and what became of the answers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.dataset.text.language import language_of
from rag_ft.errors import InputError
from rag_ft.files import sha256_of
from rag_ft.generation.journal import Journal, request_key
from rag_ft.generation.llm_calls import Answers, Call, answer_calls
from rag_ft.generation.llm_estimate import estimate
from rag_ft.generation.prompts import (
    QUESTION_AND_ANSWER_PROMPT,
    QUESTION_PROMPT,
    STYLES,
    GeneratedQuestion,
    described,
    fenced,
    is_json,
    questions_in,
    questions_in_json,
    questions_leniently,
    styles_for,
    wants_json,
)
from rag_ft.remote.estimate import Estimate

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate
    from llama_index.core.rate_limiter import BaseRateLimiter

    from rag_ft.generation.filters import Pair, Row

logger = logging.getLogger(__name__)

T = TypeVar("T")

VARIABLES = {"passage", "count", "styles", "language"}
"""Of a prompt."""

LOCAL_PASSAGES = 300
"""Passages that a local LLM is asked about at most: on two cores it takes one to three seconds for each."""


@dataclass(frozen=True)
class Asking:
    """How an LLM is asked for questions.

    Attributes:
        questions_per_passage: in one call.
        styles: kinds of question, names of `STYLES` or descriptions of your own; which of them a passage is asked for
            follows from its text.
        answers: ask for an answer and its evidence with each question.
        prompt: with the variables `passage`, `count`, `styles` and `language` (those that it uses), in place of the
            built-in one; one that does not ask for JSON gets its answers read line by line.
        max_passages: a random sample that is asked about; a local LLM gets 300 where None, others all.
        journal: a file that keeps each answer; a run that was killed goes on from it.
        workers: requests in flight.
        requests_per_minute: never send more in any minute.
        batch: go through the OpenAI Batch API, at half the price and within a day.
        judge: an LLM that is shown each question with its passage and may drop it.
        approve: is shown the estimate before the first call; nothing is asked where it returns False.
    """

    questions_per_passage: int = 2
    styles: Sequence[str] = field(default=tuple(STYLES))
    answers: bool = False
    prompt: BasePromptTemplate | None = None
    max_passages: int | None = None
    journal: str | Path | None = None
    workers: int = 8
    requests_per_minute: float | None = None
    batch: bool = False
    judge: LLM | None = None
    approve: Callable[[Estimate], bool] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: with the setting and its value.
        """
        if isinstance(self.styles, str) or not self.styles:
            raise InputError(f"styles is {self.styles!r}: give a list of at least one, like ['question', 'keywords']")
        for name in ("questions_per_passage", "workers", "max_passages", "requests_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value!r}: give 1 or more")

    @cached_property
    def limiter(self) -> BaseRateLimiter | None:
        """The budget of requests, one for the questions and the judge."""
        from llama_index.core.rate_limiter import SlidingWindowRateLimiter

        budget = self.requests_per_minute
        return SlidingWindowRateLimiter(requests_per_minute=budget) if budget else None


@dataclass(frozen=True)
class LLMQuestions:
    """What asking an LLM brought.

    Attributes:
        pairs: (query, passage id).
        dropped: a row for each passage without a question, with the reason.
        requests: sent, retries included.
        styles: the kinds of question that were asked for.
    """

    pairs: list[Pair]
    dropped: list[Row]
    requests: int
    styles: set[str]


def questions_from_llm(
    passages: Sequence[Passage], llm: LLM, *, seed: int = 0, show_progress: bool = False, **asking: Any
) -> LLMQuestions:
    """Ask an LLM for questions on passages.

    Args:
        passages: what to ask about.
        llm: any LlamaIndex LLM.
        seed: of the sample, where there is a `max_passages`.
        show_progress: a progress bar with rate and time left.
        **asking: see `Asking`.

    Raises:
        InputError: where a setting or a prompt cannot be meant.
        OutsideError: where the LLM fails again and again; what was answered is in the journal.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> from rag_ft import Passage
        >>> from rag_ft.generation import questions_from_llm
        >>> class Asks(MockLLM):
        ...     def complete(self, prompt, formatted=False, **kwargs):
        ...         answer = '{"questions": [{"style": "question", "question": "Where is leave booked?"}]}'
        ...         return super().complete(answer, formatted, **kwargs)
        >>> found = questions_from_llm([Passage("leave", "Leave is booked in HELM.")], Asks(), questions_per_passage=1)
        >>> [(query.text, passage) for query, passage in found.pairs], found.requests
        ([('Where is leave booked?', 'leave')], 1)
    """
    settings = Asking(**asking)
    return run_coroutine(ask_questions(passages, llm, settings, seed=seed, threads=True, show_progress=show_progress))


async def ask_questions(
    passages: Sequence[Passage], llm: LLM, asking: Asking, *, seed: int, threads: bool, show_progress: bool
) -> LLMQuestions:
    """`questions_from_llm` within a running event loop; `threads` as in `answer_calls`."""
    chosen = _sample(passages, llm, asking, seed)
    plan = plan_questions(chosen, llm, asking)
    result = await answer_all(
        llm,
        [asked.call for asked in plan],
        asking,
        questions=asking.questions_per_passage,
        threads=threads,
        show_progress=show_progress,
    )
    pairs, dropped = collect_questions(plan, result)
    styles = {style for call in plan for style in call.styles}
    return LLMQuestions(pairs, dropped, result.requests, styles)


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from a notebook's running loop too; an interrupt cancels it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def known() -> T:
        if (task := asyncio.current_task()) is not None:
            running.append((asyncio.get_running_loop(), task))
        return await coroutine

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(contextvars.copy_context().run, asyncio.run, known())
        try:
            return future.result()
        except KeyboardInterrupt:
            for loop, task in running:
                loop.call_soon_threadsafe(task.cancel)
            raise


@dataclass(frozen=True)
class PassageCall:
    """A passage, the kinds of question that it is asked for, and the call that does it."""

    passage: Passage
    styles: tuple[str, ...]
    call: Call
    json: bool

    def questions(self, answer: str) -> list[GeneratedQuestion]:
        """The questions in an answer; none where it holds none."""
        if not self.json and not is_json(answer):
            return [GeneratedQuestion(text, self.styles[0]) for text in questions_in(answer, len(self.styles))]
        strict = questions_in_json(answer, self.styles, self.passage.text)
        return strict if strict is not None else questions_leniently(answer, self.styles, self.passage.text)


def plan_questions(passages: Sequence[Passage], llm: LLM, asking: Asking) -> list[PassageCall]:
    """What each passage will be asked: one call for a passage, for so many questions of several kinds.

    The LLM's name and address belong to the key of each answer. A small one may have a `question_prompt`, and a number
    of `passage_words` that it is shown.
    """
    template = (
        asking.prompt
        or getattr(llm, "question_prompt", None)
        or (QUESTION_AND_ANSWER_PROMPT if asking.answers else QUESTION_PROMPT)
    )
    words = getattr(llm, "passage_words", None)
    identity = llm_identity(llm)
    json = wants_json(template)
    # JSON in braces is no variable.
    variables = {name for name in template.template_vars if name.isidentifier()}
    if "passage" not in variables or variables - VARIABLES:
        raise InputError(
            f"the prompt has the variables {', '.join(sorted(variables)) or 'none'}: it needs {{passage}}, and may use "
            "{count}, {styles} and {language}"
        )
    count = asking.questions_per_passage
    plan = []
    for passage in passages:
        styled = styles_for(passage.text, asking.styles, count) if "styles" in variables else ["question"] * count
        chosen = tuple(styled)
        text = " ".join(passage.text.split()[:words]) if words else passage.text
        shown: dict[str, Any] = {"passage": fenced(text), "count": count}
        if "styles" in variables:
            shown["styles"] = described(chosen)
        if "language" in variables:
            code = language_of(passage.text)
            shown["language"] = f"the language of the text ({code})" if code else "the language of the text"
        asked = template.format(**{name: value for name, value in shown.items() if name in variables})
        key = request_key(identity, asked)
        call = Call(key, asked, _has_line, _has_line)
        if json:
            call = Call(
                key,
                asked,
                partial(_is_json, styles=chosen, passage=passage.text),
                partial(_has_question, styles=chosen, passage=passage.text),
            )
        plan.append(PassageCall(passage, chosen, call, json))
    return plan


def _sample(passages: Sequence[Passage], llm: LLM, asking: Asking, seed: int) -> Sequence[Passage]:
    most = asking.max_passages
    if most is None and hasattr(llm, "complete_many"):
        most = LOCAL_PASSAGES
    if most is None or most >= len(passages):
        return passages
    logger.info("the LLM is asked about %d of %d passages", most, len(passages))
    # By their texts: a document that comes or goes changes little of the sample, and the journal holds.
    drawn = set(sorted(range(len(passages)), key=lambda place: sha256_of(str(seed), passages[place].text))[:most])
    return [passage for place, passage in enumerate(passages) if place in drawn]


async def answer_all(
    llm: LLM,
    calls: Sequence[Call],
    asking: Asking,
    *,
    questions: int,
    threads: bool,
    show_progress: bool,
    description: str = "questions",
) -> Answers:
    """Answer calls as `asking` says: after the estimate was approved, in flight or through the Batch API.

    Args:
        llm: who is asked.
        calls: what.
        asking: journal, workers, budget, batch and approval.
        questions: asked for by each call, for the estimate.
        threads: as in `answer_calls`.
        show_progress: a progress bar.
        description: of the progress bar.
    """
    with Journal(Path(asking.journal) if asking.journal else None) as journal:
        left = {call.key: call.prompt for call in calls if call.key not in journal.responses}
        if left:
            expected = estimate(llm, list(left.values()), questions, asking.answers, asking.batch)
            logger.info("%s: %s", description, expected)
            if asking.approve is not None and not asking.approve(expected):
                raise InputError(f"nothing was asked: {expected}")
        if asking.batch:
            return await _in_batches(llm, calls, journal, show_progress)
        return await answer_calls(
            llm,
            calls,
            journal,
            workers=asking.workers,
            limiter=asking.limiter,
            threads=threads,
            show_progress=show_progress,
            description=description,
        )


async def _in_batches(llm: LLM, calls: Sequence[Call], journal: Journal, show_progress: bool) -> Answers:
    from rag_ft.generation.llm_batch import answer_in_batches

    stop = threading.Event()
    waiting = asyncio.create_task(
        asyncio.to_thread(answer_in_batches, llm, calls, journal, stop=stop, show_progress=show_progress)
    )
    try:
        return await asyncio.shield(waiting)
    finally:  # whoever interrupts does not wait for the batch, and the journal is not closed under it
        stop.set()
        await asyncio.wait([waiting])


def llm_identity(llm: LLM) -> str:
    """What an answer belongs to; the address counts too: two servers may give different models one name."""
    address = getattr(llm, "api_base", None) or getattr(llm, "base_url", None) or ""
    return f"{llm.class_name()} {llm.metadata.model_name} {address}"


def collect_questions(plan: Sequence[PassageCall], result: Answers) -> tuple[list[Pair], list[Row]]:
    """(query, passage id) pairs of the answers, and a row for `dropped.jsonl` for each passage without a question."""
    pairs: list[Pair] = []
    dropped: list[Row] = []
    for asked in plan:
        found = asked.questions(result.answers.get(asked.call.key, ""))
        for place, question in enumerate(found, start=1):
            identifier = f"{asked.passage.id}:llm{place}"
            query = Query(identifier, question.text, question.style, question.answer, question.evidence)
            pairs.append((query, asked.passage.id))
        if not found:
            reason = result.failures.get(asked.call.key, "the answer holds no question")
            dropped.append({"query": "", "passage": asked.passage.id, "reason": reason, "style": ""})
    return pairs, dropped


def _is_json(answer: str, styles: Sequence[str], passage: str) -> bool:
    return questions_in_json(answer, styles, passage) is not None


def _has_line(answer: str) -> bool:
    return bool(questions_in(answer, 1))


def _has_question(answer: str, styles: Sequence[str], passage: str) -> bool:
    return bool(questions_leniently(answer, styles, passage))
