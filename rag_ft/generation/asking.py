"""Passages -> an LLM's questions: what each passage is asked, and what became of the answers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rag_ft.dataset.language import language_of
from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.errors import InputError
from rag_ft.generation.calling import Answers, Call, answer_calls
from rag_ft.generation.estimate import Estimate, estimate
from rag_ft.generation.journal import Journal, question_key
from rag_ft.generation.prompts import (
    QUESTION_AND_ANSWER_PROMPT,
    QUESTION_PROMPT,
    STYLES,
    GeneratedQuestion,
    described,
    fenced,
    questions_in,
    questions_in_json,
    questions_leniently,
    styles_for,
    wants_json,
)

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate

    from rag_ft.generation.filters import Pair, Row

logger = logging.getLogger(__name__)

T = TypeVar("T")

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
        OutsideError: where the LLM fails again and again; what was answered is in the journal.
    """
    settings = Asking(**asking)
    return run_coroutine(ask_questions(passages, llm, settings, seed=seed, threads=True, show_progress=show_progress))


async def ask_questions(
    passages: Sequence[Passage], llm: LLM, asking: Asking, *, seed: int, threads: bool, show_progress: bool
) -> LLMQuestions:
    """`questions_from_llm` within a running event loop; `threads` as in `answer_calls`."""
    chosen = _sample(passages, llm, asking, seed)
    plan = plan_questions(chosen, llm, asking)
    result = await _answers(llm, plan, asking, threads, show_progress)
    pairs, dropped = collect_questions(plan, result)
    styles = {style for call in plan for style in call.styles}
    return LLMQuestions(pairs, dropped, result.requests, styles)


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from a notebook's running loop too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()


@dataclass(frozen=True)
class PassageCall:
    """A passage, the kinds of question that it is asked for, and the call that does it."""

    passage: Passage
    styles: tuple[str, ...]
    call: Call
    json: bool

    def questions(self, answer: str) -> list[GeneratedQuestion]:
        """The questions in an answer; none where it holds none."""
        if not self.json:
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
    variables = set(template.template_vars)
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
        key = question_key(identity, asked)
        call = Call(key, asked)
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
    return [passages[place] for place in sorted(random.Random(seed).sample(range(len(passages)), most))]


async def _answers(
    llm: LLM, plan: Sequence[PassageCall], asking: Asking, threads: bool, show_progress: bool
) -> Answers:
    with Journal(Path(asking.journal) if asking.journal else None) as journal:
        left = {asked.call.key: asked.call for asked in plan if asked.call.key not in journal.answers}
        if left:
            expected = estimate(
                llm,
                [call.prompt for call in left.values()],
                asking.questions_per_passage,
                asking.answers,
                asking.batch,
            )
            logger.info("%s", expected)
            if asking.approve is not None and not asking.approve(expected):
                raise InputError(f"nothing was asked: {expected}")
        calls = [asked.call for asked in plan]
        if asking.batch:
            from rag_ft.generation.openai_batch import answer_in_batches

            return await asyncio.to_thread(answer_in_batches, llm, calls, journal, show_progress=show_progress)
        return await answer_calls(
            llm,
            calls,
            journal,
            workers=asking.workers,
            requests_per_minute=asking.requests_per_minute,
            threads=threads,
            show_progress=show_progress,
        )


def llm_identity(llm: LLM) -> str:
    """What an answer belongs to; the address counts too: two servers may give different models one name."""
    return f"{llm.class_name()} {llm.metadata.model_name} {getattr(llm, 'api_base', '') or ''}"


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


def _has_question(answer: str, styles: Sequence[str], passage: str) -> bool:
    return bool(questions_leniently(answer, styles, passage))
