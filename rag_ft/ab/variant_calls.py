"""Asking one side or both, so that one that fails, hangs or blocks never takes the other down."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from rag_ft.ab.sessions import side_of
from rag_ft.errors import InputError, OutsideError, without_secrets
from rag_ft.feedback.shown_query import ShownResults
from rag_ft.feedback.variants import VARIANTS, Variant, other
from rag_ft.feedback.vote_log import Votes

logger = logging.getLogger(__name__)

T = TypeVar("T")

SIDE, QUERY = "ab_side", "ab_query"
"""What nodes and responses say of themselves: which side found them, and what to vote on."""

TIMEOUT = 30.0
"""Seconds after which a side that does not answer counts as failed."""

PATIENCE = 10.0
"""Seconds that a side has once the other one has answered, where both are shown."""

AT_ONCE = 256
"""Calls of one side that may be running: one that hangs keeps its threads, and must not take all there are."""

REASON = 200
"""Characters of why a side failed."""

QUIET = 10.0
"""Seconds between two lines of the log about one side."""


class Sides:
    """Two sides, who gets which, and what was shown of them.

    Args:
        votes: a file for what was shown and voted; nothing is kept where None.
        share: of sessions that see b.
        salt: another one deals sessions anew.
        timeout: seconds that a side has.
        patience: seconds that a side has once the other one has answered, where both are asked.

    Raises:
        InputError: where the share or a time cannot be meant.
    """

    def __init__(
        self,
        votes: str | Path | Votes | None = None,
        share: float = 0.5,
        salt: str = "",
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"share is {share:g}: give the share of sessions that see b, from 0 to 1")
        for name, seconds in (("timeout", timeout), ("patience", patience)):
            if not seconds > 0:
                raise InputError(f"{name} is {seconds:g}: give seconds, more than 0")
        self.votes = votes if isinstance(votes, Votes) or votes is None else Votes(votes)
        self.share, self.salt, self.timeout, self.patience = share, salt, timeout, patience
        self._writers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="rag_ft-ab-votes")
        self._warned: dict[Variant, float] = {}
        self._unsaid: Counter[Variant] = Counter()
        self._free = {side: threading.BoundedSemaphore(AT_ONCE) for side in VARIANTS}

    def in_turn(self, session: str) -> tuple[Variant, Variant]:
        """The session's side, then the other one."""
        first = side_of(session, self.share, self.salt)
        return first, other(first)

    def started(self, side: Variant, call: Callable[[], T]) -> Future[T]:
        """Run a call of a side in a thread of its own, which never keeps the process alive."""
        future: Future[T] = Future()
        if not self._free[side].acquire(blocking=False):
            future.set_exception(OutsideError(f"{AT_ONCE} calls of it are still running"))
            return future
        future.set_running_or_notify_cancel()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                result = context.run(call)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                self._free[side].release()

        try:
            threading.Thread(target=run, name=f"rag_ft-ab-{side}", daemon=True).start()
        except RuntimeError as error:  # no more threads
            self._free[side].release()
            future.set_exception(error)
        return future

    def ask(self, calls: Mapping[Variant, Callable[[], T]]) -> tuple[dict[Variant, T], dict[Variant, str]]:
        """(what each side said, why a side said nothing); all are asked at once."""
        began = time.monotonic()
        running = {side: self.started(side, call) for side, call in calls.items()}
        waiting, until = set(running.values()), began + self.timeout
        while waiting and (left := until - time.monotonic()) > 0:
            done, waiting = wait_for(waiting, left, FIRST_COMPLETED)
            if any(future.exception() is None for future in done):
                until = min(until, time.monotonic() + self.patience)
        return self._sorted_out({side: partial(_result, future) for side, future in running.items()}, began)

    async def aask(
        self, calls: Mapping[Variant, Callable[[], Awaitable[T]]]
    ) -> tuple[dict[Variant, T], dict[Variant, str]]:
        """The same with awaitables, in the running event loop."""
        began = time.monotonic()
        tasks = {side: asyncio.ensure_future(_awaited(call)) for side, call in calls.items()}
        waiting, until = set(tasks.values()), began + self.timeout
        try:
            while waiting and (left := until - time.monotonic()) > 0:
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if any(not task.cancelled() and task.exception() is None for task in done):
                    until = min(until, time.monotonic() + self.patience)
            return self._sorted_out({side: partial(_result, task) for side, task in tasks.items()}, began)
        finally:
            for task in tasks.values():
                task.cancel()

    async def in_thread(self, side: Variant, call: Callable[[], T]) -> T:
        """Await a call that would block the event loop."""
        return await asyncio.wrap_future(self.started(side, call))

    def _sorted_out(
        self, results: Mapping[Variant, Callable[[], T]], began: float
    ) -> tuple[dict[Variant, T], dict[Variant, str]]:
        found: dict[Variant, T] = {}
        failed: dict[Variant, str] = {}
        for side, result in results.items():
            try:
                found[side] = result()
            except _NoAnswerError:
                failed[side] = f"no answer after {time.monotonic() - began:.1f} s"
            except (Exception, asyncio.CancelledError) as error:
                failed[side] = reason_of(error)
        for side, reason in failed.items():
            self.warn(side, reason)
        return found, failed

    def warn(self, side: Variant, reason: str) -> None:
        """Say in the log that a side failed; one that goes on failing does not fill the log, the votes hold each."""
        now = time.monotonic()
        if now - self._warned.get(side, -QUIET) < QUIET:
            self._unsaid[side] += 1
            return
        more = f", and {self._unsaid[side]} times more since the last line" if self._unsaid[side] else ""
        self._warned[side], self._unsaid[side] = now, 0
        logger.warning("side %s failed (%s)%s", side, reason, more)

    def shown(self, mode: str, session: str, question: str, nodes: Sequence[NodeWithScore], **more: Any) -> str:
        """Remember what was shown; the id to vote on.

        A file that cannot be written costs votes, and no answer.
        """
        query = uuid.uuid4().hex
        if self.votes is not None:
            texts = {each.node_id: each.node.get_content(metadata_mode=MetadataMode.EMBED) for each in nodes}
            try:
                self.votes.shown(query, mode, session, question, ShownResults(**more), texts=texts)
            except Exception as error:
                logger.error("what was shown could not be kept (%s)", reason_of(error))
        return query

    async def ashown(self, mode: str, session: str, question: str, nodes: Sequence[NodeWithScore], **more: Any) -> str:
        """The same, without holding up the event loop."""
        # Not in the event loop's own threads, which a side that hangs may have taken all of.
        call = partial(self.shown, mode, session, question, nodes, **more)
        return await asyncio.get_running_loop().run_in_executor(self._writers, call)

    def broke(self, query: str, side: Variant, error: Exception) -> None:
        """Remember that a side's answer broke off."""
        reason = reason_of(error)
        self.warn(side, f"broke off: {reason}")
        if self.votes is not None:
            try:
                self.votes.failed(query, side, reason)
            except Exception as unkept:
                logger.error("a failure could not be kept (%s)", reason_of(unkept))

    def kept(self) -> Votes:
        """The votes.

        Raises:
            InputError: where they are not kept.
        """
        if self.votes is None:
            raise InputError("votes are not kept: give votes='votes.jsonl'")
        return self.votes


