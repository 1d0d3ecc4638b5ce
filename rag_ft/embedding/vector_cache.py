"""An on-disk cache of vectors, so that each text is embedded once: one SQLite file for all models and processes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.embedding.contract import min_cosine
from rag_ft.errors import InputError, OutsideError
from rag_ft.files import cache_folder, outside_failures

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE_FILE = "vectors.sqlite"

MAX_BYTES = 2_000_000_000
"""Maximum size of the file; it holds about 300,000 vectors of 1,536 numbers."""

EVICTION_TARGET = 0.9
"""Fraction of the maximum size to keep when the least recently used vectors are evicted."""

USE_RESOLUTION = 60.0
"""Seconds within which repeated uses of a vector count as one."""

MAX_KEYS_PER_QUERY = 500
BUSY_TIMEOUT = 60.0
"""Seconds to wait for another process's lock on the file."""

NUMBER = np.dtype("<f4")

SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, used REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON vectors (used);
CREATE TABLE IF NOT EXISTS models (name BLOB PRIMARY KEY, version INTEGER NOT NULL, probe BLOB NOT NULL);
"""


class VectorCache:
    """Vectors by key, in an SQLite file that several processes may use at the same time.

    A vector is on disk when `put` returns. If the file exceeds its maximum size, the least recently used vectors are
    evicted. The file holds only hashes and numbers.

    Args:
        path: the file; None uses `vectors.sqlite` in `RAG_FT_CACHE` or in the user's cache folder.
        max_bytes: approximate maximum size of the file.

    Raises:
        InputError: if the file is not a vector cache.
        OutsideError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from rag_ft.embedding.vector_cache import VectorCache
        >>> cache = VectorCache(tempfile.mkdtemp() + "/vectors.sqlite")
        >>> cache.put({b"a text": np.array([0.6, 0.8])})
        >>> cache.get([b"a text", b"another"])
        {b'a text': array([0.6, 0.8], dtype=float32)}
    """

    def __init__(self, path: str | Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        if max_bytes < 1:
            raise InputError(f"max_bytes is {max_bytes}: choose a size of the cache in bytes, 1 or more")
        self.path = Path(path).expanduser() if path is not None else cache_folder() / CACHE_FILE
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"VectorCache({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the path and the maximum size; the copy opens the file again."""
        return {"path": self.path, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle, ready for the first use."""
        self.__init__(state["path"], state["max_bytes"])  # type: ignore[misc]

    def __len__(self) -> int:
        with self._opened() as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the cached vectors by key; each counts as used now."""
        vectors: dict[bytes, NDArray[np.float32]] = {}
        stale: list[bytes] = []
        now = time.time()
        with self._opened() as connection:
            for batch in _batches(list(dict.fromkeys(keys))):
                placeholders = ",".join("?" * len(batch))
                rows = connection.execute(f"SELECT key, vector, used FROM vectors WHERE key IN ({placeholders})", batch)
                for key, blob, used in rows:
                    if (vector := _read_vector(blob)) is not None:
                        vectors[key] = vector
                    if now - used > USE_RESOLUTION:
                        stale.append(key)
            if stale:
                with _transaction(connection):
                    connection.executemany("UPDATE vectors SET used = ? WHERE key = ?", [(now, key) for key in stale])
        return vectors

    def has(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return which of the keys are cached."""
        cached: set[bytes] = set()
        with self._opened() as connection:
            for batch in _batches(list(dict.fromkeys(keys))):
                placeholders = ",".join("?" * len(batch))
                rows = connection.execute(f"SELECT key FROM vectors WHERE key IN ({placeholders})", batch)
                cached |= {key for (key,) in rows}
        return cached

    def put(self, vectors: Mapping[bytes, NDArray[Any]]) -> None:
        """Store vectors on disk; the least recently used ones may be evicted."""
        now = time.time()
        rows = [(key, np.asarray(vector, dtype=NUMBER).tobytes(), now) for key, vector in vectors.items()]
        with self._opened() as connection:
            with _transaction(connection):
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            if self._size(connection) > self.max_bytes:
                self._evict(connection)

    def last_version(self, model: bytes) -> int:
        """Return the last version of a model whose vectors were stored; 0 if there is none."""
        with self._opened() as connection:
            row = connection.execute("SELECT version FROM models WHERE name = ?", (model,)).fetchone()
        return int(row[0]) if row else 0

    def version_of(self, model: bytes, reference_vectors: NDArray[Any], threshold: float) -> int:
        """Return the version of a model; it is increased if the model's vectors of the reference texts changed.

        A server may have changed the weights behind a name since the vectors were stored.

        Args:
            model: hash of the model's settings.
            reference_vectors: its vectors of the reference texts.
            threshold: minimum cosine between the flattened reference vectors of one model.
        """
        current = np.asarray(reference_vectors, dtype=NUMBER).ravel()
        with self._opened() as connection, _transaction(connection):
            row = connection.execute("SELECT version, probe FROM models WHERE name = ?", (model,)).fetchone()
            version = int(row[0]) if row else 0
            if row is None or not _is_similar(_read_vector(row[1]), current, threshold):
                version += 1
                connection.execute(
                    "INSERT OR REPLACE INTO models VALUES (?, ?, ?)", (model, version, current.tobytes())
                )
        return version

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection of this process, to one thread at a time."""
        with self._lock, self._failures():
            if self._connection is None or self._process != os.getpid():
                self._connection, self._process = self._connect(), os.getpid()
            yield self._connection

    def _connect(self) -> sqlite3.Connection:
        with outside_failures(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(SCHEMA)
        return connection

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutsideError(
                f"the vector cache {self.path} cannot be used ({error}): free some space or choose another path, "
                "and run again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path} is not a vector cache ({error}): remove it or choose another") from error

    @staticmethod
    def _size(connection: sqlite3.Connection) -> int:
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Evict the least recently used vectors, a tenth at a time, until the file is small enough."""
        with _transaction(connection):
            while self._size(connection) > self.max_bytes * EVICTION_TARGET:
                count = int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])
                if count == 0:
                    break
                connection.execute(
                    "DELETE FROM vectors WHERE rowid IN (SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?)",
                    (max(1, count // 10),),
                )
        connection.execute("PRAGMA incremental_vacuum").fetchall()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction, after waiting for other writers."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _read_vector(blob: Any) -> NDArray[np.float32] | None:
    """Read the vector of a row; None if the row does not hold a vector."""
    if not isinstance(blob, bytes) or not blob or len(blob) % NUMBER.itemsize:
        return None
    vector = np.frombuffer(blob, dtype=NUMBER).astype(np.float32)
    return vector if np.isfinite(vector).all() else None


def _is_similar(stored: NDArray[np.float32] | None, current: NDArray[np.float32], threshold: float) -> bool:
    cosine = min_cosine([stored], [current]) if stored is not None else None
    return cosine is not None and cosine > threshold


def _batches(keys: list[bytes]) -> Iterator[list[bytes]]:
    return (keys[start : start + MAX_KEYS_PER_QUERY] for start in range(0, len(keys), MAX_KEYS_PER_QUERY))
