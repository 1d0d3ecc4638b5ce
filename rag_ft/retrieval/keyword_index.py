"""BM25 over the passages of a Chroma-backed index, kept in sync with it.

Only Chroma stores the passages. The word index is derived from it, so the two agree even after a process was killed.
The word index follows each insert, change and deletion (`index.revision`), tokenises only new texts, and is saved in a
folder beside the collection for the next start.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.errors import InputError, RagFtError
from rag_ft.files import cache_folder, read_json, sha256_of, write_json, written_beside
from rag_ft.index.nodes import node_of
from rag_ft.index.records import NODE_HASH
from rag_ft.index.revision import Revision
from rag_ft.index.writing import batch_size_of, batched
from rag_ft.retrieval.bm25 import BM25

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

    from rag_ft.index.live_store import LiveChromaStore

logger = logging.getLogger(__name__)

FOLDER = "rag_ft_bm25"

FORMAT = 1
"""Version of the saved files. Files of another version are rebuilt."""

CHECK_SECONDS = 1.0
"""Seconds for which a word index counts as current, unless this process changes the collection."""

SAVE_SECONDS = 60.0
"""Minimum time between two saves of a large word index that changes constantly."""

MAX_BLOCKING_PASSAGES = 20_000
"""Maximum number of passages for which a query waits for the updated word index. With more, a thread updates it."""


class KeywordIndex:
    """The words of all passages that are in an index now.

    Args:
        store: the store of the index.
        language: ISO 639-1 code of the passages; the most frequent language if None.
        folder: where the word index is saved. If None, beside an embedded Chroma, or in the user's cache for a server.
            The word index of an in-memory Chroma is not saved.
    """

    def __init__(self, store: LiveChromaStore, language: str | None = None, folder: Path | None = None) -> None:
        self._store, self._language = store, language
        self._folder = folder or _default_folder(store)
        self._bm25: BM25 | None = None
        self._saved_at = float("-inf")
        self._hashes: dict[str, str] = {}
        self._revision: Revision | None = None
        self._checked_at, self._changes = 0.0, -1
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @classmethod
    def shared(cls, store: LiveChromaStore) -> KeywordIndex:
        """Return the shared word index of a store."""
        if store._keywords is None:
            store._keywords = cls(store)
        return store._keywords  # type: ignore[no-any-return]

    def bm25(self) -> BM25:
        """Return the word index, updated to the current passages.

        The first call reads all passages, or the folder. With more than 20,000 passages, later updates run in a thread,
        and the call returns the word index from before the update.
        """
        current = self._bm25
        if current is not None and self._is_fresh():
            return current
        if current is None or max(len(current.ids), self._store.collection.count()) <= MAX_BLOCKING_PASSAGES:
            return self.refresh()
        if self._thread is None or not self._thread.is_alive():
            if self._revision is not None and self._revision.collection != str(self._store.collection.id):
                logger.warning(
                    "the index %s was rebuilt: until its word index is updated, BM25 finds only passages that are in "
                    "both builds", self._store.name,
                )  # fmt: skip
            self._thread = threading.Thread(target=self._try_refresh, name="rag_ft keyword index", daemon=True)
            self._thread.start()
        return current

    def refresh(self) -> BM25:
        """Bring the word index up to date with the collection, and return it."""
        with self._lock:
            changes, checked_at = self._store.changes, time.monotonic()
            now = self._store.revision()
            if self._bm25 is None:
                self._load()
            if self._bm25 is None or not now.settled or self._revision != now:
                self._read(now)
            self._checked_at, self._changes = checked_at, changes
            assert self._bm25 is not None
            return self._bm25

    def _is_fresh(self) -> bool:
        return self._changes == self._store.changes and time.monotonic() - self._checked_at < CHECK_SECONDS

    def _try_refresh(self) -> None:
        try:
            self.refresh()
        except Exception as error:
            logger.warning(
                "the word index of %s could not be updated (%s): the old one stays in use", self._store.name, error
            )

    def _read(self, now: Revision) -> None:
        """Read passages that are new or changed, and drop those that were removed."""
        collection, batch_size = self._store.collection, batch_size_of(self._store._client)
        hashes = dict(_read_hashes(collection, batch_size))
        before = self._bm25
        known_hashes = self._hashes if before is not None else {}
        fresh = [key for key, value in hashes.items() if known_hashes.get(key) != value]
        if 2 * len(fresh) > len(hashes):
            # Most passages are new, and may be in another language: start over.
            fresh, known_hashes, before = list(hashes), {}, None
        started = time.monotonic()
        texts = dict(_read_texts(collection, fresh, batch_size))
        # Passages that were deleted between the two reads are removed too.
        hashes = {key: value for key, value in hashes.items() if key in texts or known_hashes.get(key) == value}
        removed = [key for key in before.ids if key not in hashes] if before is not None else []
        if before is None:
            self._bm25 = BM25(texts, self._language)
        elif texts or removed:
            self._bm25 = before.updated(texts, set(removed))
        # If a write was in progress, the next check reads again.
        self._hashes, self._revision = hashes, now if now.settled else None
        if fresh or removed:
            logger.info(
                "word index of %s: %d passages read, %d removed, in %.1f s (%s)",
                self._store.name, len(fresh), len(removed), time.monotonic() - started,
                self._bm25.language if self._bm25 is not None else "",
            )  # fmt: skip
            self._save()

    def _save(self) -> None:
        """Save the word index for the next start. If that fails, the next start reads all passages again."""
        if self._folder is None or self._bm25 is None:
            return
        if len(self._bm25.ids) > MAX_BLOCKING_PASSAGES and time.monotonic() - self._saved_at < SAVE_SECONDS:
            return
        self._saved_at = time.monotonic()
        try:
            with written_beside(self._folder) as folder:
                folder.mkdir()
                self._bm25.save(folder)
                write_json(folder / "state.json", {"format": FORMAT, "hashes": self._hashes})
        except (OSError, RagFtError) as error:
            logger.warning("the word index of %s could not be saved in %s (%s)", self._store.name, self._folder, error)

    def _load(self) -> None:
        """Load the saved word index, however old it is. Only the differences are then read."""
        if self._folder is None:
            return
        try:
            state = read_json(self._folder / "state.json")
            hashes = {str(key): str(value) for key, value in state["hashes"].items()}
            bm25 = BM25.load(self._folder)
        except (OSError, KeyError, TypeError, AttributeError, InputError):
            return
        other_language = self._language is not None and bm25.language != self._language
        if hashes.keys() != set(bm25.ids) or other_language or state.get("format") != FORMAT:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        self._bm25, self._hashes, self._revision = bm25, hashes, None
        logger.debug("word index of %s: %d passages from %s", self._store.name, len(hashes), self._folder)


def _default_folder(store: LiveChromaStore) -> Path | None:
    """Return where a word index is saved: beside an embedded Chroma, in the user's cache for a server, or None."""
    settings = store.collection._client.get_settings()  # type: ignore[attr-defined]
    if settings.is_persistent:
        return Path(settings.persist_directory) / FOLDER / store.name
    if not settings.chroma_server_host:
        return None
    server = f"{settings.chroma_server_host}:{settings.chroma_server_http_port}"
    name = sha256_of(server, str(store.collection.tenant), str(store.collection.database), store.name)[:20]
    return cache_folder() / FOLDER / name


def _read_hashes(collection: Collection, batch_size: int) -> Iterator[tuple[str, str]]:
    """Yield the id of each passage and the hash of its content."""
    offset = 0
    while (rows := collection.get(limit=batch_size, offset=offset, include=["metadatas"]))["ids"]:
        for key, metadata in zip(rows["ids"], rows["metadatas"] or [], strict=True):
            yield key, str((metadata or {}).get(NODE_HASH, ""))
        offset += len(rows["ids"])


def _read_texts(collection: Collection, ids: list[str], batch_size: int) -> Iterator[tuple[str, str]]:
    """Yield the id of each passage and its text as it is embedded."""
    from llama_index.core.schema import MetadataMode

    for batch in batched(ids, batch_size):
        rows = collection.get(ids=batch, include=["documents", "metadatas"])
        for key, text, metadata in zip(rows["ids"], rows["documents"] or [], rows["metadatas"] or [], strict=True):
            yield key, node_of(key, text or "", dict(metadata or {})).get_content(metadata_mode=MetadataMode.EMBED)
