"""Vectors that carry the embedding contract they were made under."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_ft.embedding.contract import EmbeddingContract


class MarkedVector(list[float]):
    """A vector as LlamaIndex passes it around, a list of numbers, with the contract that it was made under.

    LlamaIndex passes only a list of numbers from an embedding to a vector store. The contract travels with the list, so
    the store can reject a vector of another model.

    Attributes:
        contract: the contract of the embedding that made the vector.

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
        """Keep the contract through pickle and copy."""
        return MarkedVector, (list(self), self.contract)


def mark_of(vector: Any) -> EmbeddingContract | None:
    """Return the contract that a vector was made under; None for a plain list."""
    return getattr(vector, "contract", None)


def marked_mean(
    vectors: list[list[float]], contract: EmbeddingContract, agg_fn: Callable[..., list[float]] | None = None
) -> MarkedVector:
    """Combine vectors by `agg_fn` or their mean into one with the contract; a single vector is not changed."""
    from llama_index.core.base.embeddings.base import mean_agg

    combined = vectors[0] if len(vectors) == 1 and agg_fn is None else (agg_fn or mean_agg)(vectors)
    return MarkedVector(combined, contract)
