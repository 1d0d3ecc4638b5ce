"""A wrapper of any LlamaIndex embedding that caches its vectors on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from rag_ft.embedding.client import EmbeddingClient, open_cache
from rag_ft.embedding.contract import EmbeddingContract, contract_of
from rag_ft.embedding.identity import Role
from rag_ft.embedding.marked_embedding import MarkedEmbedding
from rag_ft.embedding.marked_vector import MarkedVector
from rag_ft.embedding.request_sender import RequestPolicy
from rag_ft.embedding.vector_cache import VectorCache


class CachedEmbedding(MarkedEmbedding):
    """An embedding that computes each vector once, sends its requests in parallel and retries failed ones.

    The cache key is the model, role, prefix and text. The key of LlamaIndex's own `embeddings_cache` is the text alone,
    so it mixes queries with passages and one model with another.

    Args:
        embed_model: any LlamaIndex embedding; `Settings.embed_model` if None.
        cache: a file or a `VectorCache`; None uses the file in the user's cache folder, False uses no cache.
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
        default=None, exclude=True, repr=False, description="The embedding whose vectors are cached."
    )
    cache_path: str | None = Field(default=None, description="The cache file; None: that in the user's cache folder.")
    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts looked up at once.")

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
        opened = open_cache(cache if cache is not None else kwargs.pop("cache_path", None))
        kwargs |= {"model_name": embed_model.model_name, "cache_path": str(opened.path) if opened else None}
        super().__init__(embed_model=embed_model, **kwargs)
        self._vectors = EmbeddingClient(embed_model, opened, request_policy or RequestPolicy())

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises it."""
        return "CachedEmbedding"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the model and the name of the cache file."""
        vectors = self._vectors
        return {
            "embed_model": vectors.embed_model,
            "cache": vectors.cache if vectors.cache is not None else False,
            "request_policy": RequestPolicy(vectors.request_policy.workers, vectors.request_policy.requests_per_minute),
            "embed_batch_size": self.embed_batch_size,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle, ready for the first use."""
        self.__init__(**state)  # type: ignore[misc]

    @property
    def vectors(self) -> EmbeddingClient:
        """The client that embeds many texts at once and estimates their cost."""
        return self._vectors

    @property
    def contract(self) -> EmbeddingContract:
        """The contract of the underlying embedding, which also made the cached vectors."""
        if self._contract is None:
            self._contract = contract_of(self.embed_model)
        return self._contract

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        vectors = self._vectors.embed(texts, role)
        if self._contract is None:
            self._contract = contract_of(self.embed_model, vectors.shape[1])
        return [MarkedVector(vector, self._contract) for vector in vectors.tolist()]
