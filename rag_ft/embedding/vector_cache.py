"""Vectors on the disk, so that a text is paid for once: one SQLite file for all models and processes."""

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

from rag_ft.errors import InputError, OutsideError
from rag_ft.files import cache_folder, outside_failures

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "vectors.sqlite"

MAX_BYTES = 2_000_000_000
"""About 300,000 vectors of 1,536 numbers."""

KEPT = 0.9
"""Share of the size that is left when the least recently used vectors were removed."""

SAME_MOMENT = 60.0
"""Seconds within which a second use of a vector is not written down again."""

AT_ONCE = 500
BUSY_SECONDS = 60.0
NUMBER = np.dtype("<f4")

SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, used REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON vectors (used);
CREATE TABLE IF NOT EXISTS models (name BLOB PRIMARY KEY, version INTEGER NOT NULL, probe BLOB NOT NULL);
"""


class VectorCache:
    """Vectors by their keys, in an SQLite file that several processes may use at once.

    A vector is on the disk when `put` returns. Where the file grows over its size, the least recently used go. The
    file holds hashes of texts and numbers, no text and nothing that is executed when it is read.

    Args:
        path: the file; `vectors.sqlite` in `RAG_FT_CACHE`, or in the user's cache folder, where None.
        max_bytes: size of the file, about.

    Raises:
        InputError: where the file is something else.
        OutsideError: where it cannot be written.

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
            raise InputError(f"max_bytes is {max_bytes}: give the size of the cache in bytes, 1 or more")
        self.path = Path(path).expanduser() if path is not None else cache_folder() / FILE
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"VectorCache({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Pickled as the name of its file; whoever unpickles it opens the file anew."""
        return {"path": self.path, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Ready for the first use."""
        self.__init__(state["path"], state["max_bytes"])  # type: ignore[misc]

    def __len__(self) -> int:
        with self._opened() as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there, by their keys; each counts as used now."""
        found: dict[bytes, NDArray[np.float32]] = {}
        stale: list[bytes] = []
        now = time.time()
        with self._opened() as connection:
            for part in _parts(list(dict.fromkeys(keys))):
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT key, vector, used FROM vectors WHERE key IN ({marks})", part)
                for key, vector, used in rows:
                    if numbers := _numbers(vector):
                        found[key] = numbers[0]
                    if now - used > SAME_MOMENT:
                        stale.append(key)
            if stale:
                with _writing(connection):
                    connection.executemany("UPDATE vectors SET used = ? WHERE key = ?", [(now, key) for key in stale])
        return found

    def has(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of the keys are there."""
        found: set[bytes] = set()
        with self._opened() as connection:
            for part in _parts(list(dict.fromkeys(keys))):
                marks = ",".join("?" * len(part))
                found |= {key for (key,) in connection.execute(f"SELECT key FROM vectors WHERE key IN ({marks})", part)}
        return found

    def put(self, vectors: Mapping[bytes, NDArray[Any]]) -> None:
        """Keep vectors; they are on the disk when this returns, and the least recently used may be gone."""
        now = time.time()
        rows = [(key, np.asarray(vector, dtype=NUMBER).tobytes(), now) for key, vector in vectors.items()]
        with self._opened() as connection:
            with _writing(connection):
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            if self._size(connection) > self.max_bytes:
                self._evict(connection)

    def known_version(self, model: bytes) -> int:
        """The version of a model whose vectors were kept last; 0 where there are none."""
        with self._opened() as connection:
            row = connection.execute("SELECT version FROM models WHERE name = ?", (model,)).fetchone()
        return int(row[0]) if row else 0

    def version_of(self, model: bytes, probe: NDArray[Any], alike: float) -> int:
        """The version of a model that makes this vector of a probe text: another one than before is a new version.

        A server may have other weights under the same name since the vectors were kept.

        Args:
            model: what is known of it.
            probe: its vectors of fixed texts, flat.
            alike: cosine over which two such probes are of the same model.
        """
        given = np.asarray(probe, dtype=NUMBER).ravel()
        with self._opened() as connection, _writing(connection):
            row = connection.execute("SELECT version, probe FROM models WHERE name = ?", (model,)).fetchone()
            version = int(row[0]) if row else 0
            if row is None or not _alike(_numbers(row[1]), given, alike):
                version += 1
                connection.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", (model, version, given.tobytes()))
        return version

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The connection of this process, for one thread at a time."""
        with self._lock, self._failures():
            if self._connection is None or self._process != os.getpid():
                self._connection, self._process = self._connect(), os.getpid()
            yield self._connection

    def _connect(self) -> sqlite3.Connection:
        with outside_failures(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
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
                f"the cache of vectors {self.path} cannot be used ({error}): free some space or give another place, "
                "and run again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path} is no cache of vectors ({error}): remove it, or give another place"
            ) from error

    @staticmethod
    def _size(connection: sqlite3.Connection) -> int:
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Remove the least recently used, a tenth at a time, until the rest fits."""
        with _writing(connection):
            while self._size(connection) > self.max_bytes * KEPT:
                count = int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])
                if count == 0:
                    break
                connection.execute(
                    "DELETE FROM vectors WHERE rowid IN (SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?)",
                    (max(1, count // 10),),
                )
        connection.execute("PRAGMA incremental_vacuum").fetchall()


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction, that waits for other writers before it begins."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _numbers(vector: Any) -> list[NDArray[np.float32]]:
    """The vector in a row; nothing where it is none."""
    if not isinstance(vector, bytes) or not vector or len(vector) % NUMBER.itemsize:
        return []
    numbers = np.frombuffer(vector, dtype=NUMBER).astype(np.float32)
    return [numbers] if np.isfinite(numbers).all() else []


def _alike(known: list[NDArray[np.float32]], given: NDArray[np.float32], least: float) -> bool:
    if not known or known[0].shape != given.shape:
        return False
    lengths = float(np.linalg.norm(known[0]) * np.linalg.norm(given))
    return float(known[0] @ given) / max(lengths, 1e-12) > least


def _parts(keys: list[bytes]) -> Iterator[list[bytes]]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
