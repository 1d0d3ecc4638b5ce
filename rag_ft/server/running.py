"""The server as a process: its address, its signals, its end."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError
from rag_ft.server.app import KEY_VARIABLE

if TYPE_CHECKING:
    from fastapi import FastAPI

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
GRACE_SECONDS = 30
"""What is under way has this long to end after a signal."""

SWITCH_SECONDS = 0.001
"""After which a thread leaves Python to another. The encoding thread does so at each product by itself, and would wait
for the event loop for up to 5 ms each time: 64 callers had 155 and 175 answers a second, and so 187 and 183."""


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket at an address; nobody reaches it before it listens.

    Args:
        host: name or number.
        port: 0 for one that is free.

    Raises:
        InputError: where the address is taken or is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port} cannot be used ({error.strerror or error}): take another"
        ) from None
    return listening


def check_host(host: str, has_key: bool) -> None:
    """Raise an `InputError` where other machines could reach a server that asks for no key."""
    if host not in LOCAL_HOSTS and not has_key:
        raise InputError(
            f"--host {host} opens the server to other machines, and {KEY_VARIABLE} is not set: set it to a key that "
            "callers send, or stay on 127.0.0.1"
        )


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; what is under way then is answered before this returns.

    The process is taken to be the server's own: its threads change places more often.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    _server(app).run(sockets=[listening])


@contextmanager
def served_in_thread(app: FastAPI, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve from a thread while the block runs; yields the address that a client's `base_url` takes.

    Example:
        >>> from rag_ft.server.app import create_app
        >>> from rag_ft.server.running import served_in_thread
        >>> with served_in_thread(create_app("local")) as address:
        ...     address.startswith("http://127.0.0.1:") and address.endswith("/v1")
        True
    """
    listening = bound_socket(host, 0)
    address = f"http://{host}:{listening.getsockname()[1]}/v1"
    server = _server(app)
    listening.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join()


def _server(app: FastAPI) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn's, which ends without raising the signal again: to be stopped is no failure."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=30,
        ws="none",
    )
    return Server(config)
