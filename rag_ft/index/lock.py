"""A lock that allows one builder per index. It is stored in Chroma, and a killed process does not keep it.

A lock file in a folder would not reach other clients of a server. Chroma creates collections atomically, so a lock is
an empty collection, `NAME.lock-VERSION-ATTEMPT`. VERSION is that of the pointer; ATTEMPT is increased each time a
lock of this version is found dead. A lock is dead if its process has ended (on this machine), or if it is not renewed.
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
from rag_ft.index.chroma import collection_names
from rag_ft.index.contract import KEY_PREFIX
from rag_ft.index.pointer import Pointer, read_pointer, write_pointer

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

logger = logging.getLogger(__name__)

RENEW_SECONDS = 3.0
DEAD_SECONDS = 12.0
"""Seconds without renewal after which a lock is dead."""

HELD_TOKENS: set[str] = set()
"""Tokens of the locks that this process holds; a restarted container may reuse a process number."""


class BuildLock:
    """The right to build an index; a thread renews it while it is held.

    Args:
        client: a Chroma client.
        name: the name of the index.
    """

    def __init__(self, client: ClientAPI, name: str) -> None:
        self.client, self.name = client, name
        self.token = uuid.uuid4().hex
        self.collection: Any = None
        self.version = 0
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutsideError: if another process is building the index.
        """
        while not self._try_acquire():
            pass  # another build ended in between
        self._thread = threading.Thread(target=self._renew, name="rag_ft-build-lock", daemon=True)
        self._thread.start()

    def _try_acquire(self) -> bool:
        """Take the lock of the current version; return False if a build changed the version meanwhile."""
        version = self._current_version()
        attempts = self._attempts(version)
        if attempts and not self._is_dead(attempts[max(attempts)]):
            raise self._taken()
        lock = f"{self.name}.lock-{version}-{max(attempts, default=0) + 1}"
        HELD_TOKENS.add(self.token)
        try:
            self.collection = self.client.create_collection(lock, metadata=self._entry(0), embedding_function=None)
        except BaseException as error:
            HELD_TOKENS.discard(self.token)
            if "already exists" not in str(error):
                raise
            raise self._taken() from error
        try:
            if self._current_version() == version:
                self.version = version
                for dead in attempts.values():
                    self._remove(dead)
                return True
        except BaseException:
            self.release()
            raise
        self._remove(lock)
        return False

    def _taken(self) -> OutsideError:
        return OutsideError(f"another process is building the index {self.name}: wait until it ends, or stop it")

    def check(self) -> None:
        """Check that the lock is still held.

        Raises:
            OutsideError: if another process found it dead and took it.
        """
        if not self.is_held():
            raise OutsideError(f"another process took over the build of the index {self.name}: wait until it ends")

    def is_held(self) -> bool:
        """Return whether no other process has taken the lock."""
        if self._current_version() != self.version:
            return False
        attempts = self._attempts(self.version)
        return bool(attempts) and attempts[max(attempts)] == self.collection.name

    def release(self) -> None:
        """Release the lock."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        HELD_TOKENS.discard(self.token)
        if self.collection is not None:
            self._remove(self.collection.name)

    def _current_version(self) -> int:
        pointer = read_pointer(self.client, self.name)
        return pointer.version if pointer is not None else 0

    def _attempts(self, version: int) -> dict[int, str]:
        """Return the locks of a version: attempt -> name of the collection."""
        pattern = re.compile(rf"{re.escape(self.name)}\.lock-{version}-(\d+)")
        matches = (pattern.fullmatch(name) for name in collection_names(self.client))
        return {int(match.group(1)): match.group() for match in matches if match}

    def _entry(self, beat: int) -> dict[str, Any]:
        values = {"token": self.token, "host": this_machine(), "process": os.getpid(), "beat": beat}
        return {KEY_PREFIX + key: value for key, value in values.items()}

    def _is_dead(self, lock: str) -> bool:
        first = self._read(lock)
        if first is None:
            return True
        host, process = first.get(KEY_PREFIX + "host"), int(first.get(KEY_PREFIX + "process", 0))
        if host == this_machine():
            if process == os.getpid():
                return first.get(KEY_PREFIX + "token") not in HELD_TOKENS
            if not _is_alive(process):
                return True
        logger.info(
            "the index %s is locked by process %s on %s: checking whether it is alive", self.name, process, host
        )
        deadline = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < deadline:
            time.sleep(RENEW_SECONDS / 3)
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
        except Exception as error:  # the lock will soon be dead, since it is no longer renewed
            logger.warning("the lock %s could not be removed (%s)", lock, error)

    def _renew(self) -> None:
        beat = 0
        while not self._released.wait(RENEW_SECONDS):
            beat += 1
            try:
                self.collection.modify(metadata=self._entry(beat))
            except Exception as error:
                logger.debug("the lock of the index %s was not renewed (%s)", self.name, error)


def this_machine() -> str:
    """Return an id of the scope in which process numbers are unique: the host, its boot, and the container."""
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
def build_lock(client: ClientAPI, name: str) -> Iterator[BuildLock]:
    """Hold the lock of an index during the block.

    Raises:
        OutsideError: if another process is building the index.
    """
    lock = BuildLock(client, name)
    lock.acquire()
    try:
        yield lock
    finally:
        try:
            # If another process found an older lock dead and is about to take its own, the new version stops it.
            if lock.is_held():
                write_pointer(client, name, (read_pointer(client, name) or Pointer()).next_version())
        finally:
            lock.release()
