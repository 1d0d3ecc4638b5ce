"""Vectors from the OpenAI Batch API, at half the price and within a day. A restart resumes the batches.

Source: the Batch API and embeddings references, platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from rag_ft.embedding.identity import address_of, ignores_role
from rag_ft.errors import InputError, OutsideError, require_package
from rag_ft.files import outside_failures, sha256_of
from rag_ft.remote.openai_batch import BatchJob, LineResult

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from openai import OpenAI

    from rag_ft.embedding.vector_cache import VectorCache

MAX_TEXTS, MAX_CHARACTERS = 10_000, 50_000_000
"""Limits of one batch. The API accepts 50,000 texts and 200 MB, but 10,000 vectors are already a download of 100 MB."""


def embed_in_batches(
    model: BaseEmbedding, texts: Mapping[bytes, str], cache: VectorCache, *, show_progress: bool = False
) -> dict[bytes, NDArray[np.float32]]:
    """Embed texts through the Batch API; the vectors are cached before they are used.

    The ids of the batches are stored beside the cache, so a restarted run waits for its batches and does not pay twice.

    Args:
        model: LlamaIndex's `OpenAIEmbedding`, whose model, key, address and settings are used.
        texts: cache key -> text.
        cache: where the vectors are stored.
        show_progress: show a progress bar.

    Raises:
        InputError: if the model is not OpenAI's.
        OutsideError: if the server refuses a batch, cannot be reached, or does not embed all texts.
    """
    require_package("openai", "openai", "the Batch API")
    client = _client(model)
    # Batches are known only at the address that they were sent to.
    journal = cache.path.with_name(f"{cache.path.stem}-{sha256_of(address_of(model), model.model_name)[:10]}")
    lock = FileLock(journal.with_name(f".{journal.name}.lock"))
    settings = {"model": getattr(model, "_text_engine", model.model_name), "encoding_format": "base64"}
    settings |= getattr(model, "additional_kwargs", {})
    vectors: dict[bytes, NDArray[np.float32]] = {}
    failures: dict[str, str] = {}

    def missing(round_number: int) -> list[tuple[str, dict[str, Any]]]:
        vectors.update(cache.get([key for key in texts if key not in vectors]))
        # LlamaIndex also replaces line breaks, so both ways give the same vector.
        return [
            (key.hex(), settings | {"input": text.replace("\n", " ")})
            for key, text in texts.items()
            if key not in vectors
        ]

    def store(results: list[LineResult], round_number: int) -> None:
        received = {}
        for result in results:
            try:
                received[bytes.fromhex(result.custom_id)] = _vector(result.body["data"][0]["embedding"])
            except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
                failures[result.custom_id] = result.reason
        cache.put(received)
        vectors.update((key, vector) for key, vector in received.items() if key in texts)

    try:
        with outside_failures(cache.path), lock.acquire(timeout=0):
            BatchJob(client, journal, "/v1/embeddings", show_progress=show_progress).run(
                missing,
                store,
                max_requests=MAX_TEXTS,
                max_size=MAX_CHARACTERS,
                size_of=lambda line: len(line["body"]["input"]),
            )
    except Timeout:
        raise OutsideError(
            f"another process is waiting for the batches of {cache.path}: wait until it ends, or choose another cache"
        ) from None
    if failed := [key for key in texts if key not in vectors]:
        reason = failures.get(failed[0].hex(), "the batch has no result for them")
        raise OutsideError(f"{len(failed)} of {len(texts)} texts were not embedded ({reason}): run again for these")
    return vectors


def _vector(embedding: Any) -> NDArray[np.float32]:
    """Read a vector from a list of numbers or from base64.

    Raises:
        ValueError: if it is not a vector of finite numbers.
    """
    numbers = (
        np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
        if isinstance(embedding, str)
        else np.asarray(embedding, dtype=np.float32)
    )
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError("not a vector")
    return numbers.astype(np.float32)


def _client(model: BaseEmbedding) -> OpenAI:
    """Return a client with the model's key and address that retries failed requests."""
    get_client = getattr(model, "_get_client", None)
    if get_client is None or not ignores_role(model):
        raise InputError(
            f"--batch works with OpenAI's Batch API, not with {model.class_name()}: use openai:MODEL, or omit --batch"
        )
    client: OpenAI = get_client()
    return client.with_options(max_retries=5)
