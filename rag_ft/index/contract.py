"""The embedding contract of any LlamaIndex embedding and of a Chroma collection, and what is said where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_ft.embedding.contract import EmbeddingContract
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.base.embeddings.base import BaseEmbedding

SPACE = "cosine"
KEY = "rag_ft_"
"""Before each entry of ours in a collection's metadata."""


class ContractError(InputError):
    """Vectors of one model would meet those of another."""


def contract_of(model: BaseEmbedding) -> EmbeddingContract:
    """The embedding contract of a LlamaIndex embedding: its own where it has one, else what can be known of it.

    Args:
        model: asked for a vector where it has no contract, since nothing else tells its dimension.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft.index.contract import contract_of
        >>> contract_of(MockEmbedding(embed_dim=8)).dimension
        8
    """
    contract = getattr(model, "contract", None)
    if isinstance(contract, EmbeddingContract):
        return contract
    return EmbeddingContract(
        weights_sha256="",
        base_model=f"{model.class_name()} {model.model_name}",
        query_prefix=getattr(model, "query_instruction", None) or "",
        passage_prefix=getattr(model, "text_instruction", None) or "",
        dimension=len(model.get_text_embedding("dimension")),
        normalize=False,
        max_length=int(getattr(model, "max_length", None) or 0),
    )


def as_metadata(contract: EmbeddingContract) -> dict[str, Any]:
    """A contract as a collection's metadata."""
    return {KEY + name: value for name, value in contract.to_dict().items()}


def from_metadata(metadata: Mapping[str, Any] | None) -> EmbeddingContract | None:
    """The contract in a collection's metadata; None where there is none or it is no longer whole."""
    values = {name.removeprefix(KEY): value for name, value in (metadata or {}).items() if name.startswith(KEY)}
    try:
        return EmbeddingContract.from_dict(values)
    except TypeError:
        return None


def check_same(stored: EmbeddingContract, given: EmbeddingContract, collection: str) -> None:
    """Refuse a model whose vectors may not be compared with those of a collection.

    Raises:
        ContractError: naming both sides, what differs, and the mend.
    """
    if differing := stored.differences(given):
        same_vectors = stored.passage_fingerprint == given.passage_fingerprint
        mend = (
            f"load the model with query_prefix={stored.query_prefix!r}, or rebuild the index"
            if same_vectors
            else "open it with its own model, or rebuild it: rag-ft index SOURCE --model MODEL"
        )
        raise ContractError(
            f"the collection {collection} holds vectors of {stored.base_model}, and the model is {given.base_model}: "
            f"they differ in {'; '.join(differing)}. {mend[0].upper()}{mend[1:]}"
        )
