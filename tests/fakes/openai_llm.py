"""An LLM behind the server of `fakes.openai_server`, and the questions that it must give."""

from __future__ import annotations

import json

from fakes.openai_server import answer_to
from fakes.passages import about_in_winter
from llama_index.core.llms import LLM

from rag_ft.generation.llm_questions import LLMQuestions, plan_requests
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.generation.resolve_llm import resolve_llm


def served_llm(address: str) -> LLM:
    llm = resolve_llm("openai-like:fake", address)
    assert llm is not None
    return llm


def expected(count: int) -> list[tuple[str, str]]:
    """The questions that the server gives if nothing goes wrong."""
    llm = served_llm("http://127.0.0.1:9/v1")  # a plan sends nothing
    return [
        (question["question"], planned.passage.id)
        for planned in plan_requests(about_in_winter(count), llm, QuestionOptions())
        for question in json.loads(answer_to(planned.prompt))["questions"]
    ]


def texts(found: LLMQuestions) -> list[tuple[str, str]]:
    return [(query.text, passage) for query, passage in found.pairs]
