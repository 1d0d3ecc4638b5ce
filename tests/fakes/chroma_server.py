"""A real Chroma server for tests, and a proxy in front of it that requires a token."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROGRAM = "import sys; from chromadb.cli.cli import app; sys.exit(app())"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(folder: Path, port: int) -> subprocess.Popen:
    """Start `chroma run` over a folder and wait until it listens."""
    server = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "--path", str(folder), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(120):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.25)
    return server


@contextmanager
def chroma_server(folder: Path) -> Iterator[str]:
    """Run `chroma run` over a folder, and yield its address."""
    port = free_port()
    server = start_server(folder, port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def token_proxy(address: str, token: str) -> Iterator[str]:
    """Run a reverse proxy in front of a Chroma server that requires a bearer token, and yield its address."""
    host = address.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != f"Bearer {token}":
                self.answer(401, b'{"error": "unauthorized"}', "application/json")
                return
            connection = http.client.HTTPConnection(host)
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")}
            connection.request(self.command, self.path, body, headers)
            found = connection.getresponse()
            self.answer(found.status, found.read(), found.getheader("Content-Type") or "application/json")
            connection.close()

        do_GET = do_POST = do_PUT = do_DELETE = pass_on  # noqa: N815

        def answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
