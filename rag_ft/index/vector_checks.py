"""Checks that vectors in an index, and those that search it, come from one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.contract import ContractError, EmbeddingContract, contract_of
from rag_ft.embedding.marked_vector import mark_of
from rag_ft.index.contract import check_alike, check_same, stored_contract

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import VectorStoreQuery


class VectorChecker:
    """Refuses vectors that another model made.

    A vector tells its model by its contract (`MarkedVector`), or the embedding recognises it as its own. Of any other
    vector the text is embedded again, and the two vectors are compared.

    Args:
        index: the name of the index, for messages.
        embed_model: the embedding that the index was opened with, if any.
    """

    def __init__(self, index: str, embed_model: BaseEmbedding | None) -> None:
        self._index, self._embed_model = index, embed_model
        self._contract: EmbeddingContract | None = contract_of(embed_model) if embed_model is not None else None

    def check_collection(self, collection: Collection) -> None:
        """Raise a `ContractError` if a collection belongs to another model than the index was opened with."""
        stored = stored_contract(collection)
        if self._contract is not None:
            check_same(stored, self._contract, collection.name)

    def check_query(self, collection: Collection, query: VectorStoreQuery) -> None:
        """Raise a `ContractError` if another model made a query's vector."""
        vector = query.query_embedding
        if vector is None or not self._unmarked(collection, [vector], "a question", passages=False):
            return
        assert self._embed_model is not None
        if not query.query_str:
            raise ContractError(
                f"a vector of an unknown model without its words was asked of the index {self._index}: "
                "embed it with the index's FineTunedEmbedding"
            )
        own = self._embed_model.get_query_embedding(query.query_str)
        check_alike([own], [vector], self._embed_model, "the question's vector")

    def check_insert(self, collection: Collection, nodes: Sequence[BaseNode], vectors: Sequence[Any]) -> None:
        """Raise a `ContractError` if another model made one of the nodes' vectors."""
        from llama_index.core.schema import MetadataMode

        if unmarked := self._unmarked(collection, vectors, "an insert", passages=True):
            assert self._embed_model is not None
            texts = [nodes[place].get_content(metadata_mode=MetadataMode.EMBED) for place in unmarked]
            own = self._embed_model.get_text_embedding_batch(texts)
            check_alike(own, [vectors[place] for place in unmarked], self._embed_model, "vectors of an insert")

    def _unmarked(self, collection: Collection, vectors: Sequence[Any], what: str, passages: bool) -> list[int]:
        """Check the contracts that vectors carry, and return the places of those whose model is unknown.

        Args:
            collection: the collection that is searched or written.
            vectors: the vectors to check.
            what: what they are, for messages.
            passages: whether they are vectors of passages.
        """
        stored = stored_contract(collection)
        for contract in {contract for vector in vectors if (contract := mark_of(vector)) is not None}:
            check_same(stored, contract, f"{collection.name} ({what})", passages)
        if not stored.weights_sha256:
            return []  # nothing identifies the model behind an API
        if self._contract is not None and passages:
            check_same(stored, self._contract, collection.name, passages)
        recognises = getattr(self._embed_model, "recognises", lambda vector: False)
        unmarked = [place for place, vector in enumerate(vectors) if mark_of(vector) is None and not recognises(vector)]
        if unmarked and self._embed_model is None:
            raise ContractError(
                f"{what}: a vector of an unknown model, and the index {self._index} holds those of "
                f"{stored.base_model}. Open it with rag_ft.open_index(FineTunedEmbedding.load(MODEL), ...)"
            )
        return unmarked
