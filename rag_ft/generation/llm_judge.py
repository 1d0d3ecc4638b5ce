"""The optional judge: an LLM that is shown each generated question with its passage and may drop it."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import Passage
from rag_ft.generation.filters import Pair, Row, dropped_row
from rag_ft.generation.journal import request_key
from rag_ft.generation.llm_calls import Call
from rag_ft.generation.llm_questions import Asking, answer_all, llm_identity
from rag_ft.generation.prompts import JUDGE_PROMPT, fenced, verdict_in

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


logger = logging.getLogger(__name__)


async def judge_questions(
    pairs: Sequence[Pair],
    passages: dict[str, Passage],
    judge: LLM,
    styles: Set[str],
    asking: Asking,
    threads: bool,
    show_progress: bool,
) -> tuple[list[Pair], list[Row], int]:
    """Ask a judge about each question of these styles.

    A question that the judge says nothing usable about stays: the other filters have let it pass.

    Returns:
        The pairs that stay, a row for `dropped.jsonl` for each one that does not, and the number of requests.

    Raises:
        OutsideError: where the judge fails again and again; its answers are in the journal.
    """
    identity = llm_identity(judge)
    calls: dict[str, Call] = {}
    for query, passage in pairs:
        if query.source in styles:
            text = JUDGE_PROMPT.format(passage=fenced(passages[passage].text), question=fenced(query.text))
            calls[query.id] = Call(request_key(identity, text), text, _is_verdict, _is_anything)
    result = await answer_all(
        judge,
        list(calls.values()),
        replace(asking, answers=False),
        questions=1,
        threads=threads,
        show_progress=show_progress,
        description="judge",
    )
    kept: list[Pair] = []
    dropped: list[Row] = []
    told = sum(verdict_in(answer) is not None for answer in result.answers.values())
    if told < len(calls):
        logger.warning(
            "the judge said nothing usable about %d of %d questions: these stay", len(calls) - told, len(calls)
        )
    for query, passage in pairs:
        answer = result.answers.get(calls[query.id].key, "") if query.id in calls else ""
        keep, reason = verdict_in(answer) or (True, "")
        if keep:
            kept.append((query, passage))
        else:
            dropped.append(dropped_row(query, passage, f"the judge: {reason or 'no'}"))
    return kept, dropped, result.requests


def _is_verdict(answer: str) -> bool:
    return verdict_in(answer) is not None


def _is_anything(answer: str) -> bool:
    return True
