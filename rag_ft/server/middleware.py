"""Middleware that runs before a request's body is read: request id, key, limits, metrics and log."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from rag_ft.server.limits import Limits, RateLimit
from rag_ft.server.logs import log_event
from rag_ft.server.metrics import Metrics
from rag_ft.server.protocol import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

PUBLIC_PATHS = ("/health", "/ready")
KNOWN_PATHS = (*PUBLIC_PATHS, "/metrics", "/v1/embeddings", "/v1/models")
CLIENT_CLOSED_REQUEST = 499
"""Status in the log if the caller disconnected before the response; nginx uses it too."""


class RequestMiddleware:
    """ASGI middleware for request ids, the API key, limits, metrics and the log.

    Routes add fields to the log through the dictionary `rag_ft` in the request's scope.

    Args:
        app: the application that it wraps.
        key: the bearer token that callers must send; None requires none.
        limits: limits on requests.
        metrics: counts the requests.
    """

    def __init__(self, app: ASGIApp, key: str | None, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._key = None if key is None else hashlib.sha256(key.encode()).digest()
        self._limits, self._metrics = limits, metrics
        self._rate = RateLimit(limits.requests_per_minute)
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        fields: dict[str, Any] = {"request_id": _request_id(headers)}
        scope["rag_ft"] = fields
        status = CLIENT_CLOSED_REQUEST
        failure: Exception | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", fields["request_id"].encode())]
            await send(message)

        self._in_progress += 1
        try:
            self._check(scope, headers)
            await self._app(scope, receive, answer)
        except ApiError as error:
            await _send_error(answer, error)
        except Exception as error:
            failure = error
            if status == CLIENT_CLOSED_REQUEST:
                await _send_error(answer, ApiError(500, "internal server error: see the server's log"))
        finally:
            self._in_progress -= 1
            self._record(scope, status, time.perf_counter() - began, failure)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise an `ApiError` if the key is wrong or a limit is exceeded."""
        if scope["path"] in PUBLIC_PATHS:
            return
        if self._key is not None and not self._has_key(headers):
            raise ApiError(
                401, "the API key is missing or wrong: send it as Authorization: Bearer KEY", code="invalid_api_key"
            )
        if self._in_progress > self._limits.requests:
            raise ApiError(
                429,
                f"{self._limits.requests} requests are in progress: try again later",
                code="too_many_requests",
                retry_after=1,
            )
        wait = self._rate.seconds_to_wait((scope.get("client") or ("",))[0])
        if wait:
            raise ApiError(
                429,
                f"more than {self._limits.requests_per_minute} requests a minute: try again in {wait} s",
                code="rate_limit_exceeded",
                retry_after=wait,
            )

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        assert self._key is not None
        matches = hmac.compare_digest(hashlib.sha256(key.strip()).digest(), self._key)
        return matches and scheme.lower() == b"bearer"

    def _record(self, scope: Scope, status: int, seconds: float, failure: Exception | None) -> None:
        """Count a request in the metrics and log it."""
        path = next((path for path in KNOWN_PATHS if scope["path"].startswith(path)), "other")
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        is_routine = path in (*PUBLIC_PATHS, "/metrics") and status == 200
        level = logging.ERROR if status >= 500 else logging.DEBUG if is_routine else logging.INFO
        fields = scope["rag_ft"] | {
            "method": scope["method"],
            "path": path,
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
            "client": (scope.get("client") or ("",))[0],
        }
        log_event(logger, level, "request", fields, failure)


def _request_id(headers: dict[bytes, bytes]) -> str:
    """Return the caller's request id if it is a plain word, otherwise a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else uuid.uuid4().hex


async def _send_error(send: Send, error: ApiError) -> None:
    body = error.body
    headers = {"content-type": "application/json", "content-length": str(len(body))} | error.headers
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
