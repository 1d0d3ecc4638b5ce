"""Two query engines as one, in an app."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import QueryBundle

from rag_ft.ab.sessions import current_session
from rag_ft.ab.streams import abegun, awhole, begun, watched, whole
from rag_ft.ab.variant_calls import PATIENCE, QUERY, SIDE, TIMEOUT, Sides, both_failed, fresh, marked
from rag_ft.errors import InputError
from rag_ft.feedback.variants import VARIANTS, Preference, Variant
from rag_ft.feedback.vote_log import Votes

if TYPE_CHECKING:
    from llama_index.core.base.response.schema import RESPONSE_TYPE


class ABQueryEngine(BaseQueryEngine):
    """Two query engines as one.

    - `split`: each user or session (`ab_session`) is answered by one side, always the same. What the side streams is
      streamed; a side that fails before its first word is left out.
    - `side-by-side`: both answer; the response holds both texts, without saying which is whose, in an order that a coin
      decides. `response.metadata["ab_order"]` says it to the app, `vote` takes what a person prefers. Streams are read
      to their end.

    A side that fails or does not answer in time is left out, and the other one is served.

    Args:
        a: the engine in use.
        b: the one that may replace it.
        mode: `split` or `side-by-side`.
        votes: a file for what was shown and voted (`Votes`); nothing is kept where None.
        share: of sessions that see b.
        salt: another one deals sessions anew.
        timeout: seconds that a side has.
        patience: seconds that a side has once the other one has answered, where both are shown.

    Raises:
        InputError: where the mode or the share cannot be meant.
        OutsideError: by `query`, where both sides fail.

    Example:
        >>> from llama_index.core.query_engine import CustomQueryEngine
        >>> from rag_ft.ab import ABQueryEngine
        >>> class Says(CustomQueryEngine):
        ...     word: str
        ...     def custom_query(self, query_str):
        ...         return self.word
        >>> both = ABQueryEngine(Says(word="yes"), Says(word="no"), mode="side-by-side")
        >>> sorted(both.query("Is it?").metadata["ab_answers"].items())
        [('a', 'yes'), ('b', 'no')]
    """

    def __init__(
        self,
        a: BaseQueryEngine,
        b: BaseQueryEngine,
        mode: Literal["split", "side-by-side"] = "split",
        *,
        votes: str | Path | Votes | None = None,
        share: float = 0.5,
        salt: str = "",
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
        callback_manager: Any = None,
    ) -> None:
        if mode not in ("split", "side-by-side"):
            raise InputError(f"mode is {mode!r}: give 'split' or 'side-by-side'")
        super().__init__(callback_manager=callback_manager)
        self.a, self.b, self.mode = a, b, mode
        self._sides = Sides(votes, share, salt, timeout, patience)

    @property
    def votes(self) -> Votes | None:
        """What was shown and voted."""
        return self._sides.votes

    def vote(self, query: str, better: Preference) -> None:
        """Somebody prefers a side.

        Args:
            query: `response.metadata["ab_query"]`.
            better: `a`, `b`, `tie`, or `neither` where none is any good. In `split`, where a person sees one side
                alone, the side that was seen for a good answer, and the other one for a bad one.

        Raises:
            InputError: where votes are not kept, or nothing was shown under this id.
        """
        self._sides.kept().vote(query, better)

    def pick(self, query: str, node_id: str, side: Variant | None = None) -> Variant | None:
        """Somebody used a passage that an answer rests on; the side that gets the credit.

        Args:
            query: `response.metadata["ab_query"]`.
            node_id: of one of `response.source_nodes`.
            side: among whose passages it was picked, where both have it.

        Raises:
            InputError: where votes are not kept, or nothing was shown under this id, or not this passage.
        """
        return self._sides.kept().pick(query, node_id, side)

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b}

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        session, question = current_session(), query_bundle.query_str
        ready = begun if self.mode == "split" else whole
        calls = {side: self._call(side, query_bundle, ready) for side in VARIANTS}
        if self.mode == "side-by-side":
            found, failed = self._sides.ask(calls)
            nodes, told = _both(found, failed)
            return _side_by_side(found, told, self._sides.shown("side-by-side", session, question, nodes, **told))
        failed = {}
        for side in self._sides.in_turn(session):
            found, why = self._sides.ask({side: calls[side]})
            failed |= why
            if side in found:
                told = _one(found[side], side, failed)
                query = self._sides.shown("split", session, question, found[side].source_nodes, **told)
                return self._served(found[side], side, query)
        raise both_failed(failed)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        session, question = current_session(), query_bundle.query_str
        calls = {side: self._acall(side, query_bundle) for side in VARIANTS}
        if self.mode == "side-by-side":
            found, failed = await self._sides.aask(calls)
            nodes, told = _both(found, failed)
            query = await self._sides.ashown("side-by-side", session, question, nodes, **told)
            return _side_by_side(found, told, query)
        failed = {}
        for side in self._sides.in_turn(session):
            found, why = await self._sides.aask({side: calls[side]})
            failed |= why
            if side in found:
                told = _one(found[side], side, failed)
                query = await self._sides.ashown("split", session, question, found[side].source_nodes, **told)
                return self._served(found[side], side, query)
        raise both_failed(failed)

    def _call(self, side: Variant, bundle: QueryBundle, ready: Callable[[Any], Any]) -> Callable[[], Any]:
        engine = self.a if side == "a" else self.b
        return lambda: ready(engine.query(fresh(bundle)))

    def _acall(self, side: Variant, bundle: QueryBundle) -> Callable[[], Awaitable[Any]]:
        engine = self.a if side == "a" else self.b
        ready = abegun if self.mode == "split" else awhole

        async def call() -> Any:
            # An engine without an asynchronous form of its own would block the event loop, and the other side with it.
            if _blocks(engine):
                return await ready(await self._sides.in_thread(side, lambda: engine.query(fresh(bundle))))
            return await ready(await engine.aquery(fresh(bundle)))

        return call

    def _served(self, response: Any, side: Variant, query: str) -> RESPONSE_TYPE:
        response.metadata = {**(response.metadata or {}), SIDE: side, QUERY: query}
        return watched(response, lambda error: self._sides.broke(query, side, error))


def _blocks(engine: BaseQueryEngine) -> bool:
    return isinstance(engine, CustomQueryEngine) and type(engine).acustom_query is CustomQueryEngine.acustom_query


def _one(response: Any, side: Variant, failed: dict[Variant, str]) -> dict[str, Any]:
    passages = [node.node_id for node in response.source_nodes]
    return {"passages": passages, "teams": [side] * len(passages), "variant": side, "failed": failed}


def _both(found: dict[Variant, Any], failed: dict[Variant, str]) -> tuple[list[Any], dict[str, Any]]:
    """(the passages of both, what is kept of them)."""
    if not found:
        raise both_failed(failed)
    order = list(found)
    random.shuffle(order)
    rankings = {side: [node.node_id for node in response.source_nodes] for side, response in found.items()}
    nodes = [node for response in found.values() for node in response.source_nodes]
    return nodes, {"order": order, "rankings": rankings, "failed": failed}


def _side_by_side(found: dict[Variant, Any], told: dict[str, Any], query: str) -> RESPONSE_TYPE:
    order = told["order"]
    texts = {side: str(response) for side, response in found.items()}
    text = texts[order[0]] if len(order) == 1 else f"1. {texts[order[0]]}\n\n2. {texts[order[1]]}"
    nodes = [
        node
        for side in order
        for node in marked(found[side].source_nodes, [side] * len(found[side].source_nodes), query)
    ]
    return Response(text, nodes, {QUERY: query, "ab_order": order, "ab_answers": texts})
