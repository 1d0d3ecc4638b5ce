"""A retriever and its rerankers as one LlamaIndex retriever, for `compare` or any query engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from rag_ft.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.postprocessor.types import BaseNodePostprocessor


class RerankedRetriever(BaseRetriever):
    """A retriever whose results LlamaIndex postprocessors rerank.

    Args:
        retriever: finds the passages. Its top k is the number of passages to rerank.
        postprocessors: one or more, applied in turn; for example `SentenceTransformerRerank`.
        callback_manager: the retriever's own if None.

    Raises:
        InputError: if there is no postprocessor.

    Example:
        >>> from llama_index.core.postprocessor import SimilarityPostprocessor
        >>> from llama_index.core.retrievers import VectorIndexRetriever
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.retrieval import RerankedRetriever
        >>> index = VectorStoreIndex([TextNode(text="Leave.")], embed_model=MockEmbedding(embed_dim=4))
        >>> retriever = RerankedRetriever(index.as_retriever(), [SimilarityPostprocessor(similarity_cutoff=2.0)])
        >>> retriever.retrieve("leave?")
        []
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        postprocessors: Sequence[BaseNodePostprocessor],
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if not postprocessors:
            raise InputError("RerankedRetriever got no postprocessor: pass at least one reranker")
        self.retriever, self.postprocessors = retriever, list(postprocessors)
        super().__init__(callback_manager=callback_manager or retriever.callback_manager)

    @property
    def name(self) -> str:
        """The names of the retriever and of its rerankers, for tables."""
        rerankers = " > ".join(str(getattr(each, "model", each.class_name())) for each in self.postprocessors)
        return f"{getattr(self.retriever, 'name', type(self.retriever).__name__)} > {rerankers}"

    def _rerank(self, nodes: list[NodeWithScore], query_bundle: QueryBundle) -> list[NodeWithScore]:
        for postprocessor in self.postprocessors:
            nodes = postprocessor.postprocess_nodes(nodes, query_bundle=query_bundle)
        return nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._rerank(self.retriever.retrieve(query_bundle), query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = await self.retriever.aretrieve(query_bundle)
        return await asyncio.to_thread(self._rerank, nodes, query_bundle)
