"""What requests to a server will take, before the first one: calls, tokens, and money where the price is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE = 200
"""Texts whose tokens are counted; the others are taken to be like them."""

BATCH_DISCOUNT = 0.5
"""The OpenAI Batch API takes half the price."""


@dataclass(frozen=True)
class Estimate:
    """What a number of calls will take.

    Attributes:
        model: the model's name.
        calls: how many are to be made; those whose answers are on the disk are not among them.
        input_tokens: in all that is sent, by LlamaIndex's tokenizer.
        output_tokens: in all answers, roughly; 0 of an embedding.
        dollars: what they cost in US dollars, where the price is known; retries are not counted.

    Example:
        >>> from rag_ft.remote import Estimate
        >>> estimate = Estimate("gpt-4o-mini", calls=1200, input_tokens=410_000, output_tokens=72_000, dollars=0.12)
        >>> print(estimate)
        1,200 calls to gpt-4o-mini, about 410,000 tokens in and 72,000 out, about $0.12
    """

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    dollars: float | None

    def __str__(self) -> str:
        cost = "price unknown" if self.dollars is None else f"about ${self.dollars:.2f}"
        answers = f" in and {self.output_tokens:,} out" if self.output_tokens else ""
        return f"{self.calls:,} calls to {self.model}, about {self.input_tokens:,} tokens{answers}, {cost}"


def count_tokens(texts: Sequence[str]) -> int:
    """The tokens of all texts, by LlamaIndex's tokenizer; of many texts a sample is counted."""
    from llama_index.core.utils import get_tokenizer

    tokenizer = get_tokenizer()
    step = max(1, len(texts) // SAMPLE)
    counted = [len(tokenizer(text)) for text in texts[::step]]
    return round(sum(counted) / max(1, len(counted)) * len(texts))


def dollars(
    model: str,
    address: str,
    input_tokens: int,
    output_tokens: int = 0,
    batch: bool = False,
    provider: str | None = None,
) -> float | None:
    """US dollars for so many tokens by the price list of `genai-prices`; None where the model is not in it.

    A model at an address of one's own has no known price, whatever its name is.

    Args:
        model: its name.
        address: where it is asked; empty for the maker's own.
        input_tokens: that are sent.
        output_tokens: that are answered.
        batch: whether they go through the Batch API.
        provider: whose model it is, where the name alone does not say.

    Example:
        >>> from rag_ft.remote.estimate import dollars
        >>> dollars("text-embedding-3-small", "", 1_000_000, provider="openai")
        0.02
    """
    if address and "api.openai.com" not in address:
        return None
    from genai_prices import Usage, calc_price

    try:
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        found = calc_price(usage, model_ref=model, provider_id=provider)
    except LookupError:
        return None
    return float(found.total_price) * (BATCH_DISCOUNT if batch else 1.0)
