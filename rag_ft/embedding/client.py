"""A client for the vectors of many texts: it reads them from the cache, or embeds and caches them before use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from rag_ft.clean_text import clean_text
from rag_ft.embedding.contract import MIN_SAME_MODEL_COSINE
from rag_ft.embedding.identity import Role, address_of, has_known_weights, identity_of, ignores_role, is_remote
from rag_ft.embedding.request_sender import Request, RequestPolicy, RequestSender, Vectors
from rag_ft.embedding.vector_cache import VectorCache
from rag_ft.errors import InputError
from rag_ft.files import sha256_of
from rag_ft.remote.estimate import Estimate, count_tokens, dollars
from rag_ft.remote.pacing import split_by_size

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LOCAL_BATCH_SIZE = 256
"""Number of texts between two writes to the cache, for a local model."""

MAX_REQUEST_CHARACTERS = 400_000
"""Maximum number of characters in a request to a server; OpenAI accepts 300,000 tokens."""


@dataclass
class EmbeddingClient:
    """Embeds texts and keeps their vectors, so that each text is embedded once.

    Args:
        embed_model: any LlamaIndex embedding. A remote one gets its texts in parallel requests. A request that fails
            with 429, 5xx, a timeout or a broken connection is sent again after a growing pause, or after the server's
            `Retry-After`.
        cache: where vectors are kept; None keeps none.
        request_policy: how texts are sent to a server.

    Raises:
        InputError: if the Batch API is used without a cache.
    """

    embed_model: BaseEmbedding
    cache: VectorCache | None = None
    request_policy: RequestPolicy = field(default_factory=RequestPolicy)

    def __post_init__(self) -> None:
        if self.request_policy.batch and self.cache is None:
            raise InputError("the Batch API needs a cache, so that a stopped run can resume: pass one")
        self._version: int | None = None
        self._lock = threading.Lock()
        self._identities: dict[Role, str] = {}
        store = self.cache.put if self.cache is not None else None
        self._sender = RequestSender(self.embed_model, self.request_policy, store)

    def embed(self, texts: Sequence[str], role: Role, show_progress: bool = False) -> NDArray[np.float32]:
        """Return the vectors of texts in a role, shape (texts, dimension).

        Raises:
            OutsideError: if the embedding fails after all retries; the vectors so far are in the cache.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        texts = [clean_text(text) for text in texts]
        keys = self._keys(texts, role, self._checked_version())
        vectors = self.cache.get(keys) if self.cache is not None else {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if missing:
            if vectors:
                logger.info("%d of %d vectors are in the cache already", len(set(keys)) - len(missing), len(set(keys)))
            for embedded in self._embed_missing(missing, role, show_progress):
                vectors |= embedded
        return np.stack([vectors[key] for key in keys])

    def reference_vectors(self) -> NDArray[np.float32]:
        """Return the model's current vectors of the reference texts, without the cache; shape (4, dimension).

        Raises:
            OutsideError: if the embedding fails.
        """
        return self._sender.reference_vectors()

    def estimate(self, queries: Sequence[str], passages: Sequence[str]) -> Estimate:
        """Estimate the cost of embedding the texts that are not in the cache; nothing is sent."""
        by_role: dict[Role, Sequence[str]] = {"query": queries, "passage": passages}
        missing = {role: self._missing(texts, role) for role, texts in by_role.items()}
        requests = [request for role, texts in missing.items() for request in self._requests(texts, role)]
        tokens = count_tokens([text for texts in missing.values() for text in texts.values()])
        model = self.embed_model
        price: float | None = 0.0
        if is_remote(model):
            batch = self.request_policy.batch
            price = dollars(model.model_name, address_of(model), tokens, batch=batch, provider=_provider(model))
        return Estimate(model.model_name, len(requests), tokens, 0, price)

    def approve(self, queries: Sequence[str], passages: Sequence[str]) -> None:
        """Ask for approval of the estimate (`RequestPolicy.approve`) if anything would be sent to a server.

        Raises:
            InputError: if it is not approved.
        """
        if not is_remote(self.embed_model):
            return
        cached_version = self._cached_version()
        self.request_policy.require_approval(self.estimate(queries, passages))
        # Only a request shows whether the server still serves the model whose vectors are in the cache.
        if cached_version and self._checked_version() != cached_version:
            self.request_policy.require_approval(self.estimate(queries, passages))

    def _embed_missing(self, missing: Request, role: Role, show_progress: bool) -> Iterator[Vectors]:
        """Yield the vectors of texts in parts, each of which is already in the cache."""
        from tqdm.auto import tqdm

        if self.request_policy.batch:
            from rag_ft.embedding.embedding_batch import embed_in_batches

            assert self.cache is not None
            yield embed_in_batches(self.embed_model, missing, self.cache, show_progress=show_progress)
            return
        with tqdm(
            total=len(missing), desc=f"vectors of {'queries' if role == 'query' else 'passages'}", unit="text",
            disable=not show_progress, dynamic_ncols=True,
        ) as bar:  # fmt: skip
            for vectors in self._sender.send(self._requests(missing, role), role):
                yield vectors
                bar.update(len(vectors))

    def _requests(self, texts: Request, role: Role) -> list[Request]:
        model = self.embed_model
        takes_many_texts = role == "passage" or hasattr(model, "query_embeddings") or ignores_role(model)
        # LlamaIndex has no method for many queries.
        size = (model.embed_batch_size if takes_many_texts else 1) if is_remote(model) else LOCAL_BATCH_SIZE
        parts = split_by_size(texts.items(), lambda item: len(item[1]), size, MAX_REQUEST_CHARACTERS)
        return [dict(part) for part in parts]

    def _missing(self, texts: Sequence[str], role: Role) -> Request:
        """Return the texts without a vector in the cache."""
        distinct = list(dict.fromkeys(texts))
        if self.cache is None or not distinct:
            return {str(number).encode(): text for number, text in enumerate(distinct)}
        version = self._version if self._version is not None else self._cached_version()
        by_key = dict(zip(self._keys(distinct, role, version), distinct, strict=True))
        cached = self.cache.has(list(by_key))
        return {key: text for key, text in by_key.items() if key not in cached}

    def _keys(self, texts: Sequence[str], role: Role, version: int) -> list[bytes]:
        identity = self._identity(role)
        return [bytes.fromhex(sha256_of(identity, str(version), role, text)) for text in texts]

    def _identity(self, role: Role) -> str:
        if role not in self._identities:  # computed once, since it may hash the weights
            self._identities[role] = identity_of(self.embed_model, role)
        return self._identities[role]

    def _model_hash(self) -> bytes:
        return bytes.fromhex(sha256_of(self._identity("query"), self._identity("passage")))

    def _cached_version(self) -> int:
        """Return the version of the model whose vectors are in the cache."""
        if self.cache is None or has_known_weights(self.embed_model):
            return 0
        return self.cache.last_version(self._model_hash())

    def _checked_version(self) -> int:
        """Return the version of the current model; if its weights are unknown, compare its reference vectors."""
        with self._lock:
            if self._version is None:
                cached_version = version = self._cached_version()
                if self.cache is not None and not has_known_weights(self.embed_model):
                    version = self.cache.version_of(self._model_hash(), self.reference_vectors(), MIN_SAME_MODEL_COSINE)
                    if 0 < cached_version < version:
                        logger.warning(
                            "the model %s has changed since the cache was filled: recomputing its vectors",
                            self.embed_model.model_name,
                        )
                self._version = version
            return self._version


def open_cache(cache: VectorCache | str | Path | Literal[False] | None) -> VectorCache | None:
    """Open a cache file; None opens the one in the user's cache folder, False opens none."""
    if cache is False:
        return None
    return cache if isinstance(cache, VectorCache) else VectorCache(cache or None)


def _provider(model: BaseEmbedding) -> str | None:
    """Return the provider of a model, from its package's name (`llama_index.embeddings.cohere`: `cohere`)."""
    name = type(model).__module__.removeprefix("llama_index.embeddings.").split(".")[0]
    return "openai" if getattr(model, "_query_engine", None) is not None else name
