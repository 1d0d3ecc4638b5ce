"""The hybrid of an embedding and BM25, as a LlamaIndex retriever over an index that rag_ft built."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery

from rag_ft.errors import InputError
from rag_ft.index.gated_index import clean_query
from rag_ft.index.live_store import LiveChromaStore
from rag_ft.index.writing import batched
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.fusion import Fusion, Pool
from rag_ft.retrieval.keyword_index import KeywordIndex
from rag_ft.retrieval.top_k import top_k

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.callbacks import CallbackManager
    from numpy.typing import NDArray

MAX_FILTERED = 2_000
"""Number of BM25 results to filter first. If too few pass, all passages that pass the filters are listed instead."""


class HybridRetriever(BaseRetriever):
    """Finds passages by an embedding and by BM25, and fuses the two rankings.

    Passages that only one of them found are scored by the other as well. BM25 follows the index: inserts, changes,
    deletions and rebuilds.

    Args:
        index: an index of `rebuild_index` or `open_index`.
        fusion: how the rankings are fused. If None, the fusion stored with this index or its model, otherwise
            `Fusion()`.
        similarity_top_k: number of passages to return.
        filters: filters on the nodes' metadata. Both rankings respect them.
        keywords: the word index; the shared one of the store if None.
        callback_manager: `Settings.callback_manager` if None.

    Raises:
        InputError: if the index was not built by rag_ft.

    Example:
        >>> import chromadb
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import FineTunedEmbedding, HybridRetriever, rebuild_index
        >>> nodes = [TextNode(text="Form T-9 is an expenses claim."), TextNode(text="Visitors wear a badge.")]
        >>> index = rebuild_index(nodes, FineTunedEmbedding.load("local"), chromadb.EphemeralClient(), "hybrid-example")
        >>> HybridRetriever(index, similarity_top_k=1).retrieve("What is T-9?")[0].text
        'Form T-9 is an expenses claim.'
    """

    def __init__(
        self,
        index: VectorStoreIndex,
        fusion: Fusion | None = None,
        similarity_top_k: int = 10,
        *,
        filters: MetadataFilters | None = None,
        keywords: KeywordIndex | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if similarity_top_k < 1:
            raise InputError(f"similarity_top_k is {similarity_top_k}: use at least 1")
        self.store, self.embed_model = _store_of(index), index._embed_model
        self.similarity_top_k, self.filters = similarity_top_k, filters
        self.keywords = keywords or KeywordIndex.shared(self.store)
        self._fusion = fusion
        super().__init__(callback_manager=callback_manager or Settings.callback_manager)

    @property
    def fusion(self) -> Fusion:
        """The fusion in use: the one passed, otherwise the index's, otherwise the one in the model's folder."""
        if self._fusion is not None:
            return self._fusion
        learned = self.store.fusion or getattr(self.embed_model, "fusion", None)
        return Fusion.from_dict(learned) if learned else Fusion()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        fusion, query_bundle = self.fusion, clean_query(query_bundle)
        results: list[NodeWithScore] = []
        for batch in batched(fusion.rank(self.pool(query_bundle, fusion)), self.similarity_top_k):
            nodes = {node.node_id: node for node in self.store.get_nodes([key for key, _ in batch])}
            # BM25 may return passages that were deleted since. The next ones replace them.
            results += [NodeWithScore(node=nodes[key], score=score) for key, score in batch if key in nodes]
            if len(results) >= self.similarity_top_k:
                break
        return results[: self.similarity_top_k]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def pool(self, query_bundle: QueryBundle, fusion: Fusion) -> Pool:
        """Return the passages that either retriever finds for a query, scored by both."""
        depth = max(fusion.depth, self.similarity_top_k)
        bm25 = self.keywords.bm25()
        scores = next(bm25.scores([query_bundle.query_str]))
        by_words = self._search_words(bm25, scores, depth)
        if fusion.weight > 0:
            similarities = self._search_vectors(query_bundle, by_words, depth)
        else:
            similarities = dict.fromkeys(by_words, 0.0)
        positions = [bm25.positions.get(key, -1) for key in similarities]
        sparse = np.array([scores[position] if position >= 0 else 0.0 for position in positions], dtype=np.float32)
        return Pool(list(similarities), np.array(list(similarities.values()), dtype=np.float32), sparse)

    def _search_words(self, bm25: BM25, scores: NDArray[np.float32], depth: int) -> list[str]:
        """Return the best passages by BM25 that pass the filters, best first."""
        if self.filters is None:
            return [bm25.ids[position] for position in top_k(scores, depth, above=0.0)]
        count = max(MAX_FILTERED, depth)
        ids = [bm25.ids[position] for position in top_k(scores, count, above=0.0)]
        passing = self.store.matching_ids(self.filters, ids)
        if len(passing) >= depth or len(ids) < count:
            return [key for key in ids if key in passing][:depth]
        # Few passages pass: list and rank those, instead of all that share a word with the query.
        passing = self.store.matching_ids(self.filters)
        positions = np.array(sorted(bm25.positions[key] for key in passing if key in bm25.positions), dtype=np.intp)
        return [bm25.ids[positions[index]] for index in top_k(scores[positions], depth, above=0.0)]

    def _search_vectors(self, query_bundle: QueryBundle, others: list[str], depth: int) -> dict[str, float]:
        """Return the similarity of the passages nearest to a query, and of some others."""
        vector: Any = query_bundle.embedding
        if vector is None:
            # There are several strings if the query was rewritten (HyDE).
            vector = self.embed_model.get_agg_embedding_from_queries(query_bundle.embedding_strs)
        ids, similarities = self.store.nearest(
            VectorStoreQuery(
                query_embedding=vector, query_str=query_bundle.query_str, similarity_top_k=depth, filters=self.filters
            )
        )
        nearest = dict(zip(ids, similarities, strict=True))
        return nearest | self.store.similarities([key for key in others if key not in nearest], vector)


def keep_fusion(index: VectorStoreIndex, fusion: Fusion) -> None:
    """Store a fusion in an index. It stays there until the index is built with another model.

    Raises:
        InputError: if the index was not built by rag_ft.
        OutsideError: if another process is building the index.

    Example:
        >>> import chromadb
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import HybridRetriever, rebuild_index
        >>> from rag_ft.retrieval import Fusion, keep_fusion
        >>> nodes = [TextNode(text="Leave is booked in HELM."), TextNode(text="Badges open doors.")]
        >>> index = rebuild_index(nodes, MockEmbedding(embed_dim=8), chromadb.EphemeralClient(), "fusion-example")
        >>> keep_fusion(index, Fusion("zscore", weight=0.3))
        >>> HybridRetriever(index).fusion.weight
        0.3
    """
    _store_of(index).keep_fusion(fusion.to_dict())


def _store_of(index: VectorStoreIndex) -> LiveChromaStore:
    store = index.vector_store
    if not isinstance(store, LiveChromaStore):
        raise InputError(
            f"the index is over a {type(store).__name__}: use an index from rag_ft.rebuild_index or rag_ft.open_index"
        )
    return store
