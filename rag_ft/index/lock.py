"""One builder for each name: a lock in Chroma itself, that a killed process does not keep.

A folder's lock file would not reach a server's other clients. Creating a collection is atomic in Chroma, so a lock is
an empty collection, `NAME.lock-VERSION-ATTEMPT`: VERSION is the pointer's, ATTEMPT goes up each time that a lock of
this version is found dead. It is dead where its process is (on this machine), or where nobody renews it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.errors import OutsideError
from rag_ft.index.contract import KEY
from rag_ft.index.pointer import Pointer, read_pointer, write_pointer

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

logger = logging.getLogger(__name__)

BEAT_SECONDS = 3.0
DEAD_SECONDS = 12.0
"""A lock of another machine that is not renewed for so long is nobody's."""

HELD: set[str] = set()
"""Tokens of the locks that this process holds: a container that is started again has the process number of before."""


class BuildLock:
    """The right to build under a name, renewed by a thread of its own while it is held."""

    def __init__(self, client: ClientAPI, name: str) -> None:
        self.client, self.name = client, name
        self.token = uuid.uuid4().hex
        self.collection: Any = None
        self.version = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutsideError: where another process builds.
        """
        while True:
            version = self._version()
            attempts = self._attempts(version)
            if attempts and not self._is_dead(attempts[max(attempts)]):
                raise OutsideError(f"another process builds the index {self.name}: wait until it is done, or end it")
            lock = f"{self.name}.lock-{version}-{max(attempts, default=0) + 1}"
            HELD.add(self.token)
            try:
                self.collection = self.client.create_collection(lock, metadata=self._entry(0), embedding_function=None)
            except BaseException as error:
                HELD.discard(self.token)
                if "already exists" not in str(error):
                    raise
                raise OutsideError(
                    f"another process builds the index {self.name}: wait until it is done, or end it"
                ) from error
            try:
                if self._version() == version:
                    self.version = version
                    for dead in attempts.values():
                        self._remove(dead)
                    break
            except BaseException:
                self.release()
                raise
            self._remove(lock)  # a build ended in between
        self._thread = threading.Thread(target=self._renew, name="rag_ft-build-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            OutsideError: where another process found it dead, and took it.
        """
        if not self.is_held():
            raise OutsideError(f"another process took over the build of the index {self.name}: nothing was changed")

    def is_held(self) -> bool:
        """Whether nobody else took it."""
        if self._version() != self.version:
            return False
        attempts = self._attempts(self.version)
        return bool(attempts) and attempts[max(attempts)] == self.collection.name

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        HELD.discard(self.token)
        if self.collection is not None:
            self._remove(self.collection.name)

    def _version(self) -> int:
        pointer = read_pointer(self.client, self.name)
        return pointer.version if pointer is not None else 0

    def _attempts(self, version: int) -> dict[int, str]:
        pattern = re.compile(rf"{re.escape(self.name)}\.lock-{version}-(\d+)")
        found = (pattern.fullmatch(collection.name) for collection in self.client.list_collections())
        return {int(match.group(1)): match.group() for match in found if match}

    def _entry(self, beat: int) -> dict[str, Any]:
        return {
            KEY + "token": self.token, KEY + "host": this_machine(), KEY + "process": os.getpid(), KEY + "beat": beat
        }  # fmt: skip

    def _is_dead(self, lock: str) -> bool:
        first = self._read(lock)
        if first is None:
            return True
        if first.get(KEY + "host") == this_machine():
            process = int(first.get(KEY + "process", 0))
            if process == os.getpid():
                return first.get(KEY + "token") not in HELD
            if not _is_alive(process):
                return True
        logger.info("the index %s is locked by process %s on %s: looking whether it is alive", self.name,
                    first.get(KEY + "process"), first.get(KEY + "host"))  # fmt: skip
        until = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < until:
            time.sleep(BEAT_SECONDS / 3)
            if self._read(lock) != first:
                return False
        return True

    def _read(self, lock: str) -> dict[str, Any] | None:
        from chromadb.errors import NotFoundError

        try:
            return dict(self.client.get_collection(lock, embedding_function=None).metadata or {})
        except NotFoundError:
            return None

    def _remove(self, lock: str) -> None:
        from chromadb.errors import NotFoundError

        try:
            self.client.delete_collection(lock)
        except NotFoundError:
            pass
        except Exception as error:  # it is dead soon, since nobody renews it
            logger.warning("the lock %s could not be removed (%s)", lock, error)

    def _renew(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT_SECONDS):
            beat += 1
            try:
                self.collection.modify(metadata=self._entry(beat))
            except Exception as error:
                logger.debug("the lock of the index %s was not renewed (%s)", self.name, error)


def this_machine() -> str:
    """A name for the place in which process numbers mean something: the host, its start, and the container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(parts)


def _is_alive(process: int) -> bool:
    import psutil

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def building(client: ClientAPI, name: str) -> Iterator[BuildLock]:
    """Hold the lock of a name for a block.

    Raises:
        OutsideError: where another process builds.
    """
    lock = BuildLock(client, name)
    lock.acquire()
    try:
        yield lock
    finally:
        try:
            # Whoever found an older lock dead may be about to take the next number: it sees that the version went on.
            if lock.is_held():
                write_pointer(client, name, (read_pointer(client, name) or Pointer()).ended())
        finally:
            lock.release()
