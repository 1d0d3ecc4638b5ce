"""Estimate the cost of LLM calls before the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_ft.remote.estimate import Estimate, count_tokens, dollars

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

TOKENS_PER_QUESTION, TOKENS_PER_ANSWER = 65, 60
"""Estimated tokens of a question with its evidence or a verdict in JSON, and of an answer."""


def estimate(llm: LLM, prompts: Sequence[str], output_tokens: int, batch: bool = False) -> Estimate:
    """Estimate the number of calls, tokens and dollars for prompts.

    Args:
        llm: any LlamaIndex LLM.
        prompts: the prompts.
        output_tokens: number of tokens in a response.
        batch: whether the prompts go through the Batch API.
    """
    tokens_in, tokens_out = count_tokens(prompts), len(prompts) * output_tokens
    name = llm.metadata.model_name
    if hasattr(llm, "complete_many"):  # a local LLM is free
        return Estimate(name, len(prompts), tokens_in, tokens_out, 0.0)
    address = str(getattr(llm, "api_base", "") or getattr(llm, "base_url", "") or "")
    return Estimate(name, len(prompts), tokens_in, tokens_out, dollars(name, address, tokens_in, tokens_out, batch))
