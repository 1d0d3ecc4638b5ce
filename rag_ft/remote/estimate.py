"""Estimates of requests to a server: calls, tokens, and the price if it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_SIZE = 200
"""Number of texts whose tokens are counted; the total is extrapolated from them."""

BATCH_PRICE_FACTOR = 0.5
"""Fraction of the price that the OpenAI Batch API charges."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a number of calls.

    Attributes:
        model: name of the model.
        calls: number of calls, without those whose responses are stored.
        input_tokens: number of tokens sent, by LlamaIndex's tokenizer.
        output_tokens: approximate number of tokens in all responses; 0 for an embedding.
        dollars: price in US dollars without retries; None if it is unknown.

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
        output = f" in and {self.output_tokens:,} out" if self.output_tokens else ""
        return f"{self.calls:,} calls to {self.model}, about {self.input_tokens:,} tokens{output}, {cost}"


def count_tokens(texts: Sequence[str]) -> int:
    """Count the tokens of texts with LlamaIndex's tokenizer; for many texts, extrapolate from a sample."""
    from llama_index.core.utils import get_tokenizer

    tokenizer = get_tokenizer()
    counts = [len(tokenizer(text)) for text in texts[:: max(1, len(texts) // SAMPLE_SIZE)]]
    return round(sum(counts) / max(1, len(counts)) * len(texts))


def dollars(
    model: str,
    address: str,
    input_tokens: int,
    output_tokens: int = 0,
    batch: bool = False,
    provider: str | None = None,
) -> float | None:
    """Return the price of tokens in US dollars from the list of `genai-prices`; None if it is unknown.

    It is unknown if the list does not have the model, or if the address is not the provider's.

    Args:
        model: name of the model.
        address: address of the server; empty for the provider's default.
        input_tokens: number of tokens sent.
        output_tokens: number of tokens in the responses.
        batch: whether they go through the Batch API.
        provider: the provider, if the model's name does not identify it.

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
        price = float(calc_price(usage, model_ref=model, provider_id=provider).total_price)
    except LookupError:
        return None
    return price * BATCH_PRICE_FACTOR if batch else price
