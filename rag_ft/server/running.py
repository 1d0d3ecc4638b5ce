"""Running the server: its address, its signals and its shutdown."""

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
"""Seconds in which requests in progress must finish after a signal."""

SWITCH_SECONDS = 0.001
"""Interval at which Python switches threads.

The encoding thread releases the interpreter at each matrix product, and with the default of 5 ms it waits for the event
loop to return it. 64 callers got 155 and 175 responses per second with the default, and 187 and 183 with this value.
"""


def bound_socket(host: str, port: int) -> socket.socket:
    """Bind a socket to an address; it accepts no connection before it listens.

    Args:
        host: host name or IP address.
        port: port number; 0 picks a free one.

    Raises:
        InputError: if the address is taken or does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port} cannot be used ({error.strerror or error}): use another"
        ) from None
    return listening


def check_host(host: str, has_key: bool) -> None:
    """Raise an `InputError` if other machines could reach a server that requires no key."""
    if host not in LOCAL_HOSTS and not has_key:
        raise InputError(
            f"--host {host} opens the server to other machines, but {KEY_VARIABLE} is not set: set it to a key that "
            "callers must send, or use 127.0.0.1"
        )


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress and return.

    It sets the thread switch interval of the whole process.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    _server(app).run(sockets=[listening])


@contextmanager
def served_in_thread(app: FastAPI, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve in a thread while the block runs, and yield the `base_url` for clients.

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
        """A uvicorn server that does not raise the signal again when it ends, since a stop is not a failure."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in handlers.items():
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
