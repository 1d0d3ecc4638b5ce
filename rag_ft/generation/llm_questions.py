"""Questions that an LLM writes: build a prompt for each passage and read the responses."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.dropped import DroppedRow
from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.dataset.text.language import language_of
from rag_ft.errors import InputError
from rag_ft.files import sha256_of
from rag_ft.generation.filters import Pair
from rag_ft.generation.journal import Journal, request_key
from rag_ft.generation.llm_calls import CallOptions, LLMRequest, LLMResponses, send_requests
from rag_ft.generation.llm_estimate import TOKENS_PER_ANSWER, TOKENS_PER_QUESTION, estimate
from rag_ft.generation.prompts import (
    QUESTION_AND_ANSWER_PROMPT,
    QUESTION_PROMPT,
    fenced,
    list_of_styles,
    styles_for,
    wants_json,
)
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.generation.responses import GeneratedQuestion, is_json, questions_in, questions_in_json, questions_leniently
from rag_ft.remote.event_loop import run_coroutine

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate

logger = logging.getLogger(__name__)

PROMPT_VARIABLES = {"passage", "count", "styles", "language"}

MAX_LOCAL_PASSAGES = 300
"""Default number of passages for a local LLM, which takes one to three seconds for each on two cores."""


@dataclass(frozen=True)
class LLMQuestions:
    """The questions of an LLM.

    Attributes:
        pairs: (query, passage id).
        dropped: a row for each passage without a question, with the reason.
        requests: number of requests sent, including retries.
        styles: the styles that the LLM was asked for.
    """

    pairs: list[Pair]
    dropped: list[DroppedRow]
    requests: int
    styles: set[str]


def questions_from_llm(
    passages: Sequence[Passage], llm: LLM, *, seed: int = 0, question_options: QuestionOptions | None = None
) -> LLMQuestions:
    """Ask an LLM for questions about passages.

    Args:
        passages: the passages.
        llm: any LlamaIndex LLM.
        seed: seeds the sample of passages, if `max_passages` is set.
        question_options: what the LLM is asked for and how it is called.

    Raises:
        InputError: if the prompt has an unknown variable or lacks `passage`, or the estimate is not approved.
        OutsideError: if the LLM fails repeatedly. The responses so far are in the journal.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> from rag_ft import Passage
        >>> from rag_ft.generation import QuestionOptions, questions_from_llm
        >>> class OneQuestion(MockLLM):
        ...     def complete(self, prompt, formatted=False, **kwargs):
        ...         response = '{"questions": [{"style": "question", "question": "Where is leave booked?"}]}'
        ...         return super().complete(response, formatted, **kwargs)
        >>> options = QuestionOptions(questions_per_passage=1)
        >>> passages = [Passage("leave", "Leave is booked in HELM.")]
        >>> found = questions_from_llm(passages, OneQuestion(), question_options=options)
        >>> [(query.text, passage) for query, passage in found.pairs], found.requests
        ([('Where is leave booked?', 'leave')], 1)
    """
    options = question_options or QuestionOptions()
    return run_coroutine(generate_questions(passages, llm, options, seed=seed, threads=True))


async def generate_questions(
    passages: Sequence[Passage], llm: LLM, options: QuestionOptions, *, seed: int, threads: bool
) -> LLMQuestions:
    """Do the work of `questions_from_llm` within a running event loop; `threads` as in `CallOptions`."""
    plan = plan_requests(_sample(passages, llm, options.max_passages, seed), llm, options)
    tokens = options.questions_per_passage * (TOKENS_PER_QUESTION + (TOKENS_PER_ANSWER if options.answers else 0))
    result = await send_with_options(llm, plan, options, output_tokens=tokens, description="questions", threads=threads)
    pairs, dropped = collect_questions(plan, result)
    return LLMQuestions(pairs, dropped, result.sent, {style for planned in plan for style in planned.styles})


@dataclass(frozen=True)
class PassageRequest(LLMRequest):
    """A request for questions about a passage in the given styles, as JSON or one per line."""

    passage: Passage
    styles: tuple[str, ...]
    wants_json: bool

    def is_valid(self, response: str) -> bool:
        """Return whether a response contains questions in the form that the prompt asks for."""
        return self.is_usable(response) if not self.wants_json else self._in_json(response) is not None

    def is_usable(self, response: str) -> bool:
        """Return whether a response contains a question in any form."""
        return bool(self._leniently(response) if self.wants_json else questions_in(response, 1))

    def questions(self, response: str) -> list[GeneratedQuestion]:
        """Return the questions in a response."""
        if not self.wants_json and not is_json(response):
            return [GeneratedQuestion(text, self.styles[0]) for text in questions_in(response, len(self.styles))]
        strict = self._in_json(response)
        return strict if strict is not None else self._leniently(response)

    def _in_json(self, response: str) -> list[GeneratedQuestion] | None:
        return questions_in_json(response, self.styles, self.passage.own_text)

    def _leniently(self, response: str) -> list[GeneratedQuestion]:
        return questions_leniently(response, self.styles, self.passage.own_text)


def plan_requests(passages: Sequence[Passage], llm: LLM, options: QuestionOptions) -> list[PassageRequest]:
    """Plan one request per passage.

    The key of a response depends on the name and address of the LLM. A small LLM may have its own `question_prompt`,
    and `passage_words`, the number of words that it can read.

    Raises:
        InputError: if the prompt has no `passage`, or an unknown variable.
    """
    template: BasePromptTemplate = (
        options.prompt
        or getattr(llm, "question_prompt", None)
        or (QUESTION_AND_ANSWER_PROMPT if options.answers else QUESTION_PROMPT)
    )
    # JSON in braces is not a variable.
    variables = {name for name in template.template_vars if name.isidentifier()}
    if "passage" not in variables or variables - PROMPT_VARIABLES:
        raise InputError(
            f"the prompt has the variables {', '.join(sorted(variables)) or 'none'}: it needs {{passage}} and may use "
            "{count}, {styles} and {language}"
        )
    count, identity, as_json = options.questions_per_passage, llm_identity(llm), wants_json(template)
    max_words = getattr(llm, "passage_words", None)
    plan = []
    for passage in passages:
        has_styles, text = "styles" in variables, passage.own_text
        styles = tuple(styles_for(text, options.styles, count) if has_styles else ["question"] * count)
        if max_words:
            text = " ".join(text.split()[:max_words])
        values: dict[str, Any] = {"passage": fenced(text), "count": count, "styles": list_of_styles(styles)}
        if "language" in variables:
            code = language_of(passage.own_text)
            values["language"] = f"the language of the text ({code})" if code else "the language of the text"
        prompt = template.format(**{name: values[name] for name in variables})
        plan.append(PassageRequest(request_key(identity, prompt), prompt, passage, styles, as_json))
    return plan


def _sample(passages: Sequence[Passage], llm: LLM, max_passages: int | None, seed: int) -> Sequence[Passage]:
    if max_passages is None and hasattr(llm, "complete_many"):
        max_passages = MAX_LOCAL_PASSAGES
    if max_passages is None or max_passages >= len(passages):
        return passages
    logger.info("the LLM is asked about %d of %d passages", max_passages, len(passages))
    # Sampled by a hash of the text: a new or removed document hardly changes the sample, so the journal stays useful.
    order = sorted(range(len(passages)), key=lambda index: sha256_of(str(seed), passages[index].own_text))
    sampled = set(order[:max_passages])
    return [passage for index, passage in enumerate(passages) if index in sampled]


async def send_with_options(
    llm: LLM,
    requests: Sequence[LLMRequest],
    options: QuestionOptions,
    *,
    output_tokens: int,
    description: str,
    threads: bool,
) -> LLMResponses:
    """Send requests concurrently or through the Batch API, once the estimate is approved.

    Args:
        llm: any LlamaIndex LLM.
        requests: the requests.
        options: journal, workers, rate limit, batch and approval.
        output_tokens: number of tokens in a response, for the estimate.
        description: description of the progress bar.
        threads: as in `CallOptions`.
    """
    with Journal(Path(options.journal) if options.journal else None) as journal:
        missing = {request.key: request.prompt for request in requests if request.key not in journal.responses}
        if missing:
            expected = estimate(llm, list(missing.values()), output_tokens, options.batch)
            logger.info("%s: %s", description, expected)
            if options.approve is not None and not options.approve(expected):
                raise InputError(f"nothing was sent, because the estimate was not approved: {expected}")
        if options.batch:
            return await _send_in_batches(llm, requests, journal, options.show_progress)
        calls = CallOptions(
            workers=options.workers, limiter=options.limiter, threads=threads, show_progress=options.show_progress,
            description=description,
        )  # fmt: skip
        return await send_requests(llm, requests, journal, calls)


async def _send_in_batches(
    llm: LLM, requests: Sequence[LLMRequest], journal: Journal, show_progress: bool
) -> LLMResponses:
    from rag_ft.generation.llm_batch import send_in_batches

    stop = threading.Event()
    waiting = asyncio.create_task(
        asyncio.to_thread(send_in_batches, llm, requests, journal, stop=stop, show_progress=show_progress)
    )
    try:
        return await asyncio.shield(waiting)
    finally:  # an interrupt does not wait for the batch, but the thread must end before the journal is closed
        stop.set()
        await asyncio.wait([waiting])


def llm_identity(llm: LLM) -> str:
    """Return the name and address of an LLM, because two servers may use the same name for different models."""
    address = getattr(llm, "api_base", None) or getattr(llm, "base_url", None) or ""
    return f"{llm.class_name()} {llm.metadata.model_name} {address}"


def collect_questions(plan: Sequence[PassageRequest], result: LLMResponses) -> tuple[list[Pair], list[DroppedRow]]:
    """Return (query, passage id) pairs, and a row of `dropped.jsonl` for each passage without a question."""
    pairs: list[Pair] = []
    dropped: list[DroppedRow] = []
    for planned in plan:
        passage, key = planned.passage.id, planned.key
        questions = planned.questions(result.responses.get(key, ""))
        for number, question in enumerate(questions, start=1):
            query = Query(
                f"{passage}:llm{number}", question.text, question.style, question.answer, question.evidence,
                one_answer=True,
            )  # fmt: skip
            pairs.append((query, passage))
        if not questions:
            reason = result.failures.get(key, "the answer holds no question")
            dropped.append({"query": "", "passage": passage, "reason": reason, "style": ""})
    return pairs, dropped
