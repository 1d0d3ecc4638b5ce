"""Build the two variants of the A/B page, which search the same passages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llama_index.core.base.base_retriever import BaseRetriever

from rag_ft.ab.side_by_side import PageVariant
from rag_ft.embedding.contract import contract_of
from rag_ft.errors import InputError
from rag_ft.evaluation.runs.candidates import Hybrid
from rag_ft.feedback.variants import VARIANTS, Variant
from rag_ft.index.build import rebuild_index
from rag_ft.retrieval.bm25_retriever import BM25Retriever
from rag_ft.retrieval.hybrid import HybridRetriever

if TYPE_CHECKING:
    from pathlib import Path

    from chromadb.api import ClientAPI
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from rag_ft.evaluation.runs.candidates import Candidate

logger = logging.getLogger(__name__)

FINGERPRINT_DIGITS = 12


def build_page_variants(
    nodes: Iterable[BaseNode],
    candidates: Mapping[Variant, Candidate],
    names: Mapping[Variant, str],
    chroma: str | Path | ClientAPI | None = None,
    *,
    llm: LLM | None = None,
    top_k: int = 10,
    show_progress: bool = False,
) -> tuple[PageVariant, PageVariant]:
    """Index passages for each variant.

    Args:
        nodes: LlamaIndex nodes; iterated over once for each variant.
        candidates: what each variant searches with, as in `compare`: an embedding, `Hybrid`, "bm25" or a retriever.
        names: the displayed name of each variant.
        chroma: a Chroma folder or client that keeps the indexes; in memory if None.
        llm: answers from the passages of each variant; no answers are written if None.
        top_k: number of passages in a ranking.
        show_progress: show a progress bar.

    Raises:
        InputError: if both variants are the same, or there is no passage.
    """
    from llama_index.core.response_synthesizers import get_response_synthesizer

    if _identity(candidates["a"]) == _identity(candidates["b"]):
        raise InputError(
            f"--a {names['a']} and --b {names['b']} are the same model with the same prefixes, so every ranking "
            "would be the same: choose another model"
        )
    if chroma is None:
        import chromadb

        chroma = chromadb.EphemeralClient()
    a, b = (
        PageVariant(
            names[variant],
            _retriever(nodes, candidates[variant], names[variant], chroma, top_k, show_progress=show_progress),
            None if llm is None else get_response_synthesizer(llm=llm),
        )
        for variant in VARIANTS
    )
    return a, b


def _identity(candidate: Candidate) -> tuple[str, str, str]:
    if isinstance(candidate, str):
        return candidate, "", ""
    if isinstance(candidate, BaseRetriever):
        return "retriever", str(id(candidate)), ""
    if isinstance(candidate, Hybrid):
        return "hybrid", contract_of(candidate.embed_model).fingerprint, repr(candidate.fusion)
    return "embedding", contract_of(candidate).fingerprint, ""


def _retriever(
    nodes: Iterable[BaseNode],
    candidate: Candidate,
    name: str,
    chroma: str | Path | ClientAPI,
    top_k: int,
    *,
    show_progress: bool,
) -> BaseRetriever:
    if isinstance(candidate, str):
        return BM25Retriever(nodes, top_k)
    if isinstance(candidate, BaseRetriever):
        return candidate
    logger.info("indexing with %s", name)
    model = candidate.embed_model if isinstance(candidate, Hybrid) else candidate
    collection = f"ab-{contract_of(model).fingerprint[:FINGERPRINT_DIGITS]}"
    index = rebuild_index(nodes, model, chroma, collection, show_progress=show_progress)
    if isinstance(candidate, Hybrid):
        return HybridRetriever(index, candidate.fusion, top_k)
    return index.as_retriever(similarity_top_k=top_k)
