"""Checks that the vectors in an index and those of its queries come from one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.contract import ContractError, EmbeddingContract, contract_of
from rag_ft.embedding.marked_vector import mark_of
from rag_ft.index.contract import check_contract, check_vectors, stored_contract

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import VectorStoreQuery


class VectorChecker:
    """A check that rejects vectors of another model.

    The contract of a vector (`MarkedVector`) identifies its model, or the embedding recognises the vector as its own.
    For any other vector, the text is embedded again and the two vectors are compared.

    Args:
        index: the name of the index, for messages.
        embed_model: the embedding that the index was opened with, if any.

    Attributes:
        embed_model: that embedding.
    """

    def __init__(self, index: str, embed_model: BaseEmbedding | None) -> None:
        self._index, self.embed_model = index, embed_model
        self._contract: EmbeddingContract | None = contract_of(embed_model) if embed_model is not None else None

    def check_collection(self, collection: Collection) -> None:
        """Raise a `ContractError` if a collection belongs to another model than the index was opened with."""
        stored = stored_contract(collection)
        if self._contract is not None:
            check_contract(stored, self._contract, collection.name)

    def check_query(self, collection: Collection, query: VectorStoreQuery) -> None:
        """Raise a `ContractError` if another model made a query's vector."""
        vector = query.query_embedding
        if vector is None or not self._unmarked(collection, [vector], "the query", passages=False):
            return
        assert self.embed_model is not None
        if not query.query_str:
            raise ContractError(
                f"the index {self._index} was queried with a vector of an unknown model and without the query's text: "
                "embed the query with the model of the index"
            )
        expected = self.embed_model.get_query_embedding(query.query_str)
        check_vectors([expected], [vector], self.embed_model, "the query vectors")

    def check_insert(self, collection: Collection, nodes: Sequence[BaseNode], vectors: Sequence[Any]) -> None:
        """Raise a `ContractError` if another model made one of the nodes' vectors."""
        from llama_index.core.schema import MetadataMode

        if unmarked := self._unmarked(collection, vectors, "the insert", passages=True):
            assert self.embed_model is not None
            texts = [nodes[i].get_content(metadata_mode=MetadataMode.EMBED) for i in unmarked]
            expected = self.embed_model.get_text_embedding_batch(texts)
            check_vectors(expected, [vectors[i] for i in unmarked], self.embed_model, "the inserted vectors")

    def _unmarked(self, collection: Collection, vectors: Sequence[Any], subject: str, passages: bool) -> list[int]:
        """Check the contracts that vectors carry, and return the positions of those whose model is unknown.

        Args:
            collection: the collection that is searched or written.
            vectors: the vectors to check.
            subject: where they come from, for messages.
            passages: whether they are vectors of passages.
        """
        stored = stored_contract(collection)
        for contract in {contract for vector in vectors if (contract := mark_of(vector)) is not None}:
            check_contract(stored, contract, f"{collection.name} ({subject})", passages)
        if not stored.weights_sha256:
            return []  # the model behind an API cannot be identified
        if self._contract is not None and passages:
            check_contract(stored, self._contract, collection.name, passages)
        recognises = getattr(self.embed_model, "recognises", lambda vector: False)
        unmarked = [i for i, vector in enumerate(vectors) if mark_of(vector) is None and not recognises(vector)]
        if unmarked and self.embed_model is None:
            raise ContractError(
                f"{subject} has a vector of an unknown model, but the index {self._index} holds vectors of "
                f"{stored.base_model}: open it with rag_ft.open_index(FineTunedEmbedding.load(MODEL), ...)"
            )
        return unmarked
