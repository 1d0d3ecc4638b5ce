"""Vectors that know which embedding contract they were made under."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_ft.embedding.contract import EmbeddingContract


class MarkedVector(list[float]):
    """A vector, as the list of numbers that LlamaIndex hands around, with the contract that it was made under.

    An embedding and a vector store do not see each other in LlamaIndex: a list of numbers is all that passes between
    them. The mark travels with it, so that the store can refuse a vector of another model.

    Attributes:
        contract: of the model, its prefixes and its settings.

    Example:
        >>> from rag_ft.embedding.contract import EmbeddingContract
        >>> from rag_ft.embedding.marked_vector import MarkedVector, mark_of
        >>> contract = EmbeddingContract("ab12", "bge", "query: ", "", 2, True, 256)
        >>> mark_of(MarkedVector([0.6, 0.8], contract)).base_model, mark_of([0.6, 0.8])
        ('bge', None)
    """

    __slots__ = ("contract",)

    def __init__(self, values: Iterable[float], contract: EmbeddingContract) -> None:
        super().__init__(values)
        self.contract = contract

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the mark through pickle and copy."""
        return MarkedVector, (list(self), self.contract)


def mark_of(vector: Any) -> EmbeddingContract | None:
    """The contract that a vector was made under; None where it does not say."""
    return getattr(vector, "contract", None)


def marked_mean(
    vectors: list[list[float]], contract: EmbeddingContract, agg_fn: Callable[..., list[float]] | None = None
) -> MarkedVector:
    """The mean of several vectors, or what `agg_fn` makes of them, marked; a single one stays as it is."""
    from llama_index.core.base.embeddings.base import mean_agg

    mixed = vectors[0] if len(vectors) == 1 and agg_fn is None else (agg_fn or mean_agg)(vectors)
    return MarkedVector(mixed, contract)
