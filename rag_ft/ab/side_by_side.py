"""One question, two sides: what each finds and answers, as it comes, and what moved between them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from rag_ft.ab.variant_calls import Sides, reason_of
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
    """A side of the page.

    Attributes:
        name: as people know it.
        retriever: what ranks.
        synthesizer: what answers from the passages; None where nobody does.
    """

    name: str
    retriever: BaseRetriever
    synthesizer: BaseSynthesizer | None = None


@dataclass
class Look:
    """What a side found and said, as far as it has come."""

    nodes: list[NodeWithScore] | None = None
    milliseconds: int | None = None
    answer: str | None = None
    failed: str = ""


class Looking:
    """Asks both sides of a page, each in a thread of its own, and keeps what was shown.

    Args:
        a: a side.
        b: the other one.
        sides: how they are asked, and where votes are kept.
        blind: whether the sides are shuffled, and nothing is told that gives them away.
    """

    def __init__(self, a: PageVariant, b: PageVariant, sides: Sides, blind: bool) -> None:
        self.side: dict[Variant, PageVariant] = {"a": a, "b": b}
        self.sides, self.blind = sides, blind

    async def ask(self, question: str) -> AsyncIterator[dict[str, Any]]:
        """Events for the page: `passages`, `answer` and `failed` of a place as they come, and `shown` in the end."""
        order = random.sample(VARIANTS, 2) if self.blind else list(VARIANTS)
        place = dict(zip(order, PLACES, strict=True))
        looks: dict[Variant, Look] = {side: Look() for side in VARIANTS}
        held: list[dict[str, Any]] = []
        async for side, event in self._events(question, looks):
            told = self._told(place[side], event, looks[side])
            if self.blind:  # who comes first gives a side away
                held.append(told)
            else:
                yield told
        for told in sorted(held, key=lambda event: event["place"]):
            yield told
        found = {side: look for side, look in looks.items() if look.nodes is not None}
        if not found:
            return
        rankings = {side: [node.node_id for node in look.nodes or ()] for side, look in found.items()}
        query = await self.sides.ashown(
            MODE,
            session_of(question),
            question,
            [node for look in found.values() for node in look.nodes or ()],
            order=order,
            rankings=rankings,
            names={side: each.name for side, each in self.side.items()},
            milliseconds={side: look.milliseconds for side, look in found.items()},
            answers={side: look.answer for side, look in found.items() if look.answer is not None},
            failed={side: look.failed for side, look in looks.items() if look.failed},
        )
        yield {
            "event": "shown",
            "query": query,
            "places": [place[side] for side in order if side in found],
            "moved": {place[side]: moves(rankings.get(side), rankings.get(other(side))) for side in VARIANTS},
        }

    async def _events(self, question: str, looks: dict[Variant, Look]) -> AsyncIterator[tuple[Variant, str]]:
        """(side, what is new of it); ends when both are done or have had their time."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[Variant, str]]()

        def put(side: Variant, event: str, change: dict[str, Any]) -> None:
            if side in running:  # what comes after its time is not shown any more
                for name, value in change.items():
                    setattr(looks[side], name, value)
                events.put_nowait((side, event))

        def tell(side: Variant, event: str, **change: Any) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile, and its loop with it
                loop.call_soon_threadsafe(put, side, event, change)

        running = set(VARIANTS)
        for side in VARIANTS:
            future = self.sides.started(side, partial(self._look, side, question, tell))
            future.add_done_callback(partial(_ended, side, tell, self.sides.warn))
        until, answered = time.monotonic() + self.sides.timeout, False
        while running:
            try:
                side, event = await asyncio.wait_for(events.get(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                for side in sorted(running):
                    looks[side].failed = f"no answer after {self.sides.timeout:g} s"
                    yield side, "failed"
                return
            if event in ("done", "failed"):
                running.discard(side)
            if event == "done" and not answered and self.sides.patience < until - time.monotonic():
                until, answered = time.monotonic() + self.sides.patience, True
            if event != "done":
                yield side, event

    def _look(self, side: Variant, question: str, tell: Any) -> None:
        """Find passages and answer from them; runs in a thread of the side."""
        of, began = self.side[side], time.perf_counter()
        nodes = of.retriever.retrieve(QueryBundle(question))
        tell(side, "passages", nodes=nodes, milliseconds=round(1000 * (time.perf_counter() - began)))
        if of.synthesizer is not None:
            tell(side, "answer", answer=str(of.synthesizer.synthesize(question, nodes)))

    def _told(self, place: Place, event: str, look: Look) -> dict[str, Any]:
        if event == "passages":
            told = {"passages": [_passage(node) for node in look.nodes or ()]}
            return {"event": event, "place": place, **told, **({} if self.blind else {"ms": look.milliseconds})}
        if event == "answer":
            return {"event": event, "place": place, "text": look.answer}
        # A reason may name the model.
        reason = "the log in the terminal says why" if self.blind else look.failed
        return {"event": event, "place": place, "reason": reason}


def _ended(side: Variant, tell: Any, warn: Any, future: Any) -> None:
    error = future.exception()
    if error is None:
        tell(side, "done")
    else:
        warn(side, reason_of(error))
        tell(side, "failed", failed=reason_of(error))


def _passage(each: NodeWithScore) -> dict[str, Any]:
    node = each.node
    return {
        "id": node.node_id,
        "document": str(node.metadata.get("title") or node.ref_doc_id or node.node_id),
        "text": node.get_content(metadata_mode=MetadataMode.NONE),
    }


def moves(ranking: Sequence[str] | None, other: Sequence[str] | None) -> list[int | None]:
    """The rank, from 1, that each passage of a ranking has in the other one; None where it is not there.

    Example:
        >>> from rag_ft.ab.side_by_side import moves
        >>> moves(["x", "y"], ["y", "z"])
        [None, 1]
    """
    ranks = {key: rank for rank, key in reversed(list(enumerate(other or (), 1)))}
    return [ranks.get(key) for key in ranking or ()]


def session_of(question: str) -> str:
    """What votes on the page are resampled by: the question, asked once or again, since the people are few."""
    return f"question:{sha256_of(' '.join(question.casefold().split()).encode('utf-8', 'replace'))[:16]}"
