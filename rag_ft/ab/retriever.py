"""Two retrievers as one, in an app."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from rag_ft.ab.interleaving import team_draft
from rag_ft.ab.sessions import current_session
from rag_ft.ab.variant_calls import PATIENCE, TIMEOUT, Sides, both_failed, fresh, marked
from rag_ft.errors import InputError
from rag_ft.feedback.variants import VARIANTS, Variant
from rag_ft.feedback.vote_log import Votes


class ABRetriever(BaseRetriever):
    """Two retrievers as one.

    - `split`: each user or session (`ab_session`) sees one side, always the same.
    - `interleave`: both rankings as one list, by team draft (Radlinski, Kurup and Joachims 2008): in each round the
      sides pick in an order that a coin decides, each its best passage that is not there yet; who picked a passage
      gets the credit when a person picks it (`pick`).

    A side that fails or does not answer in time is left out, and the other one is seen; what was shown and what
    people picked is written to a file, one line each, before the answer is given.

    Args:
        a: the retriever in use.
        b: the one that may replace it.
        mode: `split` or `interleave`.
        votes: a file for what was shown and picked (`Votes`); nothing is kept where None.
        top_k: passages of an interleaved list; as many as the longer side has where None.
        share: of sessions that see b.
        salt: another one deals sessions anew.
        timeout: seconds that a side has.
        patience: seconds that a side has once the other one has answered, where both are shown.

    Raises:
        InputError: where the mode or the share cannot be meant.
        OutsideError: by `retrieve`, where both sides fail.

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
        share: float = 0.5,
        salt: str = "",
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
        **kwargs: Any,
    ) -> None:
        if mode not in ("split", "interleave"):
            raise InputError(f"mode is {mode!r}: give 'split' or 'interleave'")
        super().__init__(**kwargs)
        self.a, self.b, self.mode, self.top_k = a, b, mode, top_k
        self._sides = Sides(votes, share, salt, timeout, patience)

    @property
    def votes(self) -> Votes | None:
        """What was shown and picked."""
        return self._sides.votes

    def pick(self, query: str, node_id: str) -> Variant | None:
        """Somebody used this passage; the side that gets the credit.

        Args:
            query: `node.metadata["ab_query"]` of the passage.
            node_id: its id.

        Raises:
            InputError: where votes are not kept, or nothing was shown under this id, or not this passage.
        """
        return self._sides.kept().pick(query, node_id)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        session = current_session()
        calls = {side: self._call(side, query_bundle) for side in VARIANTS}
        if self.mode == "interleave":
            nodes, told = self._interleaved(*self._sides.ask(calls))
            return marked(
                nodes, told["teams"], self._sides.shown("interleave", session, query_bundle.query_str, nodes, **told)
            )
        failed: dict[Variant, str] = {}
        for side in self._sides.in_turn(session):
            found, why = self._sides.ask({side: calls[side]})
            failed |= why
            if side in found:
                told = _served(found[side], side, failed)
                query = self._sides.shown("split", session, query_bundle.query_str, found[side], **told)
                return marked(found[side], told["teams"], query)
        raise both_failed(failed)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        session = current_session()
        calls = {side: self._acall(side, query_bundle) for side in VARIANTS}
        if self.mode == "interleave":
            nodes, told = self._interleaved(*await self._sides.aask(calls))
            query = await self._sides.ashown("interleave", session, query_bundle.query_str, nodes, **told)
            return marked(nodes, told["teams"], query)
        failed: dict[Variant, str] = {}
        for side in self._sides.in_turn(session):
            found, why = await self._sides.aask({side: calls[side]})
            failed |= why
            if side in found:
                told = _served(found[side], side, failed)
                query = await self._sides.ashown("split", session, query_bundle.query_str, found[side], **told)
                return marked(found[side], told["teams"], query)
        raise both_failed(failed)

    def _call(self, side: Variant, bundle: QueryBundle) -> Callable[[], list[NodeWithScore]]:
        retriever = self.a if side == "a" else self.b
        # A bundle keeps the vector of whoever asked first: each side gets its own.
        return lambda: retriever.retrieve(fresh(bundle))

    def _acall(self, side: Variant, bundle: QueryBundle) -> Callable[[], Awaitable[list[NodeWithScore]]]:
        retriever = self.a if side == "a" else self.b
        # A retriever without an asynchronous form of its own would block the event loop, and the other side with it.
        if type(retriever)._aretrieve is BaseRetriever._aretrieve:
            return lambda: self._sides.in_thread(side, self._call(side, bundle))
        return lambda: retriever.aretrieve(fresh(bundle))

    def _interleaved(
        self, found: dict[Variant, list[NodeWithScore]], failed: dict[Variant, str]
    ) -> tuple[list[NodeWithScore], dict[str, Any]]:
        if not found:
            raise both_failed(failed)
        length = self.top_k or max(map(len, found.values()))
        nodes, teams = team_draft(found.get("a", []), found.get("b", []), length, random.Random())
        return nodes, {"passages": [node.node_id for node in nodes], "teams": teams, "failed": failed}


def _served(nodes: list[NodeWithScore], side: Variant, failed: dict[Variant, str]) -> dict[str, Any]:
    return {
        "passages": [node.node_id for node in nodes],
        "teams": [side] * len(nodes),
        "variant": side,
        "failed": failed,
    }
