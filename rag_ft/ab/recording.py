"""Record what an A/B test showed, and return the id that an app votes on."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from llama_index.core.schema import MetadataMode, NodeWithScore

from rag_ft.ab.variant_calls import reason_of
from rag_ft.errors import InputError
from rag_ft.feedback.shown_query import ShownResults
from rag_ft.feedback.variants import Variant
from rag_ft.feedback.vote_log import Votes

logger = logging.getLogger(__name__)

VARIANT_KEY, QUERY_KEY = "ab_side", "ab_query"
"""Metadata keys of nodes and responses: the variant that returned them, and the id to vote on."""


class Recorder:
    """Writes what was shown to a vote log, if there is one.

    Args:
        votes: the vote log or its file; nothing is recorded if None.
    """

    def __init__(self, votes: str | Path | Votes | None) -> None:
        self.votes = votes if isinstance(votes, Votes) or votes is None else Votes(votes)
        # A variant that hangs may occupy all threads of the event loop.
        self._writers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="rag_ft-ab-votes")

    def record(
        self, mode: str, session: str, question: str, nodes: Sequence[NodeWithScore], results: ShownResults
    ) -> str:
        """Record what was shown for a question, and return the id to vote on.

        If the vote log cannot be written, the error is logged and the answer is still returned.
        """
        query = uuid.uuid4().hex
        if self.votes is not None:
            texts = {node.node_id: node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes}
            try:
                self.votes.shown(query, mode, session, question, results, texts=texts)
            except Exception as error:
                logger.error("the results could not be recorded in the vote log (%s)", reason_of(error))
        return query

    async def arecord(
        self, mode: str, session: str, question: str, nodes: Sequence[NodeWithScore], results: ShownResults
    ) -> str:
        """Do what `record` does, without blocking the event loop."""
        call = partial(self.record, mode, session, question, nodes, results)
        return await asyncio.get_running_loop().run_in_executor(self._writers, call)

    def record_failure(self, query: str, variant: Variant, reason: str) -> None:
        """Record that the answer of a variant broke off after it was shown."""
        if self.votes is not None:
            try:
                self.votes.failed(query, variant, reason)
            except Exception as error:
                logger.error("a failure could not be recorded in the vote log (%s)", reason_of(error))

    def require_votes(self) -> Votes:
        """Return the vote log.

        Raises:
            InputError: if there is no vote log.
        """
        if self.votes is None:
            raise InputError("there is no vote log: pass votes='votes.jsonl'")
        return self.votes


def one_variant(variant: Variant, nodes: Sequence[NodeWithScore], failed: dict[Variant, str]) -> ShownResults:
    """Return the results to record if one variant answers.

    Args:
        variant: the variant.
        nodes: the passages that it found.
        failed: variant -> the reason why it has no results.
    """
    passages = [node.node_id for node in nodes]
    return ShownResults(passages=passages, teams=[variant] * len(nodes), variant=variant, failed=failed)


def mark_nodes(nodes: Sequence[NodeWithScore], teams: Sequence[Variant], query: str) -> list[NodeWithScore]:
    """Copy nodes, and add their variant and the id to vote on to the metadata, hidden from LLMs."""
    marked = []
    for scored, variant in zip(nodes, teams, strict=True):
        node = scored.node.model_copy()
        node.metadata = {**node.metadata, VARIANT_KEY: variant, QUERY_KEY: query}
        node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, VARIANT_KEY, QUERY_KEY]
        node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, VARIANT_KEY, QUERY_KEY]
        marked.append(NodeWithScore(node=node, score=scored.score))
    return marked
