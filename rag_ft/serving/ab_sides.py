"""The two sides of the A/B page: the same passages, indexed under each model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rag_ft.embedding.contract import contract_of
from rag_ft.errors import InputError
from rag_ft.index.build import rebuild_index
from rag_ft.retrieval.ab.sessions import SIDES, Side
from rag_ft.serving.ab_looking import PageSide

if TYPE_CHECKING:
    from pathlib import Path

    from chromadb.api import ClientAPI
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

TOP_K = 10


def page_sides(
    nodes: Iterable[BaseNode],
    models: Mapping[Side, BaseEmbedding],
    names: Mapping[Side, str],
    chroma: str | Path | ClientAPI | None = None,
    *,
    hybrid: Iterable[Side] = (),
    llm: LLM | None = None,
    top_k: int = TOP_K,
    show_progress: bool = False,
) -> tuple[PageSide, PageSide]:
    """Index passages under two models, and make a side of the page of each.

    Args:
        nodes: LlamaIndex nodes; gone through once for each index.
        models: of each side.
        names: as people know them.
        chroma: where the indexes are kept, and taken over by the next start; in memory alone where None.
        hybrid: sides that search by words too.
        llm: answers from the passages of each side; nobody does where None.
        top_k: passages of a ranking.
        show_progress: a progress bar with time left.

    Raises:
        InputError: where both sides are the same.
    """
    hybrid = set(hybrid)
    prints = {side: contract_of(models[side]).fingerprint for side in SIDES}
    if prints["a"] == prints["b"] and ("a" in hybrid) == ("b" in hybrid):
        raise InputError(
            f"--a {names['a']} and --b {names['b']} are the same model with the same prefixes: every ranking would be "
            "the same, give another one"
        )
    if chroma is None:
        import chromadb

        chroma = chromadb.EphemeralClient()
    retrievers: dict[Side, BaseRetriever] = {}
    for side in SIDES:
        logger.info("%s: %s", side, names[side])
        index = rebuild_index(nodes, models[side], chroma, f"ab-{prints[side][:12]}", show_progress=show_progress)
        if side in hybrid:
            from rag_ft.retrieval.hybrid import HybridRetriever

            retrievers[side] = HybridRetriever(index, similarity_top_k=top_k)
        else:
            retrievers[side] = index.as_retriever(similarity_top_k=top_k)
    a, b = (_with_answers(names[side], retrievers[side], llm) for side in SIDES)
    return a, b


def _with_answers(name: str, retriever: BaseRetriever, llm: LLM | None) -> PageSide:
    if llm is None:
        return PageSide(name, retriever)
    from llama_index.core.response_synthesizers import get_response_synthesizer

    return PageSide(name, retriever, get_response_synthesizer(llm=llm))
