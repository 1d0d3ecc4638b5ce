"""What asking an LLM will take, before the first call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_ft.remote.estimate import Estimate, count_tokens, dollars

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

TOKENS_PER_QUESTION, TOKENS_PER_ANSWER = 35, 90
"""Tokens of a written question in JSON, and of an answer with its evidence."""


def estimate(llm: LLM, prompts: Sequence[str], questions: int, answers: bool = False, batch: bool = False) -> Estimate:
    """Estimate what prompts will take.

    Args:
        llm: who is asked.
        prompts: all of them.
        questions: asked for by each prompt.
        answers: whether each question comes with an answer.
        batch: whether they go through the Batch API.
    """
    tokens_in = count_tokens(prompts)
    tokens_out = len(prompts) * questions * (TOKENS_PER_QUESTION + (TOKENS_PER_ANSWER if answers else 0))
    name = llm.metadata.model_name
    if hasattr(llm, "complete_many"):  # on this machine
        return Estimate(name, len(prompts), tokens_in, tokens_out, 0.0)
    address = str(getattr(llm, "api_base", "") or getattr(llm, "base_url", "") or "")
    return Estimate(name, len(prompts), tokens_in, tokens_out, dollars(name, address, tokens_in, tokens_out, batch))
