"""Two query engines as one, for an A/B test in an app."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle

from rag_ft.ab.options import ABOptions
from rag_ft.ab.recording import QUERY_KEY, VARIANT_KEY, Recorder, mark_nodes, one_variant
from rag_ft.ab.sessions import current_session
from rag_ft.ab.streams import aread_all, astart_stream, read_all, start_stream, watch_stream
from rag_ft.ab.variant_calls import VariantCaller, both_failed, reason_of, without_vector
from rag_ft.errors import InputError
from rag_ft.feedback.shown_query import ShownResults
from rag_ft.feedback.variants import VARIANTS, Preference, Variant
from rag_ft.feedback.vote_log import Votes

if TYPE_CHECKING:
    from llama_index.core.base.response.schema import RESPONSE_TYPE


class ABQueryEngine(BaseQueryEngine):
    """Two query engines as one.

    - `split`: the same variant always answers a user or session (`ab_session`). Streaming responses are passed
      through; if a variant fails before its first token, the other one answers.
    - `side-by-side`: both variants answer. The response contains both texts in random order, without their variants;
      `response.metadata["ab_order"]` tells the app which is which, and `vote` records what a person prefers. Streams
      are read to the end.

    A variant that fails or does not answer in time is left out, and the other one answers.

    Args:
        a: the engine in use.
        b: its possible replacement.
        mode: `split` or `side-by-side`.
        votes: the vote log or its file; nothing is recorded if None.
        options: how sessions are assigned, and how long a variant may take.
        callback_manager: LlamaIndex's callback manager.

    Raises:
        InputError: if the mode is unknown.
        OutsideError: by `query`, if both variants fail.

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
        options: ABOptions | None = None,
        callback_manager: Any = None,
    ) -> None:
        if mode not in ("split", "side-by-side"):
            raise InputError(f"mode is {mode!r}: use 'split' or 'side-by-side'")
        super().__init__(callback_manager=callback_manager)
        self.a, self.b, self.mode = a, b, mode
        self._caller, self._recorder = VariantCaller(options), Recorder(votes)

    @property
    def votes(self) -> Votes | None:
        """The vote log."""
        return self._recorder.votes

    def vote(self, query: str, better: Preference) -> None:
        """Record which variant a person prefers.

        Args:
            query: `response.metadata["ab_query"]`.
            better: `a`, `b`, `tie`, or `neither` if both are bad. In `split` mode a person sees one variant: pass that
                variant for a good answer and the other one for a bad answer.

        Raises:
            InputError: if there is no vote log, or it does not contain the query.
        """
        self._recorder.require_votes().vote(query, better)

    def pick(self, query: str, node_id: str, variant: Variant | None = None) -> Variant | None:
        """Record that a person used a source passage of an answer, and return the variant that gets the credit.

        Args:
            query: `response.metadata["ab_query"]`.
            node_id: the id of one of `response.source_nodes`.
            variant: the variant whose list it was picked from, if both found it.

        Raises:
            InputError: if there is no vote log, or the passage was not shown for this query.
        """
        return self._recorder.require_votes().pick(query, node_id, variant)

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b}

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        session, question = current_session(), query_bundle.query_str
        calls = {variant: partial(self._call, variant, query_bundle) for variant in VARIANTS}
        if self.mode == "split":
            variant, response, failed = self._caller.ask_assigned(session, calls)
            results = one_variant(variant, response.source_nodes, failed)
            query = self._recorder.record("split", session, question, response.source_nodes, results)
            return self._served(response, variant, query)
        responses, failed = self._caller.ask(calls)
        nodes, results = _both_answers(responses, failed)
        query = self._recorder.record("side-by-side", session, question, nodes, results)
        return _side_by_side(responses, results.order or (), query)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        session, question = current_session(), query_bundle.query_str
        calls = {variant: partial(self._acall, variant, query_bundle) for variant in VARIANTS}
        if self.mode == "split":
            variant, response, failed = await self._caller.aask_assigned(session, calls)
            results = one_variant(variant, response.source_nodes, failed)
            query = await self._recorder.arecord("split", session, question, response.source_nodes, results)
            return self._served(response, variant, query)
        responses, failed = await self._caller.aask(calls)
        nodes, results = _both_answers(responses, failed)
        query = await self._recorder.arecord("side-by-side", session, question, nodes, results)
        return _side_by_side(responses, results.order or (), query)

    def _call(self, variant: Variant, bundle: QueryBundle) -> Any:
        response = self._engine(variant).query(without_vector(bundle))
        return start_stream(response) if self.mode == "split" else read_all(response)

    async def _acall(self, variant: Variant, bundle: QueryBundle) -> Any:
        engine = self._engine(variant)
        # The default acustom_query blocks the event loop, and with it the other variant.
        if isinstance(engine, CustomQueryEngine) and type(engine).acustom_query is CustomQueryEngine.acustom_query:
            return await self._caller.run_in_thread(variant, partial(self._call, variant, bundle))
        response = await engine.aquery(without_vector(bundle))
        return await (astart_stream(response) if self.mode == "split" else aread_all(response))

    def _engine(self, variant: Variant) -> BaseQueryEngine:
        return self.a if variant == "a" else self.b

    def _served(self, response: Any, variant: Variant, query: str) -> RESPONSE_TYPE:
        def on_break(error: Exception) -> None:
            reason = reason_of(error)
            self._caller.warn(variant, f"broke off: {reason}")
            self._recorder.record_failure(query, variant, reason)

        response.metadata = {**(response.metadata or {}), VARIANT_KEY: variant, QUERY_KEY: query}
        return watch_stream(response, on_break)


def _both_answers(
    responses: dict[Variant, Any], failed: dict[Variant, str]
) -> tuple[list[NodeWithScore], ShownResults]:
    """Return (the passages of both answers, the results to record), with the answers in random order."""
    if not responses:
        raise both_failed(failed)
    order = list(responses)
    random.shuffle(order)
    rankings = {variant: [node.node_id for node in response.source_nodes] for variant, response in responses.items()}
    nodes = [node for response in responses.values() for node in response.source_nodes]
    return nodes, ShownResults(order=order, rankings=rankings, failed=failed)


def _side_by_side(responses: dict[Variant, Any], order: Sequence[Variant], query: str) -> RESPONSE_TYPE:
    texts = {variant: str(response) for variant, response in responses.items()}
    text = texts[order[0]] if len(order) == 1 else f"1. {texts[order[0]]}\n\n2. {texts[order[1]]}"
    nodes = [
        node
        for variant in order
        for node in mark_nodes(responses[variant].source_nodes, [variant] * len(responses[variant].source_nodes), query)
    ]
    return Response(text, nodes, {QUERY_KEY: query, "ab_order": order, "ab_answers": texts})
