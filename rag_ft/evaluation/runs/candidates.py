"""What can be compared: an embedding, BM25, the hybrid of both, or any LlamaIndex retriever."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rag_ft.retrieval.fusion import Fusion

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding

    Candidate: TypeAlias = "BaseEmbedding | Hybrid | BaseRetriever | Literal['bm25']"


@dataclass(frozen=True)
class Hybrid:
    """A candidate of `compare`: an embedding and BM25, fused.

    Attributes:
        embed_model: any LlamaIndex embedding.
        fusion: how their rankings are fused. If None, the fusion in the model's folder, otherwise one learned on dev
            questions, otherwise `Fusion()`.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query, compare
        >>> from rag_ft.evaluation import Hybrid
        >>> from rag_ft.retrieval import Fusion
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"a": 1}}})
        >>> hybrid = Hybrid(MockEmbedding(embed_dim=8), Fusion("zscore", weight=0.3))
        >>> compare(dataset, "bm25", hybrid).models["candidate"]["mrr@10"]
        1.0
    """

    embed_model: BaseEmbedding
    fusion: Fusion | None = None


def kind_of(candidate: Candidate) -> str:
    """Return `bm25`, `embedding`, `hybrid` or `retriever`."""
    from llama_index.core.base.embeddings.base import BaseEmbedding

    if isinstance(candidate, str):
        return "bm25"
    if isinstance(candidate, Hybrid):
        return "hybrid"
    return "embedding" if isinstance(candidate, BaseEmbedding) else "retriever"


def model_of(candidate: Candidate) -> Any:
    """Return the embedding of a hybrid, and any other candidate unchanged."""
    return candidate.embed_model if isinstance(candidate, Hybrid) else candidate


def max_length_of(candidate: Candidate) -> int:
    """Return the number of tokens that a candidate reads of a passage; 0 if it is unlimited or unknown."""
    return int(getattr(model_of(candidate), "max_length", None) or 0)


def display_name(candidate: Candidate) -> str:
    """Return a display name: the last part of a folder's path, or a hub name unchanged."""
    if isinstance(candidate, str):
        return candidate
    if isinstance(candidate, Hybrid):
        return f"hybrid:{display_name(candidate.embed_model)}"
    name = getattr(candidate, "model_name", None) or getattr(candidate, "name", None)
    if not name:
        return type(candidate).__name__
    path = Path(name)
    return path.name if path.is_dir() else str(name)