class _NoAnswerError(Exception):
    """A side had its time."""


def _result(running: Future[T] | asyncio.Future[T]) -> T:
    if not running.done():
        raise _NoAnswerError
    return running.result()


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


def reason_of(error: BaseException) -> str:
    """What went wrong, in a line without keys."""
    said = " ".join(str(error).split())
    return without_secrets(f"{type(error).__name__}: {said}" if said else type(error).__name__)[:REASON]


def both_failed(failed: Mapping[Variant, str]) -> OutsideError:
    """What is raised where nobody is left to answer."""
    return OutsideError(f"both sides failed: {'; '.join(f'{side}: {why}' for side, why in sorted(failed.items()))}")


def fresh(bundle: QueryBundle) -> QueryBundle:
    """The question without the vector that another model made of it."""
    return QueryBundle(
        query_str=bundle.query_str, image_path=bundle.image_path, custom_embedding_strs=bundle.custom_embedding_strs
    )


def marked(nodes: Sequence[NodeWithScore], teams: Sequence[Variant], query: str) -> list[NodeWithScore]:
    """Copies of nodes that say which side found them, to the app and not to an LLM."""
    found = []
    for each, side in zip(nodes, teams, strict=True):
        node = each.node.model_copy()
        node.metadata = {**node.metadata, SIDE: side, QUERY: query}
        node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, SIDE, QUERY]
        node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, SIDE, QUERY]
        found.append(NodeWithScore(node=node, score=each.score))
    return found
