"""Retrievers that always return the same ranking, fail, or hang."""

from __future__ import annotations

import asyncio
import random
import threading
import time

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode


def ranked(ids: str) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=key, text=f"Passage {key}."), score=1 / (n + 1)) for n, key in enumerate(ids)
    ]


class Fixed(BaseRetriever):
    """Always returns the same ranking, or fails, or waits."""

    def __init__(self, ids: str, fails: float = 0.0, waits: float = 0.0) -> None:
        super().__init__()
        self.ids, self.fails, self.waits = ids, fails, waits

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        time.sleep(self.waits)
        if random.random() < self.fails:
            raise ConnectionError("the server is down")
        return ranked(self.ids)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        await asyncio.sleep(self.waits)
        if random.random() < self.fails:
            raise ConnectionError("the server is down")
        return ranked(self.ids)


class Waiting(BaseRetriever):
    """Hangs until `go` is set, and has no asynchronous method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.go.wait(60)
        return ranked("vw")
