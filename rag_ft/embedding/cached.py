"""Any LlamaIndex embedding with its vectors on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from rag_ft.embedding.client import EmbeddingClient, RequestPolicy, opened_cache
from rag_ft.embedding.contract import EmbeddingContract, contract_of
from rag_ft.embedding.identity import Role
from rag_ft.embedding.marked_vector import MarkedVector, marked_mean
from rag_ft.embedding.vector_cache import VectorCache


class CachedEmbedding(BaseEmbedding):
    """An embedding whose vectors are computed once, and whose requests are sent side by side and tried again.

    Vectors are kept by model, role, prefix and text, so that queries and passages, and two models, do not meet as they
    do in LlamaIndex's own `embeddings_cache`.

    Args:
        embed_model: any LlamaIndex embedding; `Settings.embed_model` where None.
        cache: a file or a `VectorCache`; the one in the user's cache folder where None.
        request_policy: how texts are sent to a server.
        **kwargs: any field of the class.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft.embedding import CachedEmbedding
        >>> cached = CachedEmbedding(MockEmbedding(embed_dim=8), cache=tempfile.mkdtemp() + "/vectors.sqlite")
        >>> len(cached.get_text_embedding("A Kittiwake is an expenses claim."))
        8
    """

    embed_model: Any = Field(
        default=None, exclude=True, repr=False, description="The embedding whose vectors are kept."
    )
    cache_path: str | None = Field(default=None, description="The file with the vectors; None: the user's own.")
    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts that are looked up at once.")

    _vectors: EmbeddingClient = PrivateAttr()
    _contract: EmbeddingContract | None = PrivateAttr(default=None)

    def __init__(
        self,
        embed_model: BaseEmbedding | None = None,
        cache: VectorCache | str | Path | Literal[False] | None = None,
        request_policy: RequestPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        if embed_model is None:
            from llama_index.core import Settings

            embed_model = Settings.embed_model
        opened = opened_cache(cache if cache is not None else kwargs.pop("cache_path", None))
        kwargs |= {"model_name": embed_model.model_name, "cache_path": str(opened.path) if opened else None}
        super().__init__(embed_model=embed_model, **kwargs)
        self._vectors = EmbeddingClient(embed_model, opened, request_policy or RequestPolicy())

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "CachedEmbedding"

    def __getstate__(self) -> dict[str, Any]:
        """Pickled as its model and the name of its file."""
        vectors = self._vectors
        return {
            "embed_model": vectors.embed_model,
            "cache": vectors.cache if vectors.cache is not None else False,
            "sending": RequestPolicy(vectors.request_policy.workers, vectors.request_policy.requests_per_minute),
            "embed_batch_size": self.embed_batch_size,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Ready for the first use."""
        self.__init__(**state)  # type: ignore[misc]

    @property
    def vectors(self) -> EmbeddingClient:
        """Where its vectors come from: estimates, and many texts at once."""
        return self._vectors

    @property
    def contract(self) -> EmbeddingContract:
        """The contract of the embedding: vectors from the disk are its own."""
        if self._contract is None:
            self._contract = contract_of(self.embed_model)
        return self._contract

    def _embedded(self, texts: list[str], role: Role) -> list[list[float]]:
        found = self._vectors.embed(texts, role)
        if self._contract is None:
            self._contract = contract_of(self.embed_model, found.shape[1])
        return [MarkedVector(vector, self._contract) for vector in found.tolist()]

    def query_embeddings(self, queries: list[str]) -> list[list[float]]:
        """Embed many queries at once; shape (queries, dimension)."""
        return self._embedded(queries, "query")

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedded([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embedded([text], "passage")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedded(texts, "passage")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """The mean of several queries' vectors, still marked with the contract."""
        return marked_mean([self.get_query_embedding(query) for query in queries], self.contract, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """The same, asynchronously."""
        return marked_mean([await self.aget_query_embedding(query) for query in queries], self.contract, agg_fn)
