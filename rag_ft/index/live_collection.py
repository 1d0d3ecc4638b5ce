"""The collection that a name points at right now, followed through rebuilds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from rag_ft.embedding.contract import ContractError
from rag_ft.errors import InputError, RagFtError
from rag_ft.index.pointer import read_pointer

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHECK_SECONDS = 1.0
"""Seconds after which the pointer is read again."""


class LiveCollection:
    """Follows the pointer of an index to the collection in use.

    Args:
        client: a Chroma client.
        name: the name of the index.
        check: raises a `ContractError` if a collection belongs to another model.

    Attributes:
        fusions: how results are fused with BM25, by the fingerprint of the model.

    Raises:
        InputError: if nothing was built under the name.
        ContractError: if the index belongs to another model.
    """

    def __init__(self, client: ClientAPI, name: str, check: Callable[[Collection], None]) -> None:
        self._client, self._name, self._check = client, name, check
        self._collection: Collection | None = None
        self._checked_at = 0.0
        self._lock = threading.Lock()
        self.fusions: Mapping[str, dict[str, Any]] = {}
        self._follow()

    @property
    def current(self) -> Collection:
        """The collection in use; the pointer is read again after a second."""
        with self._lock:
            if self._collection is None or time.monotonic() - self._checked_at > CHECK_SECONDS:
                try:
                    self._follow()
                except RagFtError:
                    raise
                except Exception as error:
                    if self._collection is None:
                        raise
                    logger.debug("the pointer of %s was not read (%s): going on with what is open", self._name, error)
            assert self._collection is not None
            return self._collection

    def call(self, action: Callable[[Collection], T]) -> T:
        """Run an action on the collection in use; run it again if the collection was replaced meanwhile."""
        collection = self.current
        try:
            return action(collection)
        except RagFtError:
            raise
        except Exception:
            with self._lock:
                self._follow(gone=not self._exists(collection))
                current = self._collection
            if current is None or current is collection:
                raise
            return action(current)

    def expire(self) -> None:
        """Read the pointer again at the next use."""
        self._checked_at = float("-inf")

    def _follow(self, gone: bool = False) -> None:
        """Read the pointer, and open and check the collection if it is another one.

        Args:
            gone: whether the open collection was deleted.
        """
        pointer = read_pointer(self._client, self._name)
        if pointer is None or pointer.current is None:
            raise InputError(f"no index {self._name} is complete yet: build it with rag-ft index SOURCE --model MODEL")
        self.fusions = pointer.fusions
        opened = self._collection
        if opened is None or opened.name != pointer.current or gone:
            collection = self._client.get_collection(pointer.current, embedding_function=None)
            try:
                self._check(collection)
            except ContractError:
                # The app still has the earlier model: it keeps the earlier passages as long as they exist.
                if opened is None or gone or not self._exists(opened):
                    raise
                logger.warning("the index %s was rebuilt for another model: load that one to read it", self._name)
            else:
                if opened is None or opened.id != collection.id:
                    self._collection = collection
        self._checked_at = time.monotonic()

    def _exists(self, collection: Collection) -> bool:
        from chromadb.errors import NotFoundError

        try:
            return bool(self._client.get_collection(collection.name, embedding_function=None).id == collection.id)
        except NotFoundError:
            return False
