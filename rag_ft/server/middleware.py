"""What every request passes before it is read: its id, its key, its place; and what the log keeps of it."""

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

OPEN_PATHS = ("/health", "/ready")
KNOWN_PATHS = (*OPEN_PATHS, "/metrics", "/v1/embeddings", "/v1/models")
HUNG_UP = 499


class RequestMiddleware:
    """ASGI middleware: request ids, the key, requests under way and a minute, counters and the log.

    A request leaves notes for the log in its scope, under `rag_ft`.

    Args:
        app: what is behind it.
        key: that callers must send as a bearer token; None: none.
        limits: of requests.
        metrics: where they are counted.
    """

    def __init__(self, app: ASGIApp, key: str | None, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._key = None if key is None else hashlib.sha256(key.encode()).digest()
        self._limits, self._metrics = limits, metrics
        self._rate = RateLimit(limits.requests_per_minute)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        notes: dict[str, Any] = {"request_id": _request_id(headers)}
        scope["rag_ft"] = notes
        status = HUNG_UP
        failure: Exception | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", notes["request_id"].encode())]
            await send(message)

        self._under_way += 1
        try:
            self._check(scope, headers)
            await self._app(scope, receive, answer)
        except ApiError as error:
            await _refuse(answer, error)
        except Exception as error:
            failure = error
            if status == HUNG_UP:
                await _refuse(answer, ApiError(500, "the server failed on this request; its log says where"))
        finally:
            self._under_way -= 1
            self._note(scope, status, time.perf_counter() - began, notes, failure)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if scope["path"] in OPEN_PATHS:
            return
        if self._key is not None and not self._has_key(headers):
            raise ApiError(
                401, "the API key is missing or wrong: send it as Authorization: Bearer KEY", code="invalid_api_key"
            )
        if self._under_way > self._limits.requests:
            raise ApiError(
                429,
                f"{self._limits.requests} requests are under way: try again",
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
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        assert self._key is not None
        same = hmac.compare_digest(hashlib.sha256(given.strip()).digest(), self._key)
        return same and kind.lower() == b"bearer"

    def _note(
        self, scope: Scope, status: int, seconds: float, notes: dict[str, Any], failure: Exception | None
    ) -> None:
        path = next((path for path in KNOWN_PATHS if scope["path"].startswith(path)), "other")
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        quiet = path in (*OPEN_PATHS, "/metrics") and status == 200
        level = logging.ERROR if status >= 500 else logging.DEBUG if quiet else logging.INFO
        log_event(
            logger,
            level,
            "request",
            failure,
            **notes,
            method=scope["method"],
            path=path,
            status=status,
            milliseconds=round(1000 * seconds, 1),
            client=(scope.get("client") or ("",))[0],
        )


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The caller's own, where it is a plain word, or a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else uuid.uuid4().hex


async def _refuse(send: Send, error: ApiError) -> None:
    body = error.body
    headers = {"content-type": "application/json", "content-length": str(len(body))} | error.headers
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
