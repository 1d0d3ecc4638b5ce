"""The embedding contract of any LlamaIndex embedding and of a Chroma collection, and what is said where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_ft.embedding.contract import ALIKE, ALIKE_INT8, ContractError, EmbeddingContract

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode

SPACE = "cosine"
KEY = "rag_ft_"
"""Before each entry of ours in a collection's metadata."""


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


def check_same(stored: EmbeddingContract, given: EmbeddingContract, collection: str, passages: bool = False) -> None:
    """Refuse a model whose vectors may not be compared with those of a collection.

    Args:
        stored: of the collection.
        given: of the model.
        collection: its name.
        passages: whether the model makes passages for it, and not questions alone.

    Raises:
        ContractError: naming both sides, what differs, and the mend.
    """
    if differing := stored.differences(given, passages):
        same_vectors = stored.passage_fingerprint == given.passage_fingerprint
        fix = (
            f"load the model with query_prefix={stored.query_prefix!r}, or rebuild the index"
            if same_vectors
            else "open it with its own model, or rebuild it: rag-ft index SOURCE --model MODEL"
        )
        raise ContractError(
            f"the collection {collection} holds vectors of {stored.base_model}, and the model is {given.base_model}: "
            f"they differ in {'; '.join(differing)}. {fix[0].upper()}{fix[1:]}"
        )


def check_alike(
    own: Sequence[Sequence[float]], given: Sequence[Sequence[float]], model: BaseEmbedding, what: str
) -> None:
    """Refuse vectors of an unknown maker that are not what a model makes of the same texts.

    Args:
        own: what the model makes of them, shape (texts, dimension).
        given: the vectors in question.
        model: which one.
        what: they are, for the message.

    Raises:
        ContractError: where a cosine is under `ALIKE`.
    """
    import numpy as np

    least = ALIKE_INT8 if contract_of_form(model) else ALIKE
    if [len(vector) for vector in own] == [len(vector) for vector in given]:
        one, other = np.asarray(own, dtype=np.float32), np.asarray(given, dtype=np.float32)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        if ((one * other).sum(axis=1) / np.maximum(lengths, 1e-12)).min() > least:
            return
    raise ContractError(
        f"{what} are not those that {model.model_name} makes of the same words: embed with the model of the index "
        "(Settings.embed_model), drop vectors that were kept from before, or rebuild it"
    )


def contract_of_form(model: BaseEmbedding) -> str:
    """The form of a model that has a contract; empty of others."""
    contract = getattr(model, "contract", None)
    return contract.form if isinstance(contract, EmbeddingContract) else ""


def check_still_makes(model: BaseEmbedding, nodes: Sequence[BaseNode], vectors: Sequence[Sequence[float]]) -> None:
    """Embed a few nodes of a collection again, where a model's name is all that is known of it.

    An API may serve other weights under the same name, and a folder may hold a new model: then the vectors that are
    there are none of its.

    Raises:
        ContractError: where they are not.
    """
    from llama_index.core.schema import MetadataMode

    own = model.get_text_embedding_batch([node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes])
    check_alike(own, vectors, model, "the vectors in the index")
