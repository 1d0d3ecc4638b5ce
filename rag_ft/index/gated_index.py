"""A LlamaIndex index whose inserts and queries pass the same gate as `rebuild_index`, with any embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.data_structs import IndexDict
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import BaseNode, Document, NodeWithScore, QueryBundle

from rag_ft.clean_text import clean_text
from rag_ft.documents.node_gate import admit, admitted


class GatedVectorStoreIndex(VectorStoreIndex):
    """The index that `open_index` returns.

    LlamaIndex embeds nodes and queries before the vector store sees them, and some embeddings fail on halves of
    surrogate pairs. This index cleans them first, and leaves out nodes without text.
    """

    def _add_nodes_to_index(
        self, index_struct: IndexDict, nodes: Sequence[BaseNode], show_progress: bool = False, **insert_kwargs: Any
    ) -> None:
        super()._add_nodes_to_index(index_struct, list(admitted(nodes)), show_progress, **insert_kwargs)

    async def _async_add_nodes_to_index(
        self, index_struct: IndexDict, nodes: Sequence[BaseNode], show_progress: bool = False, **insert_kwargs: Any
    ) -> None:
        await super()._async_add_nodes_to_index(index_struct, list(admitted(nodes)), show_progress, **insert_kwargs)

    def insert(self, document: Document, **insert_kwargs: Any) -> None:
        """Cut a document into nodes and insert them."""
        super().insert(admit(document) or document, **insert_kwargs)  # type: ignore[arg-type]

    async def ainsert(self, document: Document, **insert_kwargs: Any) -> None:
        """Cut a document into nodes and insert them, asynchronously."""
        await super().ainsert(admit(document) or document, **insert_kwargs)  # type: ignore[arg-type]

    def as_retriever(self, **kwargs: Any) -> BaseRetriever:
        """Return a retriever that cleans the texts of queries."""
        return _CleanQueryRetriever(
            self,
            node_ids=list(self.index_struct.nodes_dict.values()),
            callback_manager=self._callback_manager,
            object_map=self._object_map,
            **kwargs,
        )


class _CleanQueryRetriever(VectorIndexRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return super()._retrieve(clean_query(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await super()._aretrieve(clean_query(query_bundle))


def clean_query(query: QueryBundle) -> QueryBundle:
    """Return a query with clean texts (`clean_text`); the same object if nothing had to change.

    Example:
        >>> from llama_index.core.schema import QueryBundle
        >>> from rag_ft.index.gated_index import clean_query
        >>> clean_query(QueryBundle("Which \\ud835 valve?")).query_str == "Which \\ufffd valve?"
        True
    """
    text, strings = clean_text(query.query_str), query.custom_embedding_strs
    cleaned = [clean_text(each) for each in strings] if strings is not None else None
    if text == query.query_str and cleaned == strings:
        return query
    return dataclasses.replace(query, query_str=text, custom_embedding_strs=cleaned)
