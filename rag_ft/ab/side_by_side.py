"""Ask both variants of the page a question, and report their passages and answers as they arrive."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from rag_ft.ab.recording import Recorder
from rag_ft.ab.variant_calls import VariantCaller, reason_of
from rag_ft.feedback.shown_query import ShownResults
from rag_ft.feedback.variants import VARIANTS, Variant, other
from rag_ft.files import sha256_of

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.response_synthesizers import BaseSynthesizer

Place = Literal["left", "right"]
PLACES: tuple[Place, Place] = ("left", "right")
MODE = "page"


@dataclass(frozen=True)
class PageVariant:
    """A variant on the A/B page.

    Attributes:
        name: the displayed name.
        retriever: ranks passages.
        synthesizer: answers from the passages; no answers if None.
    """

    name: str
    retriever: BaseRetriever
    synthesizer: BaseSynthesizer | None = None


@dataclass
class SearchProgress:
    """The results of a variant so far.

    Attributes:
        nodes: the retrieved passages.
        milliseconds: duration of the search.
        answer: the answer from these passages.
        failed: the reason why there are no passages or no answer.
    """

    nodes: list[NodeWithScore] | None = None
    milliseconds: int | None = None
    answer: str | None = None
    failed: str = ""


class SideBySide:
    """Asks both variants of a page, each in its own thread, and records what was shown.

    Args:
        a: the variant in use.
        b: its possible replacement.
        caller: calls the variants.
        recorder: records what was shown.
        blind: shuffle the sides, and omit from events what could identify a variant.
    """

    def __init__(self, a: PageVariant, b: PageVariant, caller: VariantCaller, recorder: Recorder, blind: bool) -> None:
        self.variants: dict[Variant, PageVariant] = {"a": a, "b": b}
        self._caller, self._recorder, self._blind = caller, recorder, blind

    async def ask(self, question: str) -> AsyncIterator[dict[str, Any]]:
        """Yield events for the page: `passages`, `answer` and `failed` of a place as they come, `shown` at the end."""
        order = random.sample(VARIANTS, 2) if self._blind else list(VARIANTS)
        places = dict(zip(order, PLACES, strict=True))
        progress: dict[Variant, SearchProgress] = {variant: SearchProgress() for variant in VARIANTS}
        held_back: list[dict[str, Any]] = []
        async for variant, kind in self._events(question, progress):
            event = self._page_event(places[variant], kind, progress[variant])
            if self._blind:  # the order of arrival could identify a variant
                held_back.append(event)
            else:
                yield event
        for event in sorted(held_back, key=lambda event: event["place"]):
            yield event
        retrieved = {variant: search.nodes for variant, search in progress.items() if search.nodes is not None}
        if not retrieved:
            return
        results = self._results(order, retrieved, progress)
        nodes = [node for nodes in retrieved.values() for node in nodes]
        query = await self._recorder.arecord(MODE, session_of(question), question, nodes, results)
        rankings = results.rankings or {}
        yield {
            "event": "shown",
            "query": query,
            "places": [places[variant] for variant in order if variant in retrieved],
            "moved": {
                places[variant]: ranks_in_other(rankings.get(variant), rankings.get(other(variant)))
                for variant in VARIANTS
            },
        }

    def _results(
        self,
        order: list[Variant],
        retrieved: dict[Variant, list[NodeWithScore]],
        progress: dict[Variant, SearchProgress],
    ) -> ShownResults:
        return ShownResults(
            order=order,
            rankings={variant: [node.node_id for node in nodes] for variant, nodes in retrieved.items()},
            names={variant: shown.name for variant, shown in self.variants.items()},
            milliseconds={variant: progress[variant].milliseconds or 0 for variant in retrieved},
            answers={variant: search.answer for variant, search in progress.items() if search.answer is not None},
            failed={variant: search.failed for variant, search in progress.items() if search.failed},
        )

    async def _events(
        self, question: str, progress: dict[Variant, SearchProgress]
    ) -> AsyncIterator[tuple[Variant, str]]:
        """Yield (variant, kind of event) until both variants are done or out of time."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[Variant, str, dict[str, Any]]]()

        def emit(variant: Variant, kind: str, **changes: Any) -> None:
            with suppress(RuntimeError):  # the server has stopped, and its event loop is closed
                loop.call_soon_threadsafe(events.put_nowait, (variant, kind, changes))

        running = set(VARIANTS)
        for variant in VARIANTS:
            future = self._caller.start(variant, partial(self._search, variant, question, emit))
            future.add_done_callback(partial(self._emit_end, variant, emit))
        timeout, patience = self._caller.options.timeout, self._caller.options.patience
        deadline, answered = time.monotonic() + timeout, False
        while running:
            try:
                variant, kind, changes = await asyncio.wait_for(events.get(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                for variant in sorted(running):
                    progress[variant].failed = f"no answer after {timeout:g} s"
                    yield variant, "failed"
                return
            for name, value in changes.items():
                setattr(progress[variant], name, value)
            if kind in ("done", "failed"):
                running.discard(variant)
            if kind == "done" and not answered and patience < deadline - time.monotonic():
                deadline, answered = time.monotonic() + patience, True
            if kind != "done":
                yield variant, kind

    def _search(self, variant: Variant, question: str, emit: Callable[..., None]) -> None:
        """Retrieve passages and answer from them, in the thread of the variant."""
        page_variant, began = self.variants[variant], time.perf_counter()
        nodes = page_variant.retriever.retrieve(QueryBundle(question))
        emit(variant, "passages", nodes=nodes, milliseconds=round(1000 * (time.perf_counter() - began)))
        if page_variant.synthesizer is not None:
            emit(variant, "answer", answer=str(page_variant.synthesizer.synthesize(question, nodes)))

    def _emit_end(self, variant: Variant, emit: Callable[..., None], search: Future[None]) -> None:
        if (error := search.exception()) is None:
            emit(variant, "done")
        else:
            self._caller.warn(variant, reason_of(error))
            emit(variant, "failed", failed=reason_of(error))

    def _page_event(self, place: Place, kind: str, progress: SearchProgress) -> dict[str, Any]:
        event: dict[str, Any] = {"event": kind, "place": place}
        if kind == "passages":
            event["passages"] = [_passage(node) for node in progress.nodes or ()]
            if not self._blind:
                event["ms"] = progress.milliseconds
        elif kind == "answer":
            event["text"] = progress.answer
        else:  # the reason may name the model
            event["reason"] = "see the log in the terminal" if self._blind else progress.failed
        return event


def _passage(scored: NodeWithScore) -> dict[str, Any]:
    node = scored.node
    return {
        "id": node.node_id,
        "document": str(node.metadata.get("title") or node.ref_doc_id or node.node_id),
        "text": node.get_content(metadata_mode=MetadataMode.NONE),
    }


def ranks_in_other(ranking: Sequence[str] | None, other: Sequence[str] | None) -> list[int | None]:
    """Return the rank, from 1, of each passage in the other ranking; None if it is not there.

    Example:
        >>> from rag_ft.ab.side_by_side import ranks_in_other
        >>> ranks_in_other(["x", "y"], ["y", "z"])
        [None, 1]
    """
    ranks = {key: rank for rank, key in reversed(list(enumerate(other or (), 1)))}
    return [ranks.get(key) for key in ranking or ()]


def session_of(question: str) -> str:
    """Return the session of a vote on the page. It is the question, since only a few people vote there."""
    return f"question:{sha256_of(' '.join(question.casefold().split()).encode('utf-8', 'replace'))[:16]}"
