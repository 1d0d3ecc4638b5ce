"""What asking an LLM will take, before the first call: calls, tokens, and money where the price is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

SAMPLE = 200
"""Prompts whose tokens are counted; the others are taken to be like them."""

TOKENS_PER_QUESTION, TOKENS_PER_ANSWER = 35, 90
"""Tokens of a written question in JSON, and of an answer with its evidence."""

BATCH_DISCOUNT = 0.5
"""The OpenAI Batch API takes half the price."""


@dataclass(frozen=True)
class Estimate:
    """What a number of calls will take.

    Attributes:
        model: the LLM's name.
        calls: how many are to be made; those in the journal are not among them.
        input_tokens: in all prompts, by LlamaIndex's tokenizer.
        output_tokens: in all answers, roughly.
        dollars: what they cost in US dollars, where the price is known; retries are not counted.
    """

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    dollars: float | None

    def __str__(self) -> str:
        cost = "price unknown" if self.dollars is None else f"about ${self.dollars:.2f}"
        return (
            f"{self.calls:,} calls to {self.model}, about {self.input_tokens:,} tokens in and {self.output_tokens:,} "
            f"out, {cost}"
        )


def estimate(llm: LLM, prompts: Sequence[str], questions: int, answers: bool = False, batch: bool = False) -> Estimate:
    """Estimate what prompts will take.

    Args:
        llm: who is asked.
        prompts: all of them.
        questions: asked for by each prompt.
        answers: whether each question comes with an answer.
        batch: whether they go through the Batch API.
    """
    from llama_index.core.utils import get_tokenizer

    tokenizer = get_tokenizer()
    step = max(1, len(prompts) // SAMPLE)
    counted = [len(tokenizer(prompt)) for prompt in prompts[::step]]
    tokens_in = round(sum(counted) / max(1, len(counted)) * len(prompts))
    tokens_out = len(prompts) * questions * (TOKENS_PER_QUESTION + (TOKENS_PER_ANSWER if answers else 0))
    dollars = price(llm, tokens_in, tokens_out)
    if dollars is not None and batch:
        dollars *= BATCH_DISCOUNT
    return Estimate(llm.metadata.model_name, len(prompts), tokens_in, tokens_out, dollars)


def price(llm: LLM, tokens_in: int, tokens_out: int) -> float | None:
    """US dollars for so many tokens by the price list of `genai-prices`; None where the model is not in it.

    A model at an address of one's own has no known price, whatever its name is.
    """
    if hasattr(llm, "complete_many"):
        return 0.0
    address = str(getattr(llm, "api_base", "") or getattr(llm, "base_url", "") or "")
    if address and "api.openai.com" not in address:
        return None
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(input_tokens=tokens_in, output_tokens=tokens_out), model_ref=llm.metadata.model_name)
    except LookupError:
        return None
    return float(found.total_price)
