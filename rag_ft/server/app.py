"""The embeddings server as an ASGI application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.resolve_embedding import embedding_by_name
from rag_ft.errors import require_package
from rag_ft.server.batching import Batcher
from rag_ft.server.limits import Limits
from rag_ft.server.protocol import ApiError
from rag_ft.server.served_model import served_model

if TYPE_CHECKING:
    from fastapi import FastAPI
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from starlette.requests import Request

KEY_VARIABLE = "RAG_FT_API_KEY"


def api_key_of_environment() -> str | None:
    """Return the key in `RAG_FT_API_KEY`; None if it is not set."""
    return os.environ.get(KEY_VARIABLE, "").strip() or None


def create_app(
    model: BaseEmbedding | str | Path,
    name: str | None = None,
    api_key: str | None = None,
    limits: Limits | None = None,
    dimensions: Sequence[int] = (),
) -> FastAPI:
    """Create the embeddings server as an ASGI application; `rag_ft.server.running.serve` runs it.

    Args:
        model: any LlamaIndex embedding, or its name (`embedding_by_name`): a model folder, a hub name, `local`, or an
            adapter's folder.
        name: the name that callers use; None uses the model's own. `NAME-query` and `NAME-passage` also set the role.
        api_key: the key that callers must send; None uses the environment variable `RAG_FT_API_KEY`. Without
            either, the server requires no key.
        limits: limits on callers and on the queue.
        dimensions: numbers that vectors may be cut to (Matryoshka), in addition to those that the model folder names.

    Raises:
        InputError: if the model cannot be loaded, or the extra `serve` is not installed.

    Example:
        >>> from rag_ft.server.app import create_app
        >>> app = create_app("local", name="acme")
        >>> app.state.served.dimension
        384
    """
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require_package(package, "serve", "the embeddings server")
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException

    from rag_ft.server.metrics import Metrics
    from rag_ft.server.middleware import RequestMiddleware
    from rag_ft.server.routes import embedding_routes

    limits = limits or Limits()
    key = api_key or api_key_of_environment()
    served = served_model(embedding_by_name(model) if isinstance(model, str | Path) else model, name, dimensions)
    metrics = Metrics()
    batcher = Batcher(served, limits.queued_texts, limits.wait_seconds, metrics.observe_batch)
    metrics.queued.set_function(lambda: batcher.queued)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await asyncio.to_thread(batcher.stop)

    app = FastAPI(title="rag_ft embeddings", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.served, app.state.has_key = served, key is not None
    app.add_middleware(RequestMiddleware, key=key, limits=limits, metrics=metrics)
    app.add_exception_handler(ApiError, _error_response)
    app.add_exception_handler(HTTPException, _unknown_path)
    app.include_router(embedding_routes(served, batcher, metrics, limits))
    return app


async def _error_response(_: Request, error: Exception) -> Any:
    from fastapi import Response

    assert isinstance(error, ApiError)
    return Response(error.body, error.status, error.headers, "application/json")


async def _unknown_path(_: Request, error: Exception) -> Any:
    status = getattr(error, "status_code", 404)
    reason = "this path does not support that method" if status == 405 else "unknown path"
    paths = "POST /v1/embeddings, GET /v1/models, /health, /ready, /metrics"
    return await _error_response(_, ApiError(status, f"{reason}: use one of {paths}", code="unknown_path"))
