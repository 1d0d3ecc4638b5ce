"""The optional judge: an LLM that reads each generated question with its passage and can drop it."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.qa_dataset import Passage
from rag_ft.generation.filters import Pair
from rag_ft.generation.journal import request_key
from rag_ft.generation.llm_calls import LLMRequest
from rag_ft.generation.llm_estimate import TOKENS_PER_QUESTION
from rag_ft.generation.llm_questions import llm_identity, send_with_options
from rag_ft.generation.prompts import JUDGE_PROMPT, fenced
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.generation.responses import verdict_in

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)


class JudgeRequest(LLMRequest):
    """The request for a verdict on a question."""

    def is_valid(self, response: str) -> bool:
        """Return whether a response contains a verdict."""
        return verdict_in(response) is not None


async def judge_questions(
    pairs: Sequence[Pair],
    passages: dict[str, Passage],
    judge: LLM,
    sources: Set[str],
    options: QuestionOptions,
    *,
    threads: bool,
) -> tuple[list[Pair], list[DroppedRow], int]:
    """Ask a judge about each question from the given sources.

    A question without a usable verdict is kept, because the other filters have accepted it.

    Returns:
        The kept pairs, a row of `dropped.jsonl` for each dropped one, and the number of requests.

    Raises:
        OutsideError: if the judge fails repeatedly. Its responses so far are in the journal.
    """
    identity = llm_identity(judge)
    requests: dict[str, JudgeRequest] = {}
    for query, passage in pairs:
        if query.source in sources:
            prompt = JUDGE_PROMPT.format(passage=fenced(passages[passage].own_text), question=fenced(query.text))
            requests[query.id] = JudgeRequest(request_key(identity, prompt), prompt)
    result = await send_with_options(
        judge, list(requests.values()), options, output_tokens=TOKENS_PER_QUESTION, description="judge", threads=threads
    )
    usable = sum(verdict_in(response) is not None for response in result.responses.values())
    if usable < len(requests):
        logger.warning(
            "the judge gave no usable verdict for %d of %d questions: they are kept",
            len(requests) - usable,
            len(requests),
        )
    kept: list[Pair] = []
    dropped: list[DroppedRow] = []
    for query, passage in pairs:
        response = result.responses.get(requests[query.id].key, "") if query.id in requests else ""
        keep, reason = verdict_in(response) or (True, "")
        if keep:
            kept.append((query, passage))
        else:
            dropped.append(dropped_row(query, passage, f"the judge: {reason or 'no'}"))
    return kept, dropped, result.sent
