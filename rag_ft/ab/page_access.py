"""Access control of the A/B page. Votes become training data, so other web pages must not be able to send any."""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-rag-ft-token"
MAX_BODY_BYTES = 256 * 1024

MAX_DISCARDED_BYTES = 64 * MAX_BODY_BYTES
"""A request body up to this size is read and discarded if it is too long, so that the client gets the error."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, kw_only=True)
class AccessRules:
    """Who may use the page.

    Attributes:
        token: a random string; anyone who has the token can ask and vote.
        hosts: host names of the page besides the loopback ones. IP addresses need not be listed, because DNS
            rebinding cannot spoof them.
        local: accept only the loopback names and `hosts`, no other IP address.
    """

    token: str
    hosts: Collection[str] = ()
    local: bool = True


class PageAccess:
    """ASGI middleware that rejects a wrong Host (DNS rebinding), another Origin (CSRF), a wrong token or a long body.

    The token is in the address of the page and in a header of its requests. A cookie would also be sent to other
    servers on the same machine.

    Args:
        app: the application that it protects.
        rules: who may use the page.
    """

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._token = rules.token.encode()
        self._hosts = {*LOOPBACK, *(host.lower() for host in rules.hosts)}
        self._local = rules.local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or reject it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                security_headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *security_headers]
            await send(message)

        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        if reason := self._refusal(scope, headers):
            await _refuse(with_headers, 403, reason)
            return
        body = await _body(receive)
        if body is None:
            limit = f"{MAX_BODY_BYTES // 1024} kB"
            await _refuse(with_headers, 413, f"the request is longer than {limit}: shorten the question")
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, with_headers)

    def _refusal(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> str:
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_known_host(hosts[0]):
            return "unknown host name: open the address that rag-ft ab printed"
        origins = headers.get(b"origin", [])
        if origins != [b"http://" + hosts[0]] and (origins or scope["method"] != "GET"):
            return "the request came from another web page: vote on this page"
        query_tokens = parse_qs(scope["query_string"]).get(b"token", []) if scope["method"] == "GET" else []
        tokens = headers.get(TOKEN_HEADER.encode(), []) or query_tokens
        if len(tokens) != 1 or not secrets.compare_digest(tokens[0], self._token):
            return "the token is missing or wrong: open the full address that rag-ft ab printed"
        return ""

    def _is_known_host(self, host: bytes) -> bool:
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
    """Return the body of a request, or None if it is too long."""
    body, length = b"", 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        length += len(message.get("body", b""))
        if length <= MAX_BODY_BYTES:
            body += message.get("body", b"")
        if not message.get("more_body") or length > MAX_DISCARDED_BYTES:
            return body if length <= MAX_BODY_BYTES else None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
