"""Two variants for tests of the A/B page: retrievers over a few passages that rank in a fixed order, fail or hang."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode

from rag_ft.ab.page import create_ab_page
from rag_ft.ab.page_access import AccessRules
from rag_ft.ab.side_by_side import PageVariant
from rag_ft.server.running import served_in_thread

TOKEN = "the-token-of-this-test"
HOSTILE = '<script>document.title="hit"</script><img src=x onerror="document.title=\'hit\'"> "quoted" & \'single\''
HEBREW = "תביעת הוצאות מוגשת תוך שלושים יום."
TEXTS = {
    "claims#0": "A Kittiwake is an expenses claim and is filed within thirty days of the journey.",
    "claims#1": "The bursar pays a Kittiwake on the last working day of the month.",
    "visitors#0": "Visitors wear a badge and sign the book at the gatehouse.",
    "hostile#0": HOSTILE,
    "hebrew#0": HEBREW,
    "long#0": "The foghorn sounds when the fog is thick. " * 40,
}


def node(key: str) -> TextNode:
    document = RelatedNodeInfo(node_id=key.split("#")[0])
    return TextNode(id_=key, text=TEXTS[key], relationships={NodeRelationship.SOURCE: document})


class Ranks(BaseRetriever):
    """A retriever that always finds the same passages in the same order, fails, or hangs."""

    def __init__(self, *keys: str, fails: bool = False, waits: float = 0.0) -> None:
        super().__init__()
        self.keys, self.fails, self.waits = keys, fails, waits

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        time.sleep(self.waits)
        if self.fails:
            raise ConnectionError("the server of local-b is down")
        return [NodeWithScore(node=node(key), score=1 / (rank + 1)) for rank, key in enumerate(self.keys)]


A = Ranks("visitors#0", "claims#0", "long#0", "hebrew#0")
B = Ranks("claims#0", "hostile#0", "visitors#0", "claims#1")


@contextmanager
def page(votes: Path, a: Any = A, b: Any = B, **settings: Any) -> Iterator[str]:
    """Serve an A/B page, and yield its address with the token."""
    variants = [
        variant if isinstance(variant, PageVariant) else PageVariant(f"model-{name}", variant)
        for name, variant in (("a", a), ("b", b))
    ]
    app = create_ab_page(*variants, votes, access=AccessRules(token=TOKEN), **settings)
    with served_in_thread(app) as address:
        yield f"{address.removesuffix('/v1')}/?token={TOKEN}"
