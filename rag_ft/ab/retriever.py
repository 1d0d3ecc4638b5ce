"""Two retrievers as one, for an A/B test in an app."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from rag_ft.ab.interleaving import team_draft
from rag_ft.ab.options import ABOptions
from rag_ft.ab.recording import Recorder, mark_nodes, one_variant
from rag_ft.ab.sessions import current_session
from rag_ft.ab.variant_calls import VariantCaller, both_failed, without_vector
from rag_ft.errors import InputError
from rag_ft.feedback.shown_query import ShownResults
from rag_ft.feedback.variants import VARIANTS, Variant
from rag_ft.feedback.vote_log import Votes


class ABRetriever(BaseRetriever):
    """Two retrievers as one.

    - `split`: each user or session (`ab_session`) always gets the ranking of the same variant.
    - `interleave`: both rankings become one list by team draft (Radlinski, Kurup and Joachims 2008). In each round a
      coin flip decides which variant picks first, and each picks its best passage that is not in the list. The variant
      that contributed a passage gets the credit if a person picks it (`pick`).

    A variant that fails or does not answer in time is left out, and the other one answers. Results and picks are on
    disk before the call returns.

    Args:
        a: the retriever in use.
        b: its possible replacement.
        mode: `split` or `interleave`.
        votes: the vote log or its file; nothing is recorded if None.
        top_k: length of an interleaved list; the length of the longer ranking if None.
        options: how sessions are assigned, and how long a variant may take.
        callback_manager: LlamaIndex's callback manager.

    Raises:
        InputError: if the mode is unknown.
        OutsideError: by `retrieve`, if both variants fail.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> from llama_index.core.retrievers import BaseRetriever
        >>> from rag_ft.ab import ABRetriever
        >>> class Fixed(BaseRetriever):
        ...     def __init__(self, *ids):
        ...         super().__init__()
        ...         self.found = [NodeWithScore(node=TextNode(id_=key, text=key), score=1.0) for key in ids]
        ...     def _retrieve(self, query_bundle):
        ...         return self.found
        >>> both = ABRetriever(Fixed("x", "y"), Fixed("y", "z"), mode="interleave", top_k=3)
        >>> sorted(node.node_id for node in both.retrieve("a question"))
        ['x', 'y', 'z']
    """

    def __init__(
        self,
        a: BaseRetriever,
        b: BaseRetriever,
        mode: Literal["split", "interleave"] = "split",
        *,
        votes: str | Path | Votes | None = None,
        top_k: int | None = None,
        options: ABOptions | None = None,
        callback_manager: Any = None,
    ) -> None:
        if mode not in ("split", "interleave"):
            raise InputError(f"mode is {mode!r}: use 'split' or 'interleave'")
        super().__init__(callback_manager=callback_manager)
        self.a, self.b, self.mode, self.top_k = a, b, mode, top_k
        self._caller, self._recorder = VariantCaller(options), Recorder(votes)

    @property
    def votes(self) -> Votes | None:
        """The vote log."""
        return self._recorder.votes

    def pick(self, query: str, node_id: str) -> Variant | None:
        """Record that a person used a passage, and return the variant that gets the credit.

        Args:
            query: `node.metadata["ab_query"]` of the passage.
            node_id: the id of the passage.

        Raises:
            InputError: if there is no vote log, or the passage was not shown for this query.
        """
        return self._recorder.require_votes().pick(query, node_id)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        session = current_session()
        calls = {variant: partial(self._call, variant, query_bundle) for variant in VARIANTS}
        if self.mode == "interleave":
            nodes, results = self._interleave(*self._caller.ask(calls))
        else:
            variant, nodes, failed = self._caller.ask_assigned(session, calls)
            results = one_variant(variant, nodes, failed)
        query = self._recorder.record(self.mode, session, query_bundle.query_str, nodes, results)
        return mark_nodes(nodes, results.teams or (), query)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        session = current_session()
        calls = {variant: partial(self._acall, variant, query_bundle) for variant in VARIANTS}
        if self.mode == "interleave":
            nodes, results = self._interleave(*await self._caller.aask(calls))
        else:
            variant, nodes, failed = await self._caller.aask_assigned(session, calls)
            results = one_variant(variant, nodes, failed)
        query = await self._recorder.arecord(self.mode, session, query_bundle.query_str, nodes, results)
        return mark_nodes(nodes, results.teams or (), query)

    def _call(self, variant: Variant, bundle: QueryBundle) -> list[NodeWithScore]:
        retriever = self.a if variant == "a" else self.b
        return retriever.retrieve(without_vector(bundle))

    async def _acall(self, variant: Variant, bundle: QueryBundle) -> list[NodeWithScore]:
        retriever = self.a if variant == "a" else self.b
        # The default _aretrieve blocks the event loop, and with it the other variant.
        if type(retriever)._aretrieve is BaseRetriever._aretrieve:
            return await self._caller.run_in_thread(variant, partial(self._call, variant, bundle))
        return await retriever.aretrieve(without_vector(bundle))

    def _interleave(
        self, rankings: dict[Variant, list[NodeWithScore]], failed: dict[Variant, str]
    ) -> tuple[list[NodeWithScore], ShownResults]:
        if not rankings:
            raise both_failed(failed)
        length = self.top_k or max(map(len, rankings.values()))
        nodes, teams = team_draft(rankings.get("a", []), rankings.get("b", []), length, random.Random())
        return nodes, ShownResults(passages=[node.node_id for node in nodes], teams=teams, failed=failed)
