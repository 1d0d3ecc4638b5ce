"""BM25 over the passages of a Chroma-backed index, in step with it.

Chroma is the one place where passages are kept; the word index is made of what stands there, so that no kill can bring
the two apart. It follows each insert, change and deletion (`index.revision`), cuts only what is new into words, and is
kept in a folder beside the collection for the next start.
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
from rag_ft.index.writing import CLOUD_STEP, parts_of
from rag_ft.retrieval.bm25 import BM25

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

    from rag_ft.index.live_store import LiveChromaStore

logger = logging.getLogger(__name__)

FOLDER = "rag_ft_bm25"

LOOK_AGAIN_SECONDS = 1.0

FORMAT = 1
"""Of what is kept: another one is made again."""

SAVE_AGAIN_SECONDS = 60.0
"""Between two savings of a large word index that changes all the time."""

WAIT_FOR = 20_000
"""Passages up to which a question waits until the word index has followed a change; with more it follows beside."""

PAGE = 5_000


class KeywordIndex:
    """The words of all passages that an index holds at present.

    Args:
        store: of the index.
        language: of the passages, an ISO 639-1 code; the most frequent one where None.
        folder: where it is kept; None: beside an embedded Chroma, and in the user's cache for a server. One in memory
            alone is not kept.
    """

    def __init__(self, store: LiveChromaStore, language: str | None = None, folder: Path | None = None) -> None:
        self._store, self._language = store, language
        self._folder = folder or _folder_for(store)
        self._bm25: BM25 | None = None
        self._saved = float("-inf")
        self._hashes: dict[str, str] = {}
        self._made_of: Revision | None = None
        self._looked, self._changes = 0.0, -1
        self._lock = threading.Lock()
        self._following: threading.Thread | None = None

    @classmethod
    def of(cls, store: LiveChromaStore) -> KeywordIndex:
        """The one that all retrievers over a store share."""
        if store._keywords is None:
            store._keywords = cls(store)
        return store._keywords  # type: ignore[no-any-return]

    def bm25(self) -> BM25:
        """The word index as it is, after it has followed what changed.

        The first call reads all passages, or the folder. Over more than 20,000 passages a later change is followed in
        a thread, and this answers with what was there before.
        """
        now = self._bm25
        if now is not None and self._is_fresh():
            return now
        if now is None or max(len(now.ids), self._store.collection.count()) <= WAIT_FOR:
            return self.follow()
        if self._following is None or not self._following.is_alive():
            if self._made_of is not None and self._made_of.collection != str(self._store.collection.id):
                logger.warning(
                    "the word index of %s is of an earlier build and reads the present one: until then words find "
                    "only what stands in both", self._store.name,
                )  # fmt: skip
            self._following = threading.Thread(target=self._follow_quietly, name="rag_ft keyword index", daemon=True)
            self._following.start()
        return now

    def follow(self) -> BM25:
        """Make the word index what the collection is now, and return it."""
        with self._lock:
            changes, looked = self._store.changes, time.monotonic()
            now = self._store.revision()
            if self._bm25 is None:
                self._load()
            if self._bm25 is None or not self._is_of(now):
                self._read(now)
            self._looked, self._changes = looked, changes
            assert self._bm25 is not None
            return self._bm25

    def _is_fresh(self) -> bool:
        return self._changes == self._store.changes and time.monotonic() - self._looked < LOOK_AGAIN_SECONDS

    def _is_of(self, now: Revision) -> bool:
        made_of = self._made_of
        return made_of is not None and now.settled and (made_of.collection, made_of.name, made_of.count) == (
            now.collection, now.name, now.count
        )  # fmt: skip

    def _follow_quietly(self) -> None:
        try:
            self.follow()
        except Exception as error:
            logger.warning("the word index of %s did not follow (%s): it answers as before", self._store.name, error)

    def _read(self, now: Revision) -> None:
        """Read what is new or changed, and forget what is gone."""
        collection = self._store.collection
        hashes = dict(_hashes(collection))
        before = self._bm25
        known = self._hashes if before is not None else {}
        fresh = [key for key, value in hashes.items() if known.get(key) != value]
        if 2 * len(fresh) > len(hashes):
            # Mostly other passages: they may be of another language.
            fresh, known, before = list(hashes), {}, None
        began = time.monotonic()
        texts = dict(_texts(collection, fresh))
        # What was removed between the two readings is gone as well.
        hashes = {key: value for key, value in hashes.items() if key in texts or known.get(key) == value}
        gone = [key for key in before.ids if key not in hashes] if before is not None else []
        if before is None:
            self._bm25 = BM25(texts, self._language)
        elif texts or gone:
            self._bm25 = before.changed(texts, set(gone))
        # What was read while somebody wrote is read again.
        self._hashes, self._made_of = hashes, now if now.settled else None
        if fresh or gone:
            logger.info(
                "word index of %s: %d passages read, %d gone, in %.1f s (%s)",
                self._store.name, len(fresh), len(gone), time.monotonic() - began,
                self._bm25.language if self._bm25 is not None else "",
            )  # fmt: skip
            self._save()

    def _save(self) -> None:
        """Keep it for the next start; where that fails, the next start reads all again."""
        if self._folder is None or self._bm25 is None:
            return
        if len(self._bm25.ids) > WAIT_FOR and time.monotonic() - self._saved < SAVE_AGAIN_SECONDS:
            return
        self._saved = time.monotonic()
        try:
            with written_beside(self._folder) as folder:
                folder.mkdir()
                self._bm25.save(folder)
                write_json(folder / "state.json", {"format": FORMAT, "hashes": self._hashes})
        except (OSError, RagFtError) as error:
            logger.warning("the word index of %s is not kept in %s (%s)", self._store.name, self._folder, error)

    def _load(self) -> None:
        """Take what is kept, of whatever state: then only what differs is read."""
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
        self._bm25, self._hashes, self._made_of = bm25, hashes, None
        logger.debug("word index of %s: %d passages from %s", self._store.name, len(hashes), self._folder)


def _folder_for(store: LiveChromaStore) -> Path | None:
    """Where a word index is kept: beside an embedded Chroma, in the user's cache for a server; None: nowhere."""
    settings = store.collection._client.get_settings()  # type: ignore[attr-defined]
    if settings.is_persistent:
        return Path(settings.persist_directory) / FOLDER / store.name
    if not settings.chroma_server_host:
        return None
    server = f"{settings.chroma_server_host}:{settings.chroma_server_http_port}"
    name = sha256_of(server, str(store.collection.tenant), str(store.collection.database), store.name)[:20]
    return cache_folder() / FOLDER / name


def _hashes(collection: Collection) -> Iterator[tuple[str, str]]:
    """Of each passage its id and the hash of its content."""
    offset = 0
    while True:
        rows = collection.get(limit=_page(collection), offset=offset, include=["metadatas"])
        if not rows["ids"]:
            return
        for key, metadata in zip(rows["ids"], rows["metadatas"] or [], strict=True):
            yield key, str((metadata or {}).get(NODE_HASH, ""))
        offset += len(rows["ids"])


def _texts(collection: Collection, ids: list[str]) -> Iterator[tuple[str, str]]:
    """Of each passage its id and its text as it is embedded."""
    from llama_index.core.schema import MetadataMode

    for part in parts_of(ids, _page(collection)):
        rows = collection.get(ids=part, include=["documents", "metadatas"])
        for key, text, metadata in zip(rows["ids"], rows["documents"] or [], rows["metadatas"] or [], strict=True):
            yield key, node_of(key, text or "", dict(metadata or {})).get_content(metadata_mode=MetadataMode.EMBED)


def _page(collection: Collection) -> int:
    host = str(getattr(collection._client.get_settings(), "chroma_server_host", None) or "")  # type: ignore[attr-defined]
    return CLOUD_STEP if host.endswith("trychroma.com") else PAGE
