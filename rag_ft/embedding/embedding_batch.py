"""Vectors through the OpenAI Batch API: half the price, within a day, and a restart goes on with what was sent.

Source: the Batch API and embeddings references, platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import base64
import binascii
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from rag_ft.embedding.identity import address_of, knows_one_role
from rag_ft.errors import InputError, OutsideError, require_package, without_secrets
from rag_ft.files import outside_failures, sha256_of
from rag_ft.remote.openai_batch import BatchJob, Endpoint, Line

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from openai import OpenAI

    from rag_ft.embedding.vector_cache import VectorCache

logger = logging.getLogger(__name__)

MOST_TEXTS, MOST_CHARACTERS = 10_000, 50_000_000
"""Of one batch; the API takes 50,000 texts and 200 MB, and 10,000 vectors are 100 MB to download already."""

ROUNDS = 3
"""Failed lines are sent again in a further batch, so often in all."""

ENDPOINT: Endpoint = "/v1/embeddings"


def embed_in_batches(
    model: BaseEmbedding,
    texts: Mapping[bytes, str],
    cache: VectorCache,
    *,
    stop: threading.Event | None = None,
    poll_seconds: float | None = None,
    show_progress: bool = False,
) -> dict[bytes, NDArray[np.float32]]:
    """Embed texts through the Batch API; each vector is in the cache before it counts.

    The batches are noted beside the cache as soon as the server has given them an id: a run that was stopped goes on
    waiting for them and pays nothing twice.

    Args:
        model: LlamaIndex's `OpenAIEmbedding`: its model, key, address and settings are used.
        texts: by their keys in the cache.
        cache: where the vectors go.
        stop: set by another thread, it ends the waiting; the batches run on.
        poll_seconds: between two looks at a batch; 5, growing to 60, where None.
        show_progress: a progress bar.

    Raises:
        InputError: where the model is not OpenAI's.
        OutsideError: where the server refuses a batch, cannot be reached, or does not embed all texts.
    """
    require_package("openai", "openai", "the Batch API")
    client = _client(model)
    # Another account or address knows nothing of the batches of this one.
    notes = cache.path.with_name(f"{cache.path.stem}-{sha256_of(address_of(model), model.model_name)[:10]}")
    lock = FileLock(notes.with_name(f".{notes.name}.lock"))
    found: dict[bytes, NDArray[np.float32]] = {}
    failures: dict[bytes, str] = {}
    try:
        with outside_failures(cache.path), lock.acquire(timeout=0):
            job = BatchJob(client, notes, ENDPOINT, stop or threading.Event())

            def collect() -> None:
                for lines in job.results(poll_seconds, show_progress):
                    taken = dict(each for line in lines if (each := _taken(line, failures)) is not None)
                    cache.put(taken)
                    found.update((key, vector) for key, vector in taken.items() if key in texts)

            # What an earlier run has sent is waited for before anything is sent again.
            collect()
            found |= cache.get([key for key in texts if key not in found])
            for turn in range(ROUNDS):
                left = {key: text for key, text in texts.items() if key not in found}
                if not left:
                    break
                if turn:
                    logger.info("batch: %d lines failed and are sent again", len(left))
                for part in _parts(left, model):
                    job.send(part)
                collect()
    except Timeout:
        raise OutsideError(
            f"another process waits for the batches of {cache.path}: wait until it ends, or give another cache"
        ) from None
    if missing := [key for key in texts if key not in found]:
        reason = failures.get(missing[0], "no line came back")
        raise OutsideError(f"{len(missing)} of {len(texts)} texts were not embedded ({reason}): the rest is kept")
    return found


def _parts(texts: Mapping[bytes, str], model: BaseEmbedding) -> Iterator[list[Line]]:
    """The lines of the request files: each within the limits of one batch."""
    settings = {"model": getattr(model, "_text_engine", model.model_name), "encoding_format": "base64"}
    settings |= getattr(model, "additional_kwargs", {})
    part: list[Line] = []
    size = 0
    for key, text in texts.items():
        if part and (len(part) == MOST_TEXTS or size + len(text) > MOST_CHARACTERS):
            yield part
            part, size = [], 0
        # As LlamaIndex sends it, so that both ways make the same vector.
        body = settings | {"input": text.replace("\n", " ")}
        part.append({"custom_id": key.hex(), "method": "POST", "url": ENDPOINT, "body": body})
        size += len(text)
    if part:
        yield part


def _taken(line: Line, failures: dict[bytes, str]) -> tuple[bytes, NDArray[np.float32]] | None:
    """(key, vector) of one line of a result file; a line without a vector is put among the failures."""
    response = line.get("response") or {}
    body: Any = response.get("body") or {}
    try:
        key = bytes.fromhex(str(line.get("custom_id")))
    except ValueError:
        return None
    try:
        return key, _vector(body["data"][0]["embedding"])
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
        error = line.get("error") or (body.get("error") if isinstance(body, dict) else None) or {}
        reason = error.get("message") or error.get("code") or f"status {response.get('status_code')}"
        failures[key] = without_secrets(str(reason))[:120]
        return None


def _vector(embedding: Any) -> NDArray[np.float32]:
    """Numbers, or their bytes as base64.

    Raises:
        ValueError: where they are none.
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
    """A client with the model's key and address, that tries again by itself."""
    own = getattr(model, "_get_client", None)
    if own is None or not knows_one_role(model):
        raise InputError(
            f"--batch works with OpenAI's Batch API, not with {model.class_name()}: take openai:MODEL, or leave it out"
        )
    client: OpenAI = own()
    return client.with_options(max_retries=5)
