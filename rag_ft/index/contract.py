"""The contract stored with a Chroma collection, and the checks against the contract of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_ft.embedding.contract import (
    MIN_SAME_MODEL_COSINE,
    MIN_SAME_MODEL_COSINE_INT8,
    ContractError,
    EmbeddingContract,
    min_cosine,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode

SPACE = "cosine"
KEY_PREFIX = "rag_ft_"
"""Prefix of rag_ft's entries in Chroma's metadata."""


def as_metadata(contract: EmbeddingContract) -> dict[str, Any]:
    """Return a contract as a collection's metadata."""
    return {KEY_PREFIX + name: value for name, value in contract.to_dict().items()}


def from_metadata(metadata: Mapping[str, Any] | None) -> EmbeddingContract | None:
    """Read the contract from a collection's metadata; None if there is none or it is incomplete."""
    values = {
        name.removeprefix(KEY_PREFIX): value for name, value in (metadata or {}).items() if name.startswith(KEY_PREFIX)
    }
    try:
        return EmbeddingContract.from_dict(values)
    except TypeError:
        return None


def stored_contract(collection: Collection) -> EmbeddingContract:
    """Read the contract of a collection.

    Raises:
        ContractError: if it has none.
    """
    contract = from_metadata(collection.metadata)
    if contract is None:
        raise ContractError(f"the collection {collection.name} has no contract: rebuild the index")
    return contract


def check_contract(
    stored: EmbeddingContract, other: EmbeddingContract, collection: str, passages: bool = False
) -> None:
    """Check that a model's vectors may be compared with those of a collection.

    Args:
        stored: the contract of the collection.
        other: the contract of the model.
        collection: name of the collection, for the message.
        passages: whether the model embeds passages for the collection; False if it embeds queries only.

    Raises:
        ContractError: if they differ; the message names both models, the differences and the fix.
    """
    if differing := stored.differences(other, passages):
        fix = (
            f"Load the model with query_prefix={stored.query_prefix!r}, or rebuild the index"
            if stored.passage_fingerprint == other.passage_fingerprint
            else "Open it with its own model, or rebuild it with rag-ft index SOURCE --model MODEL"
        )
        raise ContractError(
            f"the collection {collection} holds vectors of {stored.base_model}, but the model is {other.base_model}: "
            f"they differ in {'; '.join(differing)}. {fix}"
        )


def check_vectors(
    expected: Sequence[Sequence[float]], vectors: Sequence[Sequence[float]], model: BaseEmbedding, subject: str
) -> None:
    """Check vectors of unknown origin against the vectors of a model for the same texts.

    Args:
        expected: the model's vectors, shape (texts, dimension).
        vectors: the vectors to check.
        model: the model, for the message.
        subject: what the vectors are, for the message.

    Raises:
        ContractError: if a cosine is below the minimum for one model.
    """
    form = getattr(getattr(model, "contract", None), "form", "")
    threshold = MIN_SAME_MODEL_COSINE_INT8 if form else MIN_SAME_MODEL_COSINE
    if [len(vector) for vector in expected] == [len(vector) for vector in vectors]:
        cosine = min_cosine(expected, vectors)
        if cosine is not None and cosine > threshold:
            return
    raise ContractError(
        f"{subject} differ from the vectors of {model.model_name} for the same texts: embed with the model of the "
        "index (Settings.embed_model) and discard old vectors, or rebuild the index"
    )


def check_unchanged(model: BaseEmbedding, nodes: Sequence[BaseNode], vectors: Sequence[Sequence[float]]) -> None:
    """Check a model that is known by its name only, by embedding a few nodes of a collection again.

    An API may serve other weights under the same name, and a folder may hold a new model.

    Args:
        model: the model to check.
        nodes: nodes of the collection.
        vectors: the stored vectors of the nodes.

    Raises:
        ContractError: if the model no longer returns the stored vectors.
    """
    from llama_index.core.schema import MetadataMode

    expected = model.get_text_embedding_batch([node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes])
    check_vectors(expected, vectors, model, "the vectors in the index")
