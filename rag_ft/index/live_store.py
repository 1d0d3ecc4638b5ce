"""A LlamaIndex vector store over the collection that an index's name points at; it checks each vector's model."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from rag_ft.documents.node_gate import admit, admitted, embedded_text
from rag_ft.embedding.contract import EmbeddingContract
from rag_ft.index.contract import stored_contract
from rag_ft.index.filters import FilterTranslator
from rag_ft.index.live_collection import LiveCollection
from rag_ft.index.lock import build_lock
from rag_ft.index.nodes import node_of
from rag_ft.index.pointer import read_pointer, write_pointer
from rag_ft.index.records import record_of
from rag_ft.index.revision import Revision, announced_writes, read_revision
from rag_ft.index.vector_checks import VectorChecker
from rag_ft.index.writing import CLOUD_BATCH_SIZE, CollectionWriter, batch_size_of, batched

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.vector_stores.chroma import ChromaVectorStore


class LiveChromaStore(BasePydanticVectorStore):
    """The Chroma collection that an index's name points at, as a LlamaIndex vector store.

    A rebuild fills another collection and then moves the pointer. The store follows within a second, or as soon as the
    old collection is deleted. It rejects vectors of another model in each insert and query: `FineTunedEmbedding` marks
    and recognises its vectors; for other vectors, the text is embedded again and the two vectors are compared.

    Args:
        name: the name of the index.
        client: a Chroma client.
        embed_model: the embedding that the index is opened with.

    Raises:
        InputError: if no index of this name was built.
        ContractError: if it was built with another model.

    Example:
        >>> import chromadb
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import rebuild_index
        >>> from rag_ft.index import LiveChromaStore
        >>> client, embed_model = chromadb.EphemeralClient(), MockEmbedding(embed_dim=8)
        >>> _ = rebuild_index([TextNode(text="Leave is booked in HELM.")], embed_model, client, "live-example")
        >>> store = LiveChromaStore("live-example", client, embed_model)
        >>> index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
        >>> index.as_retriever().retrieve("How do I get holidays?")[0].text
        'Leave is booked in HELM.'
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    name: str = Field(description="The name of the index.")
    _client: Any = PrivateAttr()
    _checker: VectorChecker = PrivateAttr()
    _live: LiveCollection = PrivateAttr()
    _changes: int = PrivateAttr(default=0)
    _keywords: Any = PrivateAttr(default=None)
    _filters: FilterTranslator = PrivateAttr(default_factory=FilterTranslator)

    def __init__(self, name: str, client: ClientAPI, embed_model: BaseEmbedding | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._client = client
        self._checker = VectorChecker(name, embed_model)
        self._live = LiveCollection(client, name, self._checker.check_collection)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows it."""
        return "LiveChromaStore"

    @property
    def client(self) -> Any:
        """The Chroma collection in use."""
        return self.collection

    @property
    def collection(self) -> Collection:
        """The Chroma collection in use."""
        return self._live.current

    @property
    def contract(self) -> EmbeddingContract:
        """The contract of the vectors in the collection."""
        return stored_contract(self.collection)

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """Announce a change of the passages to all readers of the collection, in all processes."""
        try:
            with announced_writes(self._client, self.name) as notice:
                notice.mark()
                yield
        finally:
            self._changes += 1

    def _change(self, action: Callable[[Collection], Any]) -> None:
        """Run an action that changes the passages, and announce it."""

        def announced(collection: Collection) -> None:
            with self._announced():
                action(collection)

        self._live.call(announced)

    @property
    def changes(self) -> int:
        """Number of changes of the passages through this store."""
        return self._changes

    @property
    def fusion(self) -> dict[str, Any] | None:
        """How results are fused with those of BM25; None if no fusion was learned for the index's model."""
        return self._live.fusions.get(self.contract.fingerprint)

    def keep_fusion(self, fusion: dict[str, Any]) -> None:
        """Store how results are fused with those of BM25, for the current model of the index.

        Raises:
            OutsideError: if another process is building the index.
        """
        with build_lock(self._client, self.name):
            pointer = read_pointer(self._client, self.name)
            assert pointer is not None
            pointer = pointer.with_fusion(self.contract.fingerprint, fusion)
            write_pointer(self._client, self.name, pointer)
        self._live.fusions = pointer.fusions

    def revision(self) -> Revision:
        """Read the current revision of the collection in use."""
        return self._live.call(lambda collection: read_revision(self._client, self.name, collection.name))

    def nearest(self, query: VectorStoreQuery) -> tuple[list[str], list[float]]:
        """Return (ids of the passages most similar to a query, their cosine similarities), without the passages.

        Args:
            query: the vector and text of the query, the number of passages, and filters.

        Raises:
            ContractError: if another model made the query's vector.
            InputError: if the filters cannot find anything.
        """

        def search(collection: Collection) -> tuple[list[str], list[float]]:
            self._checker.check_query(collection, query)
            response = collection.query(
                query_embeddings=[list(query.query_embedding or ())],
                n_results=query.similarity_top_k,
                where=self._filters.where(collection, query.filters),
                include=["distances"],
            )
            if not response["ids"][0]:
                self._filters.explain_nothing(collection, query.filters)
            return response["ids"][0], [1 - distance for distance in (response["distances"] or [[]])[0]]

        return self._live.call(search)

    def similarities(self, ids: Sequence[str], vector: Sequence[float]) -> dict[str, float]:
        """Return the cosine similarity of each of the passages to a query; deleted passages are left out."""
        import numpy as np

        if not ids:
            return {}

        def compare(collection: Collection) -> dict[str, float]:
            rows = collection.get(ids=list(ids), include=["embeddings"])
            passages = np.asarray(rows["embeddings"], dtype=np.float32).reshape(len(rows["ids"]), -1)
            query = np.asarray(vector, dtype=np.float32)
            lengths = np.linalg.norm(passages, axis=1) * np.linalg.norm(query)
            return dict(zip(rows["ids"], (passages @ query / np.maximum(lengths, 1e-12)).tolist(), strict=True))

        return self._live.call(compare)

    def matching_ids(self, filters: MetadataFilters, ids: Sequence[str] | None = None) -> set[str]:
        """Return the ids of passages that match filters, among `ids` or among all if None."""
        batch_size = batch_size_of(self._client)

        def match(collection: Collection) -> set[str]:
            where = self._filters.where(collection, filters)
            matching: set[str] = set()
            if ids is not None:
                for batch in batched(ids, batch_size):
                    matching.update(collection.get(ids=batch, where=where, include=[])["ids"])
                return matching
            while page := collection.get(where=where, limit=batch_size, offset=len(matching), include=[])["ids"]:
                matching.update(page)
            return matching

        return self._live.call(match)

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Insert nodes, or replace nodes with the same ids. Nodes without text are left out.

        Returns:
            The ids of all nodes, because LlamaIndex pairs them with the nodes by position.

        Raises:
            ContractError: if a node carries another model's vector.
            InputError: if a node cannot be stored.
        """
        import numpy as np

        ids = [node.node_id for node in nodes]
        nodes = [self._with_own_vector(node) for node in nodes]
        nodes = list(admitted(nodes))
        if not nodes:
            return ids
        vectors = [node.get_embedding() for node in nodes]
        records = [record_of(node) for node in nodes]
        batch_size = batch_size_of(self._client)

        def insert(collection: Collection) -> None:
            self._checker.check_insert(collection, nodes, vectors)
            writer = CollectionWriter(collection=collection, batch_size=batch_size)
            stored = writer.stored_metadata([record.id for record in records])
            with self._announced():
                writer.write(records, [np.asarray(vector, dtype=np.float32) for vector in vectors], stored)

        self._live.call(insert)
        return ids

    def _with_own_vector(self, node: BaseNode) -> BaseNode:
        """Embed a node again if its text changes in the gate, such as a date in its metadata."""
        kept, model = admit(node), self._checker.embed_model
        if kept is None or kept is node or model is None or embedded_text(kept) == embedded_text(node):
            return node
        return kept.model_copy(update={"embedding": model.get_text_embedding(embedded_text(kept))})

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the passages most similar to a query.

        Raises:
            ContractError: if another model made the query's vector.
            InputError: if the filters cannot find anything.
        """
        # LlamaIndex's store knows no operators for lists. It refuses filters beside a `where` of Chroma.
        filters = query.filters if "where" not in kwargs else None
        without = dataclasses.replace(query, filters=None) if filters is not None else query

        def search(collection: Collection) -> VectorStoreQueryResult:
            self._checker.check_query(collection, query)
            translated = {} if filters is None else {"where": self._filters.where(collection, filters)}
            result = _llama_store(collection).query(without, **kwargs, **translated)
            if not result.ids:
                self._filters.explain_nothing(collection, filters)
            return result

        return self._live.call(search)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes by their ids or metadata.

        Raises:
            InputError: if the filters cannot find anything.
        """

        def read(collection: Collection) -> list[BaseNode]:
            where = self._filters.where(collection, filters)
            rows = collection.get(ids=node_ids or None, where=where, include=["documents", "metadatas"])
            if not rows["ids"]:
                self._filters.explain_nothing(collection, filters)
            entries = zip(rows["ids"], rows["documents"] or [], rows["metadatas"] or [], strict=True)
            return [node_of(key, text or "", dict(metadata or {})) for key, text, metadata in entries]

        return self._live.call(read)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        self._change(lambda collection: _llama_store(collection).delete(ref_doc_id, **delete_kwargs))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by their ids or metadata."""
        if filters is not None:
            # LlamaIndex's store sends an empty list of ids with the filter, which Chroma refuses.
            allowed = set(node_ids) if node_ids is not None else None
            matching = [node.node_id for node in self.get_nodes(None, filters)]
            node_ids = [key for key in matching if allowed is None or key in allowed]
        if node_ids:
            self._change(lambda collection: _llama_store(collection).delete_nodes(node_ids))

    def clear(self) -> None:
        """Delete all nodes."""

        def empty(collection: Collection) -> None:
            while ids := collection.get(limit=CLOUD_BATCH_SIZE, include=[])["ids"]:
                collection.delete(ids=ids)

        self._change(empty)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Insert nodes without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search without blocking the event loop."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes by their ids or metadata without blocking the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document without blocking the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by their ids or metadata without blocking the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """Delete all nodes without blocking the event loop."""
        await asyncio.to_thread(self.clear)


def _llama_store(collection: Collection) -> ChromaVectorStore:
    from llama_index.vector_stores.chroma import ChromaVectorStore

    return ChromaVectorStore(chroma_collection=collection)
