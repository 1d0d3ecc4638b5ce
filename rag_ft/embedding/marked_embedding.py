"""The base class of rag_ft's embeddings: LlamaIndex's methods, sync and async, from one method that embeds texts."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable

from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_ft.clean_text import clean_text
from rag_ft.embedding.contract import EmbeddingContract
from rag_ft.embedding.identity import Role
from rag_ft.embedding.marked_vector import marked_mean


class MarkedEmbedding(BaseEmbedding):
    """A LlamaIndex embedding whose vectors carry the contract that they were made under."""

    @property
    @abstractmethod
    def contract(self) -> EmbeddingContract:
        """What the vectors depend on."""

    @abstractmethod
    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        """Embed texts of one role; each vector is a `MarkedVector`."""

    def _embed_clean(self, texts: list[str], role: Role) -> list[list[float]]:
        """Embed texts as clean text, since tokenizers and servers refuse halves of surrogate pairs."""
        return self._embed([clean_text(text) for text in texts], role)

    def query_embeddings(self, queries: list[str]) -> list[list[float]]:
        """Embed many queries at once, each with the query prefix; shape (queries, dimension)."""
        return self._embed_clean(queries, "query")

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed_clean([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed_clean([text], "passage")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed_clean(texts, "passage")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """Embed several queries into one vector that carries the contract; retrievers call this.

        Args:
            queries: one for a plain question, several for HyDE and similar transforms.
            agg_fn: combines the vectors, instead of their mean.
        """
        return marked_mean([self.get_query_embedding(query) for query in queries], self.contract, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """Embed several queries into one vector, asynchronously."""
        return marked_mean([await self.aget_query_embedding(query) for query in queries], self.contract, agg_fn)
