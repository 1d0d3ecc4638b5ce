"""Options for generating questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.errors import InputError
from rag_ft.generation.filters import Filters
from rag_ft.generation.prompts import STYLES
from rag_ft.remote.estimate import Estimate
from rag_ft.remote.pacing import rate_limiter

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate
    from llama_index.core.rate_limiter import BaseRateLimiter

    from rag_ft.feedback.vote_log import Votes


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """Options for generating questions: what an LLM is asked for, how it is called, and which questions are kept.

    Attributes:
        questions_per_passage: number of questions per passage, all of them in one call.
        styles: names of `STYLES` or your own descriptions. The text of a passage determines which of them it gets.
        answers: ask for an answer too with each question.
        prompt: replaces the built-in prompt. It needs the variable `passage` and may use `count`, `styles` and
            `language`. If it does not ask for JSON, the response is read line by line.
        max_passages: number of passages that the LLM is asked about, sampled at random. If None, a local LLM gets 300
            passages and any other LLM gets all.
        journal: a file that stores each response. A killed run resumes from it.
        workers: number of requests in flight.
        requests_per_minute: maximum number of requests in any minute.
        batch: use the OpenAI Batch API, at half the price and within a day.
        judge: an LLM that reads each generated question with its passage and can drop it.
        approve: called with the estimate before the first call. If it returns False, nothing is sent.
        filters: the filters for generated questions, whatever their source.
        feedback: a vote log whose picks become training questions (`questions_from_feedback`).
        show_progress: show a progress bar with rate and time left.

    Raises:
        InputError: if a value is invalid.

    Example:
        >>> from rag_ft.generation import QuestionOptions
        >>> QuestionOptions(styles=["keywords"], requests_per_minute=500).workers
        8
    """

    questions_per_passage: int = 2
    styles: Sequence[str] = tuple(STYLES)
    answers: bool = False
    prompt: BasePromptTemplate | None = None
    max_passages: int | None = None
    journal: str | Path | None = None
    workers: int = 8
    requests_per_minute: float | None = None
    batch: bool = False
    judge: LLM | None = None
    approve: Callable[[Estimate], bool] | None = None
    filters: Filters | None = None
    feedback: str | Path | Votes | None = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.styles, str) or not self.styles:
            raise InputError(f"styles is {self.styles!r}: pass a non-empty list, like ['question', 'keywords']")
        for name in ("questions_per_passage", "workers", "max_passages", "requests_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value!r}: pass 1 or more")
        if isinstance(self.judge, str):
            raise InputError(f"judge is {self.judge!r}: pass a LlamaIndex LLM, or resolve_llm({self.judge!r})")

    @cached_property
    def limiter(self) -> BaseRateLimiter | None:
        """The rate limiter that the questions and the judge share."""
        return rate_limiter(self.requests_per_minute)
