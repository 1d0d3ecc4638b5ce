"""Who may speak with the A/B page: its clicks become training data, so not every page that a browser has open."""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-rag-ft-token"
MOST_BYTES = 256 * 1024
"""Of a request's body."""

DISCARDED = 64
"""A body of up to so many times that is read to its end, and not kept, so that its sender hears why."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware: refuses a wrong Host (DNS rebinding), a foreign Origin (CSRF), a missing token, a long body.

    The token is in the address of the page, and in a header of what the page sends: no cookie, which other servers of
    the same machine would get to see too.

    Args:
        app: what is behind it.
        token: the random word.
        hosts: names by which the page is reached, besides the loopback ones. A number is no name: nobody's DNS can
            make it stand for another machine.
        local: whether only loopback addresses reach the page; then other numbers are refused too.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str] = (), local: bool = True) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {*LOOPBACK, *(host.lower() for host in hosts)}
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        status, reason = self._refusal(scope, headers)
        if status:
            await _refuse(with_headers, status, reason)
            return
        body = await _body(receive)
        if body is None:
            await _refuse(
                with_headers, 413, f"the request is longer than {MOST_BYTES // 1024} kB: ask a shorter question"
            )
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, replay, with_headers)

    def _refusal(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> tuple[int, str]:
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 403, "this page does not answer under that name: open the address that rag-ft ab printed"
        origins = headers.get(b"origin", [])
        if origins != [b"http://" + hosts[0]] and (origins or scope["method"] != "GET"):
            return 403, "another page sent this: votes are taken from this page alone"
        asked = parse_qs(scope["query_string"]).get(b"token", []) if scope["method"] == "GET" else []
        tokens = headers.get(TOKEN_HEADER.encode(), []) or asked
        if len(tokens) != 1 or not secrets.compare_digest(tokens[0], self._token):
            return 403, "the token is missing or wrong: open the address that rag-ft ab printed, to its end"
        return 0, ""

    def _is_ours(self, host: bytes) -> bool:
        text = host.decode("latin-1").lower()
        name, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
        name = name.removeprefix("[").removesuffix("]")
        if port and not port.isdigit():
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not self._local


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None where it is too long."""
    body, length = b"", 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        length += len(message.get("body", b""))
        if length <= MOST_BYTES:
            body += message.get("body", b"")
        if not message.get("more_body") or length > DISCARDED * MOST_BYTES:
            return body if length <= MOST_BYTES else None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
