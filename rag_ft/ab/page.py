"""The A/B page: a question, both rankings side by side, and a vote that is kept."""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from rag_ft.ab.page_access import Guard
from rag_ft.ab.side_by_side import MODE, PLACES, Looking, PageVariant
from rag_ft.ab.variant_calls import Sides, reason_of
from rag_ft.errors import InputError, RagFtError
from rag_ft.feedback.variants import Preference, Variant
from rag_ft.feedback.vote_log import Votes

MOST_CHARACTERS = 2_000
"""Of a question: no embedding model reads more of it."""

REMEMBERED = 10_000

POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_ab_page(
    a: PageVariant,
    b: PageVariant,
    votes: str | Path | Votes,
    *,
    token: str,
    blind: bool = False,
    hosts: Collection[str] = (),
    local: bool = True,
    timeout: float = 30.0,
    patience: float = 15.0,
) -> FastAPI:
    """A web page on which both sides answer a question and a person says who did better.

    Args:
        a: shown on the left, where nothing is shuffled.
        b: shown on the right.
        votes: the file in which votes and picks are kept.
        token: who has it may ask and vote; it belongs into the address, `http://HOST:PORT/?token=TOKEN`.
        blind: shuffle the sides, and name them only when a vote was given.
        hosts: names by which the page is reached, besides the loopback ones.
        local: whether only loopback addresses reach it.
        timeout: seconds that a side has.
        patience: seconds that a side has once the other one is done.

    Raises:
        InputError: where the file holds votes on other sides.
    """
    kept = votes if isinstance(votes, Votes) else Votes(votes)
    check_same_variants(kept, a.name, b.name)
    looking = Looking(a, b, Sides(kept, timeout=timeout, patience=patience), blind)
    desk = _Desk(kept, blind)
    html = _page(a, b, blind, looking.side["a"].synthesizer is not None)
    app = FastAPI(title="rag_ft ab", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = {"content-security-policy": POLICY.format(nonce=nonce)}
        return HTMLResponse(html.replace("@nonce@", nonce), headers=policy)

    @app.post("/ask")
    async def ask(request: Request) -> Response:
        question = question_in(await _json(request))
        return StreamingResponse(_lines(looking.ask(question)), media_type="application/x-ndjson")

    @app.post("/vote")
    async def vote(request: Request) -> Response:
        given = await _json(request)
        return await _done(desk.vote, _text(given, "query"), _text(given, "better"))

    @app.post("/pick")
    async def pick(request: Request) -> Response:
        given = await _json(request)
        words = (_text(given, "query"), _text(given, "passage"), _text(given, "place"))
        return await _done(desk.pick, *words, given.get("picked") is not False)

    @app.exception_handler(RagFtError)
    async def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 422 if isinstance(error, InputError) else 500)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"something failed here ({reason_of(error)})"}, 500)

    app.add_middleware(Guard, token=token, hosts=hosts, local=local)
    return app


class _Desk:
    """Takes votes and picks of places, and knows which side stands where."""

    def __init__(self, votes: Votes, blind: bool) -> None:
        self._votes, self._blind = votes, blind
        self._voted: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def vote(self, query: str, better: str) -> dict[str, Any]:
        """Keep a vote; who is who is told in return."""
        row = self._row(query)
        meant: dict[str, Preference] = {"tie": "tie", "neither": "neither", **_places(row)}
        if better not in meant:
            raise InputError(f"the vote is {better[:20]!r}: give left, right, tie or neither")
        with self._lock:
            if self._blind and query in self._voted:
                raise InputError("the vote on this question was given, and the sides are named: ask another question")
            self._votes.vote(query, meant[better])
            self._voted[query] = None
            while len(self._voted) > REMEMBERED:
                self._voted.popitem(last=False)
        names, milliseconds = row["names"], row["milliseconds"]
        return {
            "names": {place: names[side] for place, side in _places(row).items()},
            "ms": {place: milliseconds.get(side) for place, side in _places(row).items()},
        }

    def pick(self, query: str, passage: str, place: str, picked: bool) -> dict[str, Any]:
        """Keep that a passage is the right one, or that this was a mistake."""
        row = self._row(query)
        if place not in _places(row):
            raise InputError(f"the place is {place[:20]!r}: give left or right")
        if picked:
            self._votes.pick(query, passage, _places(row)[place])
        else:
            self._votes.unpick(query, passage)
        return {"picked": picked}

    def _row(self, query: str) -> dict[str, Any]:
        row = self._votes.find(query)
        if row.get("mode") != MODE:
            raise InputError(f"nothing was shown here under {query[:40]!r}: ask the question again")
        return row


def _places(row: dict[str, Any]) -> dict[str, Variant]:
    return dict(zip(PLACES, row["order"], strict=True))


def question_in(given: dict[str, Any]) -> str:
    """The question of a request.

    Raises:
        InputError: where it is empty or too long.
    """
    question = _text(given, "question").strip()
    if not question:
        raise InputError("the question is empty: type one")
    if len(question) > MOST_CHARACTERS:
        raise InputError(
            f"the question has {len(question):,} characters, and {MOST_CHARACTERS:,} are the most: shorten it"
        )
    return question


def check_same_variants(votes: Votes, a: str, b: str) -> None:
    """Raise an `InputError` where a file holds votes on two others: they would be counted as one comparison."""
    before = next((row["names"] for row in votes.rows() if row.get("mode") == MODE and "names" in row), None)
    if before is not None and before != {"a": a, "b": b}:
        raise InputError(
            f"{votes.file} holds votes on {before.get('a')} and {before.get('b')}: give another --votes FILE"
        )


async def _json(request: Any) -> dict[str, Any]:
    try:
        value = json.loads(await request.body())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError("the request is no JSON object")
    return value


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise InputError(f"{name!r} is missing: send it as a text")
    return value


async def _done(call: Callable[..., dict[str, Any]], *arguments: Any) -> Response:
    """What a call that writes to the disk returns."""
    return JSONResponse(await run_in_threadpool(call, *arguments))


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    async for event in events:
        # Half of a character pair, which a parser may leave, goes as its escape.
        yield json.dumps(event) + "\n"


def _page(a: PageVariant, b: PageVariant, blind: bool, answers: bool) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rag_ft", "ab/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    names = None if blind else {"left": a.name, "right": b.name}
    return environment.get_template("ab.html.j2").render(names=names, blind=blind, answers=answers, nonce="@nonce@")
