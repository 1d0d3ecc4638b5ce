"""The collection that an index's name points at, followed through rebuilds."""

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
"""Maximum age of the pointer in seconds; then it is read again."""


class LiveCollection:
    """Access to the collection in use, found through the pointer of an index.

    Args:
        client: a Chroma client.
        name: the name of the index.
        check: raises a `ContractError` if a collection belongs to another model.

    Attributes:
        fusions: fingerprint of a model -> how its results are fused with BM25.

    Raises:
        InputError: if no index of this name was built.
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
        """The collection in use; the pointer is read again once it is a second old."""
        with self._lock:
            if self._collection is None or time.monotonic() - self._checked_at > CHECK_SECONDS:
                try:
                    self._follow()
                except RagFtError:
                    raise
                except Exception as error:
                    if self._collection is None:
                        raise
                    logger.debug("the pointer of %s was not read (%s): using the open collection", self._name, error)
            assert self._collection is not None
            return self._collection

    def call(self, action: Callable[[Collection], T]) -> T:
        """Run an action on the collection in use; if the collection was replaced meanwhile, run it again."""
        collection = self.current
        try:
            return action(collection)
        except RagFtError:
            raise
        except Exception:
            with self._lock:
                self._follow(was_deleted=not self._exists(collection))
                current = self._collection
            if current is None or current is collection:
                raise
            return action(current)

    def expire(self) -> None:
        """Read the pointer again on next use."""
        self._checked_at = float("-inf")

    def _follow(self, was_deleted: bool = False) -> None:
        """Read the pointer; if it names another collection, check that and open it.

        Args:
            was_deleted: whether the open collection was deleted.
        """
        pointer = read_pointer(self._client, self._name)
        if pointer is None or pointer.current is None:
            raise InputError(f"there is no index {self._name} yet: build it with rag-ft index SOURCE --model MODEL")
        self.fusions = pointer.fusions
        opened = self._collection
        if opened is None or opened.name != pointer.current or was_deleted:
            collection = self._client.get_collection(pointer.current, embedding_function=None)
            try:
                self._check(collection)
            except ContractError:
                # The app still uses the earlier model, so it keeps the earlier collection as long as that exists.
                if opened is None or was_deleted or not self._exists(opened):
                    raise
                logger.warning("the index %s was rebuilt with another model: load that model to use it", self._name)
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
