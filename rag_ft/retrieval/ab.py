"""Two retrievers, or two query engines, side by side in an app: who is asked, who is seen, and what people pick."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, QueryBundle

from rag_ft.errors import InputError
from rag_ft.retrieval.votes import Votes

if TYPE_CHECKING:
    from llama_index.core.base.response.schema import RESPONSE_TYPE

logger = logging.getLogger(__name__)

T = TypeVar("T")
Side = Literal["a", "b"]
SIDES: tuple[Side, Side] = ("a", "b")

SIDE, QUERY = "ab_side", "ab_query"
"""What nodes and responses say of themselves: which side found them, and what to vote on."""

TIMEOUT = 30.0
"""Seconds after which a side that does not answer counts as failed."""

_session: contextvars.ContextVar[str | None] = contextvars.ContextVar("rag_ft_ab_session", default=None)


@contextlib.contextmanager
def ab_session(name: str) -> Iterator[None]:
    """Who asks, for the block: a user or a session that always gets the same side.

    Example:
        >>> from rag_ft import ab_session
        >>> with ab_session("user-42"):
        ...     pass  # query_engine.query(...)
    """
    token = _session.set(name)
    try:
        yield
    finally:
        _session.reset(token)


def side_of(session: str, share: float = 0.5, salt: str = "") -> Side:
    """The side of a user or session: always the same one, and as many on each as the share says.

    Args:
        session: any name.
        share: of sessions that see b.
        salt: another one deals sessions anew.

    Example:
        >>> from rag_ft.retrieval.ab import side_of
        >>> side_of("user-42") == side_of("user-42")
        True
    """
    place = int.from_bytes(hashlib.sha256(f"{salt}\0{session}".encode()).digest()[:8]) / 2**64
    return "b" if place < share else "a"


class _Pair:
    """What the retriever and the engine have in common: asking one side or both, and remembering it."""

    def __init__(self, votes: str | Path | Votes | None, share: float, salt: str, timeout: float) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"share is {share:g}: give the share of sessions that see b, from 0 to 1")
        self.votes = votes if isinstance(votes, Votes) or votes is None else Votes(votes)
        self.share, self.salt, self.timeout = share, salt, timeout
        # Threads of its own: a side that hangs must not hold up the app's.
        self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="rag_ft-ab")

    def session(self) -> str:
        return _session.get() or uuid.uuid4().hex

    def both(self, calls: dict[Side, Callable[[], T]]) -> tuple[dict[Side, T], dict[Side, str]]:
        """(what each side said, why a side said nothing); both are asked at once."""
        began = time.monotonic()
        context = {side: contextvars.copy_context() for side in calls}
        running: dict[Side, Future[T]] = {
            side: self._pool.submit(context[side].run, call) for side, call in calls.items()
        }
        wait_for(running.values(), timeout=self.timeout)
        return self._sorted_out({side: partial(future.result, 0) for side, future in running.items()}, began)

    async def aboth(self, calls: dict[Side, Callable[[], Any]]) -> tuple[dict[Side, Any], dict[Side, str]]:
        """The same with awaitables."""
        began = time.monotonic()
        tasks = {side: asyncio.ensure_future(call()) for side, call in calls.items()}
        done, _ = await asyncio.wait(tasks.values(), timeout=self.timeout)

        def result(task: asyncio.Future[Any]) -> Any:
            if task not in done:
                task.cancel()
                raise TimeoutError
            return task.result()

        return self._sorted_out({side: partial(result, task) for side, task in tasks.items()}, began)

    def _sorted_out(
        self, results: dict[Side, Callable[[], Any]], began: float
    ) -> tuple[dict[Side, Any], dict[Side, str]]:
        found: dict[Side, Any] = {}
        failed: dict[Side, str] = {}
        for side, result in results.items():
            try:
                found[side] = result()
            except TimeoutError:
                failed[side] = f"no answer after {time.monotonic() - began:.0f} s"
            except Exception as error:
                failed[side] = f"{type(error).__name__}: {error}"[:200]
        for side, reason in failed.items():
            logger.warning("side %s failed (%s)%s", side, reason, "" if found else ": both did")
        return found, failed

    def in_turn(self, session: str) -> tuple[Side, Side]:
        """The session's side, then the other one."""
        first = side_of(session, self.share, self.salt)
        return (first, "b" if first == "a" else "a")

    def shown(self, mode: str, session: str, question: str, **more: Any) -> str:
        """Remember what was shown; the id to vote on."""
        query = uuid.uuid4().hex
        if self.votes is not None:
            self.votes.shown(query, mode, session, question, **more)
        return query


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

    Raises:
        InputError: where the mode or the share cannot be meant.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> from llama_index.core.retrievers import BaseRetriever
        >>> from rag_ft import ABRetriever
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
        **kwargs: Any,
    ) -> None:
        if mode not in ("split", "interleave"):
            raise InputError(f"mode is {mode!r}: give 'split' or 'interleave'")
        super().__init__(**kwargs)
        self.a, self.b, self.mode, self.top_k = a, b, mode, top_k
        self._pair = _Pair(votes, share, salt, timeout)

    @property
    def votes(self) -> Votes | None:
        """What was shown and picked."""
        return self._pair.votes

    def pick(self, query: str, node_id: str) -> Side | None:
        """Somebody used this passage; the side that gets the credit.

        Args:
            query: `node.metadata["ab_query"]` of the passage.
            node_id: its id.
        """
        return self._votes().pick(query, node_id)

    def _votes(self) -> Votes:
        if self._pair.votes is None:
            raise InputError("votes are not kept: give ABRetriever(..., votes='votes.jsonl')")
        return self._pair.votes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        session = self._pair.session()
        calls = {side: self._call(side, query_bundle) for side in SIDES}
        if self.mode == "interleave":
            return self._interleaved(session, query_bundle, *self._pair.both(calls))
        failed: dict[Side, str] = {}
        for side in self._pair.in_turn(session):
            found, why = self._pair.both({side: calls[side]})
            failed |= why
            if side in found:
                return self._seen(session, query_bundle, side, found[side], failed)
        raise RuntimeError(f"both sides failed: {failed}")

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        session = self._pair.session()
        calls = {side: self._acall(side, query_bundle) for side in SIDES}
        if self.mode == "interleave":
            return self._interleaved(session, query_bundle, *await self._pair.aboth(calls))
        failed: dict[Side, str] = {}
        for side in self._pair.in_turn(session):
            found, why = await self._pair.aboth({side: calls[side]})
            failed |= why
            if side in found:
                return self._seen(session, query_bundle, side, found[side], failed)
        raise RuntimeError(f"both sides failed: {failed}")

    def _call(self, side: Side, bundle: QueryBundle) -> Callable[[], list[NodeWithScore]]:
        retriever = self.a if side == "a" else self.b
        # A bundle keeps the vector of whoever asked first: each side gets its own.
        return lambda: retriever.retrieve(fresh(bundle))

    def _acall(self, side: Side, bundle: QueryBundle) -> Callable[[], Any]:
        retriever = self.a if side == "a" else self.b
        return lambda: retriever.aretrieve(fresh(bundle))

    def _seen(
        self, session: str, bundle: QueryBundle, side: Side, nodes: list[NodeWithScore], failed: dict[Side, str]
    ) -> list[NodeWithScore]:
        teams: list[Side] = [side] * len(nodes)
        query = self._pair.shown(
            "split", session, bundle.query_str, passages=[node.node_id for node in nodes], teams=teams, side=side,
            failed=failed,
        )  # fmt: skip
        return marked(nodes, teams, query)

    def _interleaved(
        self, session: str, bundle: QueryBundle, found: dict[Side, list[NodeWithScore]], failed: dict[Side, str]
    ) -> list[NodeWithScore]:
        if not found:
            raise RuntimeError(f"both sides failed: {failed}")
        length = self.top_k or max(map(len, found.values()))
        nodes, teams = team_draft(found.get("a", []), found.get("b", []), length, random.Random())
        query = self._pair.shown(
            "interleave", session, bundle.query_str, passages=[node.node_id for node in nodes], teams=teams,
            failed=failed,
        )  # fmt: skip
        return marked(nodes, teams, query)


