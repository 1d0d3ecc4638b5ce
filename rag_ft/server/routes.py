"""The paths of the embeddings server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from rag_ft.server.batching import Batcher, EncodingError, QueueFullError
from rag_ft.server.limits import Limits
from rag_ft.server.metrics import Metrics
from rag_ft.server.middleware import HUNG_UP
from rag_ft.server.protocol import ApiError, model_names, parse_request, response_parts
from rag_ft.server.served_model import ServedModel, cut

Result = TypeVar("Result")

DISCARDED = 16
"""A body of up to so many times the limit is read to its end, and not kept, so that its sender hears why."""


def embedding_routes(served: ServedModel, batcher: Batcher, metrics: Metrics, limits: Limits) -> APIRouter:
    """`/v1/embeddings`, `/v1/models`, `/health`, `/ready` and `/metrics`.

    Args:
        served: the model.
        batcher: that encodes with it.
        metrics: where texts and tokens are counted.
        limits: of a call.
    """
    router, names = APIRouter(), model_names(served.name)

    @router.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        try:
            body = await _body(request, limits)
        except ClientDisconnect:
            return Response(status_code=HUNG_UP)
        asked = parse_request(body, names, served.dimensions, limits)
        notes = request.scope["rag_ft"]
        notes |= {"model": asked.model, "role": asked.role, "texts": len(asked.texts)}
        try:
            embedded = await _unless_hung_up(request, batcher.embed(asked.texts, asked.role))
        except QueueFullError as full:
            raise ApiError(
                429,
                f"{limits.queued_texts} texts wait already: try again in {full.retry_after} s",
                code="queue_full",
                retry_after=full.retry_after,
            ) from None
        except EncodingError as error:
            raise ApiError(500, str(error), code="model_failed") from None
        if embedded is None:
            return Response(status_code=HUNG_UP)
        notes["tokens"] = embedded.tokens
        metrics.texts.labels(asked.role).inc(len(asked.texts))
        metrics.tokens.labels(asked.role).inc(embedded.tokens)
        parts = []
        for part in response_parts(cut(embedded.vectors, asked.dimension), asked, embedded.tokens):
            parts.append(part)
            await asyncio.sleep(0)
        return Response(b"".join(parts), media_type="application/json")

    @router.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [_model(served, name) for name in names]})

    @router.get("/v1/models/{name:path}")
    async def one_model(name: str) -> JSONResponse:
        if name not in names:
            raise ApiError(
                404, f"that model is not served here: give one of {', '.join(names)}", "model", "model_not_found"
            )
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
    async def counted() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    return router


def _model(served: ServedModel, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "rag_ft",
        "dimensions": list(served.dimensions),
        "max_input_tokens": served.max_length or None,
    }


async def _body(request: Request, limits: Limits) -> bytes:
    """A request's body, as far as it is no longer than allowed, and comes in time."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A page in a browser cannot send this kind to another site without being asked first.
        raise ApiError(
            415,
            "the content type is not application/json: send JSON, with Content-Type: application/json",
            code="unsupported_media_type",
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body is compressed: send it plain", code="unsupported_media_type")
    too_large = ApiError(
        413, f"the body is over {limits.body_bytes} bytes: send fewer or shorter texts in a call", code="body_too_large"
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > DISCARDED * limits.body_bytes:
        raise too_large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size <= limits.body_bytes:
                    body += part
                elif size > DISCARDED * limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {limits.body_seconds:g} s", code="timeout") from None
    if size > limits.body_bytes:
        raise too_large
    return bytes(body)


async def _unless_hung_up(request: Request, work: Awaitable[Result]) -> Result | None:
    """The result of some work; None where the caller hung up before, and the work is cancelled."""
    working, listening = asyncio.ensure_future(work), asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        listening.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
