"""Vectors from the OpenAI Batch API: half the price, within a day, and a restart resumes what was sent.

Source: the Batch API and embeddings references, platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from rag_ft.embedding.identity import address_of, knows_one_role
from rag_ft.errors import InputError, OutsideError, require_package
from rag_ft.files import outside_failures, sha256_of
from rag_ft.remote.openai_batch import BatchJob, Line, LineResult

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from openai import OpenAI

    from rag_ft.embedding.vector_cache import VectorCache

MAX_TEXTS, MAX_CHARACTERS = 10_000, 50_000_000
"""Limits of one batch. The API takes 50,000 texts and 200 MB, but 10,000 vectors are 100 MB to download already."""


def embed_in_batches(
    model: BaseEmbedding, texts: Mapping[bytes, str], cache: VectorCache, *, show_progress: bool = False
) -> dict[bytes, NDArray[np.float32]]:
    """Embed texts through the Batch API; each vector is in the cache before it counts.

    The ids of the batches are noted beside the cache: a run that was stopped waits for its batches again and pays for
    nothing twice.

    Args:
        model: LlamaIndex's `OpenAIEmbedding`, whose model, key, address and settings are used.
        texts: the texts by their keys in the cache.
        cache: where the vectors are stored.
        show_progress: show a progress bar.

    Raises:
        InputError: if the model is not OpenAI's.
        OutsideError: if the server refuses a batch, cannot be reached, or does not embed all texts.
    """
    require_package("openai", "openai", "the Batch API")
    client = _client(model)
    # Another account or address does not know the batches of this one.
    notes = cache.path.with_name(f"{cache.path.stem}-{sha256_of(address_of(model), model.model_name)[:10]}")
    lock = FileLock(notes.with_name(f".{notes.name}.lock"))
    settings = {"model": getattr(model, "_text_engine", model.model_name), "encoding_format": "base64"}
    settings |= getattr(model, "additional_kwargs", {})
    found: dict[bytes, NDArray[np.float32]] = {}
    failures: dict[str, str] = {}

    def missing(round_number: int) -> list[tuple[str, dict[str, Any]]]:
        found.update(cache.get([key for key in texts if key not in found]))
        # LlamaIndex replaces line breaks too, so both ways give the same vector.
        return [
            (key.hex(), settings | {"input": text.replace("\n", " ")})
            for key, text in texts.items()
            if key not in found
        ]

    def store(results: list[LineResult], round_number: int) -> None:
        vectors = {}
        for result in results:
            try:
                vectors[bytes.fromhex(result.custom_id)] = _vector(result.body["data"][0]["embedding"])
            except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
                failures[result.custom_id] = result.reason
        cache.put(vectors)
        found.update((key, vector) for key, vector in vectors.items() if key in texts)

    try:
        with outside_failures(cache.path), lock.acquire(timeout=0):
            BatchJob(client, notes, "/v1/embeddings", show_progress=show_progress).run(
                missing,
                store,
                max_requests=MAX_TEXTS,
                max_size=MAX_CHARACTERS,
                size_of=lambda line: len(line["body"]["input"]),
            )
    except Timeout:
        raise OutsideError(
            f"another process waits for the batches of {cache.path}: wait until it ends, or give another cache"
        ) from None
    if left := [key for key in texts if key not in found]:
        reason = failures.get(left[0].hex(), "no line came back")
        raise OutsideError(f"{len(left)} of {len(texts)} texts were not embedded ({reason}): the rest is kept")
    return found


def _characters(line: Line) -> int:
    return len(line["body"]["input"])


def _vector(embedding: Any) -> NDArray[np.float32]:
    """Read a vector from numbers or from their bytes in base64.

    Raises:
        ValueError: if it is no vector of finite numbers.
    """
    numbers = (
        np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
        if isinstance(embedding, str)
        else np.asarray(embedding, dtype=np.float32)
    )
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError("no vector")
    return numbers.astype(np.float32)


def _client(model: BaseEmbedding) -> OpenAI:
    """Return a client with the model's key and address that retries by itself."""
    own = getattr(model, "_get_client", None)
    if own is None or not knows_one_role(model):
        raise InputError(
            f"--batch works with OpenAI's Batch API, not with {model.class_name()}: take openai:MODEL, or leave it out"
        )
    client: OpenAI = own()
    return client.with_options(max_retries=5)
