"""The embedding and BM25 together, as a LlamaIndex retriever over an index that rag_ft built."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery

from rag_ft.errors import InputError
from rag_ft.index.live_store import LiveChromaStore
from rag_ft.index.writing import parts_of
from rag_ft.retrieval.bm25 import BM25, WordScores
from rag_ft.retrieval.fusion import Fusion, Pool
from rag_ft.retrieval.keyword_index import KeywordIndex
from rag_ft.retrieval.top_k import top_k

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.callbacks import CallbackManager


FILTERED = 2_000
"""Passages with words of a question that filters are asked about, before those that they let through are listed."""


class HybridRetriever(BaseRetriever):
    """Finds passages by the embedding and by their words, and mixes the two lists.

    Passages that only one side found are scored by the other as well, so that nothing is guessed. The words follow the
    index: inserts, changes, deletions and rebuilds.

    Args:
        index: of `rebuild_index` or `open_index`.
        fusion: how the lists are mixed; None: as it was learned for this index, else reciprocal ranks.
        similarity_top_k: passages to return.
        filters: on the nodes' metadata; both sides obey.
        keywords: the word index, where several retrievers share one.
        callback_manager: `Settings.callback_manager` where None.

    Raises:
        InputError: where the index is not one of rag_ft's.

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
            raise InputError(f"similarity_top_k is {similarity_top_k}: at least 1 passage")
        self.store, self.embed_model = _store_of(index), index._embed_model
        self.similarity_top_k, self.filters = similarity_top_k, filters
        self.keywords = keywords or KeywordIndex.of(self.store)
        self._fusion = fusion
        super().__init__(callback_manager=callback_manager or Settings.callback_manager)

    @property
    def fusion(self) -> Fusion:
        """How the lists are mixed: as was given, else as the index says, else as its model's folder does."""
        if self._fusion is not None:
            return self._fusion
        learned = self.store.fusion or getattr(self.embed_model, "fusion", None)
        return Fusion.from_dict(learned) if learned else Fusion()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        fusion = self.fusion
        kept: list[NodeWithScore] = []
        for part in parts_of(fusion.ranked(self.pool(query_bundle, fusion)), self.similarity_top_k):
            nodes = {node.node_id: node for node in self.store.get_nodes([key for key, _ in part])}
            # The words may know passages that were deleted since: the next ones come in their place.
            kept += [NodeWithScore(node=nodes[key], score=score) for key, score in part if key in nodes]
            if len(kept) >= self.similarity_top_k:
                break
        return kept[: self.similarity_top_k]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def pool(self, query_bundle: QueryBundle, fusion: Fusion) -> Pool:
        """What either side finds for a question, scored by both."""
        depth = max(fusion.depth, self.similarity_top_k)
        words = self.keywords.bm25()
        found = next(iter(words.search([query_bundle.query_str])))
        by_words = self._by_words(words, found, depth)
        if fusion.by_question or fusion.weight > 0:
            similarity = self._by_embedding(query_bundle, by_words, depth)
        else:
            similarity = dict.fromkeys(by_words, 0.0)
        places = [words.place_of.get(key, -1) for key in similarity]
        sparse = np.array([found.scores[place] if place >= 0 else 0.0 for place in places], dtype=np.float32)
        dense = np.array(list(similarity.values()), dtype=np.float32)
        return Pool(list(similarity), dense, sparse, found.words, found.rarest)

    def _by_words(self, words: BM25, found: WordScores, depth: int) -> list[str]:
        """The passages that BM25 finds, the best first, and of those that filters let through."""
        if self.filters is None:
            return [words.ids[place] for place in top_k(found.scores, depth, above=0.0)]
        wanted = max(FILTERED, depth)
        ids = [words.ids[place] for place in top_k(found.scores, wanted, above=0.0)]
        passing = self.store.that_match(self.filters, ids)
        if len(passing) >= depth or len(ids) < wanted:
            return [key for key in ids if key in passing][:depth]
        # So few pass that all of those are looked at, and not all that have a word of the question.
        passing = self.store.that_match(self.filters)
        places = np.array(sorted(words.place_of[key] for key in passing if key in words.place_of), dtype=np.intp)
        return [words.ids[places[each]] for each in top_k(found.scores[places], depth, above=0.0)]

    def _by_embedding(self, query_bundle: QueryBundle, others: list[str], depth: int) -> dict[str, float]:
        """Similarity of the passages that are nearest to a question, and of some others."""
        vector: Any = query_bundle.embedding
        if vector is None:
            # More than one where the question was rewritten (HyDE).
            vector = self.embed_model.get_agg_embedding_from_queries(query_bundle.embedding_strs)
        ids, similarities = self.store.nearest(
            VectorStoreQuery(
                query_embedding=vector,
                query_str=query_bundle.query_str,
                similarity_top_k=depth,
                filters=self.filters,
            )
        )
        found = dict(zip(ids, similarities, strict=True))
        return found | self.store.similarities([key for key in others if key not in found], vector)


def keep_fusion(index: VectorStoreIndex, fusion: Fusion) -> None:
    """Write into an index how its two lists are mixed; it stays there until the index is built with another model.

    Raises:
        InputError: where the index is not one of rag_ft's.
        OutsideError: where somebody builds the index at this moment.

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
            f"a hybrid got an index over {type(store).__name__}: give one of rag_ft.rebuild_index or open_index"
        )
    return store
