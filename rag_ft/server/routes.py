"""The routes of the embeddings server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from rag_ft.embedding.encoding import truncated
from rag_ft.server.batching import Batcher, EmbeddedTexts, EncodingError, QueueFullError
from rag_ft.server.limits import Limits
from rag_ft.server.metrics import Metrics
from rag_ft.server.middleware import CLIENT_CLOSED_REQUEST
from rag_ft.server.protocol import ApiError, EmbeddingRequest, model_names, parse_request, response_parts
from rag_ft.server.served_model import ServedModel

Result = TypeVar("Result")

DISCARD_FACTOR = 16
"""A body of up to this many times the limit is read and discarded, so that the caller receives the error."""


def embedding_routes(served: ServedModel, batcher: Batcher, metrics: Metrics, limits: Limits) -> APIRouter:
    """Make the routes `/v1/embeddings`, `/v1/models`, `/health`, `/ready` and `/metrics`.

    Args:
        served: the model.
        batcher: encodes texts with it.
        metrics: counts texts and tokens.
        limits: limits on a request.
    """
    router, names = APIRouter(), model_names(served.name)

    @router.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        try:
            body = await _read_body(request, limits)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        parsed = parse_request(body, names, served.dimensions, limits)
        log_fields = request.scope["rag_ft"]
        log_fields |= {"model": parsed.model, "role": parsed.role, "texts": len(parsed.texts)}
        embedded = await _embed(request, batcher, parsed, limits)
        if embedded is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        log_fields["tokens"] = embedded.tokens
        metrics.texts.labels(parsed.role).inc(len(parsed.texts))
        metrics.tokens.labels(parsed.role).inc(embedded.tokens)
        is_full = parsed.dimension in (None, embedded.vectors.shape[1])
        vectors = embedded.vectors if is_full else truncated(embedded.vectors, parsed.dimension)
        parts = []
        for part in response_parts(vectors, parsed, embedded.tokens):
            parts.append(part)
            await asyncio.sleep(0)
        return Response(b"".join(parts), media_type="application/json")

    @router.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [_model(served, name) for name in names]})

    @router.get("/v1/models/{name:path}")
    async def one_model(name: str) -> JSONResponse:
        if name not in names:
            raise ApiError(404, f"that model is not served: use one of {', '.join(names)}", "model", "model_not_found")
        return JSONResponse(_model(served, name))

    @router.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok" if batcher.alive else "down"}, 200 if batcher.alive else 503)

    @router.get("/ready")
    async def ready() -> JSONResponse:
        is_ready = batcher.alive and batcher.queued < limits.queued_texts
        return JSONResponse(
            {"status": "ready" if is_ready else "busy", "queued_texts": batcher.queued}, 200 if is_ready else 503
        )

    @router.get("/metrics")
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    return router


async def _embed(request: Request, batcher: Batcher, parsed: EmbeddingRequest, limits: Limits) -> EmbeddedTexts | None:
    """Embed a request's texts; None if the caller disconnected.

    Raises:
        ApiError: if the queue is full or the model fails.
    """
    try:
        return await _unless_disconnected(request, batcher.embed(parsed.texts, parsed.role))
    except QueueFullError as full:
        raise ApiError(
            429,
            f"{limits.queued_texts} texts are already waiting: try again in {full.retry_after} s",
            code="queue_full",
            retry_after=full.retry_after,
        ) from None
    except EncodingError as error:
        raise ApiError(500, str(error), code="model_failed") from None


def _model(served: ServedModel, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "rag_ft",
        "dimensions": list(served.dimensions),
        "max_input_tokens": served.max_length or None,
    }


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Read a request's body.

    Raises:
        ApiError: if it is not plain JSON, too large or too slow.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        # A web page cannot send this type to another site without that site's permission.
        raise ApiError(
            415,
            "the content type is not application/json: send JSON, with Content-Type: application/json",
            code="unsupported_media_type",
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body is compressed: send it uncompressed", code="unsupported_media_type")
    too_large = ApiError(
        413, f"the body has over {limits.body_bytes} bytes: send fewer or shorter texts", code="body_too_large"
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > DISCARD_FACTOR * limits.body_bytes:
        raise too_large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size <= limits.body_bytes:
                    body += part
                elif size > DISCARD_FACTOR * limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {limits.body_seconds:g} s: send it faster", code="timeout"
        ) from None
    if size > limits.body_bytes:
        raise too_large
    return bytes(body)


async def _unless_disconnected(request: Request, work: Awaitable[Result]) -> Result | None:
    """Return the result of some work; if the caller disconnects first, cancel it and return None."""
    working, listening = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        listening.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
