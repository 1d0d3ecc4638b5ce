"""An LLM behind the server of `fakes.openai_server`, and the questions that it must give."""

from __future__ import annotations

import json

from fakes.openai_server import answer_to
from fakes.passages import about_in_winter
from llama_index.core.llms import LLM

from rag_ft.generation.llm_questions import Asking, LLMQuestions, plan_questions
from rag_ft.generation.resolve_llm import resolve_llm


def clerk(address: str) -> LLM:
    llm = resolve_llm("openai-like:clerk", address)
    assert llm is not None
    return llm


def expected(count: int, **asking: object) -> list[tuple[str, str]]:
    """What the server answers when nothing goes wrong."""
    nobody = clerk("http://127.0.0.1:9/v1")  # a plan asks nobody
    plan = plan_questions(about_in_winter(count), nobody, Asking(**asking))  # type: ignore[arg-type]
    return [
        (question["question"], call.passage.id)
        for call in plan
        for question in json.loads(answer_to(call.call.prompt))["questions"]
    ]


def texts(found: LLMQuestions) -> list[tuple[str, str]]:
    return [(query.text, passage) for query, passage in found.pairs]
