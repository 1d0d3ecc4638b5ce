"""A LlamaIndex vector store over whatever collection a name stands for at present, that checks each vector's maker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from rag_ft.embedding.contract import EmbeddingContract
from rag_ft.embedding.marked import mark_of
from rag_ft.errors import InputError
from rag_ft.index.contract import ContractError, check_same, contract_of, from_metadata
from rag_ft.index.pointer import read_pointer
from rag_ft.index.records import record_of

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.vector_stores.chroma import ChromaVectorStore

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 1.0
CHECKED = 4
"""Vectors of each insert that are made again: LlamaIndex's nodes keep plain numbers, without the mark."""

ALIKE = 0.999
"""Cosine of vectors that one model made of one text, in other batches or another precision; of two models that were
tuned apart it is less, and int8 backends are made by `FineTunedEmbedding`, which says so."""


class LiveChromaStore(BasePydanticVectorStore):
    """The Chroma collection that a name stands for, as a LlamaIndex vector store.

    A rebuild fills another collection and then lets the name stand for that one: this store finds it by itself, within
    a second or as soon as the old one is gone. Vectors that another model made are refused, at an insert and at a
    query: `FineTunedEmbedding` marks its own; of those without a mark, some are embedded again and compared.

    Args:
        name: what the index was built under.
        client: a Chroma client.
        embed_model: the model that the index is opened with.

    Raises:
        InputError: where nothing was built under the name.
        ContractError: where it was built with another model.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    name: str = Field(description="What the index was built under.")
    _client: Any = PrivateAttr()
    _embed_model: Any = PrivateAttr(default=None)
    _contract: EmbeddingContract | None = PrivateAttr(default=None)
    _store: Any = PrivateAttr(default=None)
    _looked: float = PrivateAttr(default=0.0)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, name: str, client: ClientAPI, embed_model: BaseEmbedding | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._client, self._embed_model = client, embed_model
        self._contract = contract_of(embed_model) if embed_model is not None else None
        self._look()

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows it."""
        return "LiveChromaStore"

    @property
    def client(self) -> Any:
        """The Chroma collection that is read at present."""
        return self.collection

    @property
    def collection(self) -> Collection:
        """The Chroma collection that is read at present."""
        return self._current()._collection

    @property
    def contract(self) -> EmbeddingContract | None:
        """The contract of the vectors in it; None where rag_ft did not build it."""
        return from_metadata(self.collection.metadata)

    def _current(self) -> ChromaVectorStore:
        with self._lock:
            if self._store is None or time.monotonic() - self._looked > LOOK_AGAIN_SECONDS:
                self._look()
            return self._store  # type: ignore[no-any-return]

    def _look(self) -> None:
        """Find out what the name stands for, and check that it is of this model."""
        from llama_index.vector_stores.chroma import ChromaVectorStore

        pointer = read_pointer(self._client, self.name)
        if pointer is None or pointer.current is None:
            raise InputError(f"no index {self.name} is complete yet: build it with rag-ft index SOURCE --model MODEL")
        self._looked = time.monotonic()
        if self._store is not None and self._store._collection.name == pointer.current:
            return
        collection = self._client.get_collection(pointer.current, embedding_function=None)
        stored = from_metadata(collection.metadata)
        if stored is not None and self._contract is not None:
            check_same(stored, self._contract, pointer.current)
        self._store = ChromaVectorStore(chroma_collection=collection)

    def _on_current(self, act: Callable[[ChromaVectorStore], T]) -> T:
        """Act on the collection of the moment; once more where it was removed meanwhile."""
        store = self._current()
        try:
            return act(store)
        except ContractError:
            raise
        except Exception:
            with self._lock:
                self._look()
                again = self._store
            if again is store:
                raise
            return act(again)

    def _check_maker(self, vectors: Sequence[Sequence[float]], what: str) -> list[int]:
        """Refuse vectors of another model; the places of those that do not say who made them."""
        stored = self.contract
        if stored is None:
            return []
        for vector in vectors:
            made_under = mark_of(vector)
            if made_under is not None and made_under != stored:
                check_same(stored, made_under, f"{self.name} ({what})")
        if not stored.weights_sha256:
            return []  # of an embedding behind an API, nobody can tell
        unmarked = [place for place, vector in enumerate(vectors) if mark_of(vector) is None]
        if unmarked and self._embed_model is None:
            raise ContractError(
                f"{what}: a vector of an unknown model, and the index {self.name} holds those of {stored.base_model}. "
                "Open it with rag_ft.open_index(FineTunedEmbedding.load(MODEL), ...)"
            )
        return unmarked

    def _check_query(self, query: VectorStoreQuery) -> None:
        if query.query_embedding is None or not self._check_maker([query.query_embedding], "a question"):
            return
        assert self._embed_model is not None
        if query.query_str:
            own = self._embed_model.get_query_embedding(query.query_str)
            check_alike([own], [query.query_embedding], self._embed_model, "the question's vector")

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Insert nodes, or replace those of the same ids.

        Raises:
            ContractError: where a node carries another model's vector.
        """
        import numpy as np
        from llama_index.core.schema import MetadataMode

        vectors = [node.get_embedding() for node in nodes]
        if unmarked := self._check_maker(vectors, "an insert")[:CHECKED]:
            assert self._embed_model is not None
            texts = [nodes[place].get_content(metadata_mode=MetadataMode.EMBED) for place in unmarked]
            own = self._embed_model.get_text_embedding_batch(texts)
            check_alike(own, [vectors[place] for place in unmarked], self._embed_model, "vectors of an insert")
        records = [record_of(node) for node in nodes]

        def insert(store: ChromaVectorStore) -> None:
            step = self._client.get_max_batch_size()
            for start in range(0, len(records), step):
                part = records[start : start + step]
                store._collection.upsert(
                    ids=[record.id for record in part],
                    embeddings=np.asarray(vectors[start : start + step], dtype=np.float32),
                    metadatas=[record.metadata for record in part],
                    documents=[record.document for record in part],
                )

        self._on_current(insert)
        return [record.id for record in records]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The passages that are most like a question.

        Raises:
            ContractError: where another model made the question's vector.
        """
        self._check_query(query)
        return self._on_current(lambda store: store.query(query, **kwargs))

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by their ids or metadata."""
        return self._on_current(lambda store: store.get_nodes(node_ids, filters))  # type: ignore[arg-type]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        self._on_current(lambda store: store.delete(ref_doc_id, **delete_kwargs))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by their ids or metadata."""
        self._on_current(lambda store: store.delete_nodes(node_ids, filters))  # type: ignore[arg-type]

    def clear(self) -> None:
        """Delete all nodes."""
        self._on_current(lambda store: store.clear())

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Insert nodes without holding up the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search without holding up the event loop."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by their ids or metadata, without holding up the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document without holding up the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by their ids or metadata, without holding up the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """Delete all nodes without holding up the event loop."""
        await asyncio.to_thread(self.clear)


def check_alike(
    own: Sequence[Sequence[float]], given: Sequence[Sequence[float]], model: BaseEmbedding, what: str
) -> None:
    """Refuse vectors of an unknown maker that are not what the model makes of the same texts.

    Raises:
        ContractError: where a cosine is under `ALIKE`.
    """
    import numpy as np

    if [len(vector) for vector in own] == [len(vector) for vector in given]:
        one, other = np.asarray(own, dtype=np.float32), np.asarray(given, dtype=np.float32)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        if ((one * other).sum(axis=1) / np.maximum(lengths, 1e-12)).min() > ALIKE:
            return
    raise ContractError(
        f"{what} are not those that {model.model_name} makes of the same words: embed with "
        "FineTunedEmbedding.load(MODEL) (Settings.embed_model), and drop vectors that were kept from before"
    )
