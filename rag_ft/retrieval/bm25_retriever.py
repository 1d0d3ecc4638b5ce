"""BM25 alone as a LlamaIndex retriever."""

from __future__ import annotations

from collections.abc import Iterable

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from rag_ft.retrieval.bm25 import BM25


class BM25Retriever(BaseRetriever):
    """Finds nodes by the words of their embedded text. All nodes are kept in memory.

    Args:
        nodes: LlamaIndex nodes.
        similarity_top_k: number of nodes to return.
        language: see `BM25`.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.retrieval import BM25Retriever
        >>> nodes = [TextNode(text="Form T-9 is an expenses claim."), TextNode(text="Visitors wear a badge.")]
        >>> [result.text for result in BM25Retriever(nodes).retrieve("What is T-9?")]
        ['Form T-9 is an expenses claim.']
    """

    def __init__(self, nodes: Iterable[BaseNode], similarity_top_k: int = 10, language: str | None = None) -> None:
        super().__init__()
        self._nodes = {node.node_id: node for node in nodes}
        texts = {key: node.get_content(metadata_mode=MetadataMode.EMBED) for key, node in self._nodes.items()}
        self._bm25, self._top_k = BM25(texts, language), similarity_top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        (ids,) = self._bm25.rank([query_bundle.query_str], self._top_k)
        return [NodeWithScore(node=self._nodes[key]) for key in ids]
