"""A LlamaIndex vector store over whatever collection a name stands for at present, that checks each vector's maker."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from rag_ft.embedding.contract import ContractError, EmbeddingContract, contract_of
from rag_ft.embedding.marked_vector import mark_of
from rag_ft.errors import InputError, RagFtError
from rag_ft.index.contract import check_alike, check_same, from_metadata
from rag_ft.index.lock import building
from rag_ft.index.pointer import read_pointer, write_pointer
from rag_ft.index.records import record_of
from rag_ft.index.revision import Revision, changing, read_revision
from rag_ft.index.writing import CLOUD_STEP, parts_of, step_of, stored_metadata, write_records

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.vector_stores.chroma import ChromaVectorStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 1.0


class LiveChromaStore(BasePydanticVectorStore):
    """The Chroma collection that a name stands for, as a LlamaIndex vector store.

    A rebuild fills another collection and then lets the name stand for that one: this store finds it by itself, within
    a second or as soon as the old one is gone. Vectors that another model made are refused, at an insert and at a
    query: `FineTunedEmbedding` marks its own and knows them again; others are embedded again and compared.

    Args:
        name: what the index was built under.
        client: a Chroma client.
        embed_model: the model that the index is opened with.

    Raises:
        InputError: where nothing was built under the name.
        ContractError: where it was built with another model.

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
    name: str = Field(description="What the index was built under.")
    _client: Any = PrivateAttr()
    _embed_model: Any = PrivateAttr(default=None)
    _contract: EmbeddingContract | None = PrivateAttr(default=None)
    _store: Any = PrivateAttr(default=None)
    _looked: float = PrivateAttr(default=0.0)
    _changes: int = PrivateAttr(default=0)
    _fusions: Mapping[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _keywords: Any = PrivateAttr(default=None)
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
    def contract(self) -> EmbeddingContract:
        """The contract of the vectors in it."""
        return _contract_in(self.collection)

    def _current(self) -> ChromaVectorStore:
        with self._lock:
            if self._store is None or time.monotonic() - self._looked > LOOK_AGAIN_SECONDS:
                try:
                    self._look()
                except RagFtError:
                    raise
                except Exception as error:
                    if self._store is None:
                        raise
                    logger.debug("the pointer of %s was not read (%s): going on with what is open", self.name, error)
            return self._store  # type: ignore[no-any-return]

    def _look(self, gone: bool = False) -> None:
        """Find out what the name stands for, and check that it is of this model.

        Args:
            gone: whether the collection that is open did not answer.
        """
        from llama_index.vector_stores.chroma import ChromaVectorStore

        pointer = read_pointer(self._client, self.name)
        if pointer is None or pointer.current is None:
            raise InputError(f"no index {self.name} is complete yet: build it with rag-ft index SOURCE --model MODEL")
        self._fusions = pointer.fusions
        opened = self._store._collection if self._store is not None else None
        if opened is not None and opened.name == pointer.current and not gone:
            self._looked = time.monotonic()
            return
        collection = self._client.get_collection(pointer.current, embedding_function=None)
        try:
            self._check_collection(collection)
        except ContractError:
            # The app still has the model of before: it goes on with the passages of before while they are there.
            if opened is None or gone or not self._exists(opened):
                raise
            logger.warning("the index %s was rebuilt for another model: load that one to read it", self.name)
        else:
            if opened is None or opened.id != collection.id:
                self._store = ChromaVectorStore(chroma_collection=collection)
        self._looked = time.monotonic()

    def _check_collection(self, collection: Collection) -> None:
        stored = _contract_in(collection)
        if self._contract is not None:
            check_same(stored, self._contract, collection.name)

    def _exists(self, collection: Collection) -> bool:
        from chromadb.errors import NotFoundError

        try:
            return bool(self._client.get_collection(collection.name, embedding_function=None).id == collection.id)
        except NotFoundError:
            return False

    def _on_current(self, act: Callable[[ChromaVectorStore], T]) -> T:
        """Act on the collection of the moment; once more where it was removed meanwhile."""
        store = self._current()
        try:
            return act(store)
        except RagFtError:
            raise
        except Exception:
            with self._lock:
                self._look(gone=not self._exists(store._collection))
                again = self._store
            if again is store:
                raise
            return act(again)

    def _check_maker(self, store: ChromaVectorStore, vectors: Sequence[Any], what: str, passages: bool) -> list[int]:
        """Refuse vectors of another model; the places of those of which nothing tells who made them."""
        stored = _contract_in(store._collection)
        for contract in {contract for vector in vectors if (contract := mark_of(vector)) is not None}:
            check_same(stored, contract, f"{store._collection.name} ({what})", passages)
        if not stored.weights_sha256:
            return []  # of an embedding behind an API, nobody can tell
        if self._contract is not None and passages:
            check_same(stored, self._contract, store._collection.name, passages)
        made = getattr(self._embed_model, "made", lambda vector: False)
        unknown = [place for place, vector in enumerate(vectors) if mark_of(vector) is None and not made(vector)]
        if unknown and self._embed_model is None:
            raise ContractError(
                f"{what}: a vector of an unknown model, and the index {self.name} holds those of {stored.base_model}. "
                "Open it with rag_ft.open_index(FineTunedEmbedding.load(MODEL), ...)"
            )
        return unknown

    def _check_query(self, store: ChromaVectorStore, query: VectorStoreQuery) -> None:
        if query.query_embedding is None or not self._check_maker(store, [query.query_embedding], "a question", False):
            return
        assert self._embed_model is not None
        if not query.query_str:
            raise ContractError(
                f"a vector of an unknown model without its words was asked of the index {self.name}: "
                "embed it with the index's FineTunedEmbedding"
            )
        own = self._embed_model.get_query_embedding(query.query_str)
        check_alike([own], [query.query_embedding], self._embed_model, "the question's vector")

    def _check_insert(self, store: ChromaVectorStore, nodes: Sequence[BaseNode], vectors: list[Any]) -> None:
        from llama_index.core.schema import MetadataMode

        if unknown := self._check_maker(store, vectors, "an insert", passages=True):
            assert self._embed_model is not None
            texts = [nodes[place].get_content(metadata_mode=MetadataMode.EMBED) for place in unknown]
            own = self._embed_model.get_text_embedding_batch(texts)
            check_alike(own, [vectors[place] for place in unknown], self._embed_model, "vectors of an insert")

    @contextmanager
    def _changing(self, store: ChromaVectorStore) -> Iterator[None]:
        """Tell those who follow the collection, here and elsewhere, that its passages change."""
        try:
            with changing(self._client, self.name) as writing:
                writing.mark()
                yield
        finally:
            self._changes += 1

    @property
    def changes(self) -> int:
        """How often passages were changed through this store."""
        return self._changes

    @property
    def fusion(self) -> dict[str, Any] | None:
        """How the index's lists are mixed with those of BM25; None where nothing was learned for its model."""
        return self._fusions.get(self.contract.fingerprint)

    def keep_fusion(self, fusion: dict[str, Any]) -> None:
        """Write down how the lists are mixed; it holds for the model that the index has now.

        Raises:
            OutsideError: where another process builds the index.
        """
        with building(self._client, self.name):
            pointer = read_pointer(self._client, self.name)
            assert pointer is not None
            pointer = pointer.mixed(self.contract.fingerprint, fusion)
            write_pointer(self._client, self.name, pointer)
        self._fusions = pointer.fusions

    def revision(self) -> Revision:
        """What state the collection is in that is read at present."""
        return self._on_current(lambda store: read_revision(self._client, self.name, store._collection.name))

    def nearest(self, query: VectorStoreQuery) -> tuple[list[str], list[float]]:
        """(ids of the passages that are most like a question, their cosine similarities), without the passages.

        Args:
            query: its vector, its words, how many, and filters.

        Raises:
            ContractError: where another model made the question's vector.
        """

        def ask(store: ChromaVectorStore) -> tuple[list[str], list[float]]:
            self._check_query(store, query)
            found = store._collection.query(
                query_embeddings=[list(query.query_embedding or ())],
                n_results=query.similarity_top_k,
                where=where_of(query.filters),
                include=["distances"],
            )
            return found["ids"][0], [1 - distance for distance in (found["distances"] or [[]])[0]]

        return self._on_current(ask)

    def similarities(self, ids: Sequence[str], vector: Sequence[float]) -> dict[str, float]:
        """Cosine similarity of passages to a question; without those that are gone."""
        import numpy as np

        if not ids:
            return {}

        def ask(store: ChromaVectorStore) -> dict[str, float]:
            rows = store._collection.get(ids=list(ids), include=["embeddings"])
            stored = np.asarray(rows["embeddings"], dtype=np.float32).reshape(len(rows["ids"]), -1)
            asked = np.asarray(vector, dtype=np.float32)
            lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(asked)
            return dict(zip(rows["ids"], (stored @ asked / np.maximum(lengths, 1e-12)).tolist(), strict=True))

        return self._on_current(ask)

    def that_match(self, filters: MetadataFilters, ids: Sequence[str] | None = None) -> set[str]:
        """Which of some passages filters let through; of all where None."""
        where, step = where_of(filters), step_of(self._client)

        def ask(store: ChromaVectorStore) -> set[str]:
            passing: set[str] = set()
            if ids is not None:
                for part in parts_of(ids, step):
                    passing.update(store._collection.get(ids=part, where=where, include=[])["ids"])
                return passing
            while page := store._collection.get(where=where, limit=step, offset=len(passing), include=[])["ids"]:
                passing.update(page)
            return passing

        return self._on_current(ask)

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Insert nodes, or replace those of the same ids.

        Raises:
            ContractError: where a node carries another model's vector.
        """
        import numpy as np

        given = [node.get_embedding() for node in nodes]
        records = [record_of(node) for node in nodes]
        step = step_of(self._client)

        def insert(store: ChromaVectorStore) -> None:
            self._check_insert(store, nodes, given)
            known = stored_metadata(store._collection, [record.id for record in records], step)
            vectors = [np.asarray(vector, dtype=np.float32) for vector in given]
            with self._changing(store):
                write_records(store._collection, records, vectors, known, step)

        self._on_current(insert)
        return [record.id for record in records]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The passages that are most like a question.

        Raises:
            ContractError: where another model made the question's vector.
        """

        def ask(store: ChromaVectorStore) -> VectorStoreQueryResult:
            self._check_query(store, query)
            return store.query(query, **kwargs)

        return self._on_current(ask)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by their ids or metadata."""
        return self._on_current(lambda store: store.get_nodes(node_ids, filters))  # type: ignore[arg-type]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""

        def remove(store: ChromaVectorStore) -> None:
            with self._changing(store):
                store.delete(ref_doc_id, **delete_kwargs)

        self._on_current(remove)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by their ids or metadata."""
        if node_ids is None and filters is None:
            return
        if filters is not None:
            # LlamaIndex's store sends an empty list of ids with the filter, which Chroma refuses.
            wanted = set(node_ids) if node_ids is not None else None
            node_ids = [node.node_id for node in self.get_nodes(None, filters)]
            node_ids = [key for key in node_ids if wanted is None or key in wanted]
        if not node_ids:
            return

        def remove(store: ChromaVectorStore) -> None:
            with self._changing(store):
                store.delete_nodes(node_ids)

        self._on_current(remove)

    def clear(self) -> None:
        """Delete all nodes."""

        def empty(store: ChromaVectorStore) -> None:
            with self._changing(store):
                while ids := store._collection.get(limit=CLOUD_STEP, include=[])["ids"]:
                    store._collection.delete(ids=ids)

        self._on_current(empty)

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


def where_of(filters: MetadataFilters | None) -> dict[str, Any] | None:
    """LlamaIndex's filters as Chroma takes them."""
    from llama_index.vector_stores.chroma.base import _to_chroma_filter

    return _to_chroma_filter(filters) if filters is not None and filters.filters else None


def _contract_in(collection: Collection) -> EmbeddingContract:
    stored = from_metadata(collection.metadata)
    if stored is None:
        raise ContractError(f"the collection {collection.name} has lost its contract: rebuild the index")
    return stored