class ABQueryEngine(BaseQueryEngine):
    """Two query engines as one.

    - `split`: each user or session (`ab_session`) is answered by one side, always the same.
    - `side-by-side`: both answer; the response holds both texts, without saying which is whose, in an order that a coin
      decides. `response.metadata["ab_order"]` says it to the app, `vote` takes what a person prefers.

    A side that fails or does not answer in time is left out, and the other one is served.

    Args:
        a: the engine in use.
        b: the one that may replace it.
        mode: `split` or `side-by-side`.
        votes: a file for what was shown and voted (`Votes`); nothing is kept where None.
        share: of sessions that see b.
        salt: another one deals sessions anew.
        timeout: seconds that a side has.

    Raises:
        InputError: where the mode or the share cannot be meant.
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
        callback_manager: Any = None,
    ) -> None:
        if mode not in ("split", "side-by-side"):
            raise InputError(f"mode is {mode!r}: give 'split' or 'side-by-side'")
        super().__init__(callback_manager=callback_manager)
        self.a, self.b, self.mode = a, b, mode
        self._pair = _Pair(votes, share, salt, timeout)

    @property
    def votes(self) -> Votes | None:
        """What was shown and voted."""
        return self._pair.votes

    def vote(self, query: str, better: Side | Literal["tie"]) -> None:
        """Somebody prefers a side.

        Args:
            query: `response.metadata["ab_query"]`.
            better: `a`, `b` or `tie`.

        Raises:
            InputError: where votes are not kept, or nothing was shown under this id.
        """
        if self._pair.votes is None:
            raise InputError("votes are not kept: give ABQueryEngine(..., votes='votes.jsonl')")
        self._pair.votes.vote(query, better)

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b}

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        session = self._pair.session()
        calls: dict[Side, Callable[[], Any]] = {
            "a": lambda: self.a.query(fresh(query_bundle)),
            "b": lambda: self.b.query(fresh(query_bundle)),
        }
        if self.mode == "side-by-side":
            return self._side_by_side(session, query_bundle, *self._pair.both(calls))
        failed: dict[Side, str] = {}
        for side in self._pair.in_turn(session):
            found, why = self._pair.both({side: calls[side]})
            failed |= why
            if side in found:
                return self._served(session, query_bundle, side, found[side], failed)
        raise RuntimeError(f"both sides failed: {failed}")

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        session = self._pair.session()
        calls: dict[Side, Callable[[], Any]] = {
            "a": lambda: self.a.aquery(fresh(query_bundle)),
            "b": lambda: self.b.aquery(fresh(query_bundle)),
        }
        if self.mode == "side-by-side":
            return self._side_by_side(session, query_bundle, *await self._pair.aboth(calls))
        failed: dict[Side, str] = {}
        for side in self._pair.in_turn(session):
            found, why = await self._pair.aboth({side: calls[side]})
            failed |= why
            if side in found:
                return self._served(session, query_bundle, side, found[side], failed)
        raise RuntimeError(f"both sides failed: {failed}")

    def _served(
        self, session: str, bundle: QueryBundle, side: Side, response: Any, failed: dict[Side, str]
    ) -> RESPONSE_TYPE:
        query = self._pair.shown("split", session, bundle.query_str, side=side, failed=failed)
        response.metadata = {**(response.metadata or {}), SIDE: side, QUERY: query}
        return response

    def _side_by_side(
        self, session: str, bundle: QueryBundle, found: dict[Side, Any], failed: dict[Side, str]
    ) -> RESPONSE_TYPE:
        if not found:
            raise RuntimeError(f"both sides failed: {failed}")
        order = list(found)
        random.shuffle(order)
        query = self._pair.shown("side-by-side", session, bundle.query_str, order=order, failed=failed)
        texts = {side: str(response) for side, response in found.items()}  # a stream is read to its end
        text = texts[order[0]] if len(order) == 1 else f"1. {texts[order[0]]}\n\n2. {texts[order[1]]}"
        nodes = [node for side in order for node in marked(found[side].source_nodes, None, query, side)]
        return Response(text, nodes, {QUERY: query, "ab_order": order, "ab_answers": texts})


def fresh(bundle: QueryBundle) -> QueryBundle:
    """The question without the vector that another model made of it."""
    return QueryBundle(
        query_str=bundle.query_str, image_path=bundle.image_path, custom_embedding_strs=bundle.custom_embedding_strs
    )


def marked(
    nodes: Sequence[NodeWithScore], teams: Sequence[Side] | None, query: str, side: Side = "a"
) -> list[NodeWithScore]:
    """Copies of nodes that say which side found them, to the app and not to an LLM."""
    found = []
    for place, each in enumerate(nodes):
        node = each.node.model_copy()
        node.metadata = {**node.metadata, SIDE: teams[place] if teams is not None else side, QUERY: query}
        node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, SIDE, QUERY]
        node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, SIDE, QUERY]
        found.append(NodeWithScore(node=node, score=each.score))
    return found


def team_draft(
    a: Sequence[NodeWithScore], b: Sequence[NodeWithScore], length: int, draw: random.Random
) -> tuple[list[NodeWithScore], list[Side]]:
    """Interleave two rankings; (the list, who picked each).

    Args:
        a: one ranking, best first.
        b: the other one.
        length: of the list, at most.
        draw: whose coin decides who picks first in a round.
    """
    rest: dict[Side, list[NodeWithScore]] = {"a": list(a), "b": list(b)}
    nodes: list[NodeWithScore] = []
    teams: list[Side] = []
    taken: set[str] = set()
    while len(nodes) < length and any(rest.values()):
        for side in draw.sample(SIDES, 2):
            while rest[side] and rest[side][0].node_id in taken:
                rest[side].pop(0)
            if rest[side] and len(nodes) < length:
                node = rest[side].pop(0)
                taken.add(node.node_id)
                nodes.append(node)
                teams.append(side)
    return nodes, teams
