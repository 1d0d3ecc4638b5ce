"""The A/B page: ask a question, see both rankings side by side, and vote."""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from rag_ft.ab.options import ABOptions
from rag_ft.ab.page_access import AccessRules, PageAccess
from rag_ft.ab.recording import Recorder
from rag_ft.ab.side_by_side import MODE, PLACES, PageVariant, SideBySide
from rag_ft.ab.variant_calls import VariantCaller, reason_of
from rag_ft.errors import InputError, RagFtError
from rag_ft.feedback.variants import Preference, Variant
from rag_ft.feedback.vote_log import Votes
from rag_ft.report.rendering import template_environment

MAX_QUESTION_CHARACTERS = 2_000
"""No embedding model reads more of a question."""

MAX_REMEMBERED_VOTES = 10_000
"""Queries whose vote on a blind page is remembered, so that nobody votes again once the variants are named."""

POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_ab_page(
    a: PageVariant,
    b: PageVariant,
    votes: str | Path | Votes,
    *,
    access: AccessRules,
    blind: bool = False,
    timeout: float = 30.0,
    patience: float = 15.0,
) -> FastAPI:
    """Create a web page on which both variants answer a question and a person says which one did better.

    Args:
        a: the variant on the left, unless places are shuffled.
        b: the variant on the right.
        votes: the vote log or its file.
        access: who may use the page; its address is `http://HOST:PORT/?token=TOKEN`.
        blind: shuffle the places, and name the variants only after the vote.
        timeout: seconds after which a variant that has not answered counts as failed.
        patience: seconds that a variant still has once the other one is done.

    Raises:
        InputError: if the file holds votes on other variants.
    """
    recorder = Recorder(votes)
    log = recorder.require_votes()
    check_same_variants(log, a.name, b.name)
    caller = VariantCaller(ABOptions(timeout=timeout, patience=patience))
    side_by_side, page_votes = SideBySide(a, b, caller, recorder, blind), _PageVotes(log, blind)
    html = _page(a, b, blind)
    app = FastAPI(title="rag_ft ab", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = {"content-security-policy": POLICY.format(nonce=nonce)}
        return HTMLResponse(html.replace("@nonce@", nonce), headers=policy)

    @app.post("/ask")
    async def ask(request: Request) -> Response:
        question = question_in(await _body(request, "question"))
        return StreamingResponse(_lines(side_by_side.ask(question)), media_type="application/x-ndjson")

    @app.post("/vote")
    async def vote(request: Request) -> Response:
        body = await _body(request, "query", "better")
        return JSONResponse(await run_in_threadpool(page_votes.vote, body["query"], body["better"]))

    @app.post("/pick")
    async def pick(request: Request) -> Response:
        body = await _body(request, "query", "passage", "place")
        picked = body.get("picked") is not False
        done = await run_in_threadpool(page_votes.pick, body["query"], body["passage"], body["place"], picked)
        return JSONResponse(done)

    @app.exception_handler(RagFtError)
    async def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 422 if isinstance(error, InputError) else 500)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"something failed here ({reason_of(error)})"}, 500)

    app.add_middleware(PageAccess, rules=access)
    return app


class _PageVotes:
    """Votes and picks of places, recorded for the variant that was shown there."""

    def __init__(self, votes: Votes, blind: bool) -> None:
        self._votes, self._blind = votes, blind
        self._voted: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def vote(self, query: str, better: str) -> dict[str, Any]:
        """Record a vote, and return the names and times of both variants."""
        row = self._row(query)
        meant: dict[str, Preference] = {"tie": "tie", "neither": "neither", **_places(row)}
        if better not in meant:
            raise InputError(f"the vote is {better[:20]!r}: give left, right, tie or neither")
        with self._lock:
            if self._blind and query in self._voted:
                raise InputError(
                    "the vote on this question was given, and the variants are named: ask another question"
                )
            self._votes.vote(query, meant[better])
            self._voted[query] = None
            while len(self._voted) > MAX_REMEMBERED_VOTES:
                self._voted.popitem(last=False)
        names, milliseconds = row["names"], row["milliseconds"]
        return {
            "names": {place: names[variant] for place, variant in _places(row).items()},
            "ms": {place: milliseconds.get(variant) for place, variant in _places(row).items()},
        }

    def pick(self, query: str, passage: str, place: str, picked: bool) -> dict[str, Any]:
        """Record that a passage is the right one, or that this pick was a mistake."""
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


def question_in(body: dict[str, Any]) -> str:
    """Return the question of a request.

    Raises:
        InputError: if it is empty or too long.
    """
    question = str(body["question"]).strip()
    if not question:
        raise InputError("the question is empty: type one")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise InputError(
            f"the question has {len(question):,} characters, and {MAX_QUESTION_CHARACTERS:,} are the most: shorten it"
        )
    return question


def check_same_variants(votes: Votes, a: str, b: str) -> None:
    """Raise an `InputError` if a file holds votes on two other variants: both would count as one comparison."""
    before = next((row["names"] for row in votes.rows() if row.get("mode") == MODE and "names" in row), None)
    if before is not None and before != {"a": a, "b": b}:
        raise InputError(
            f"{votes.file} holds votes on {before.get('a')} and {before.get('b')}: give another --votes FILE"
        )


async def _body(request: Request, *texts: str) -> dict[str, Any]:
    """Return the JSON object of a request, which must have these texts."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InputError("the request is no JSON object")
    for name in texts:
        if not isinstance(body.get(name), str):
            raise InputError(f"{name!r} is missing: send it as a text")
    return body


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    async for event in events:
        # json.dumps escapes a lone surrogate, which a parser may leave in a text.
        yield json.dumps(event) + "\n"


def _page(a: PageVariant, b: PageVariant, blind: bool) -> str:
    names = None if blind else {"left": a.name, "right": b.name}
    template = template_environment("ab", autoescape=True).get_template("ab.html.j2")
    return template.render(names=names, blind=blind, answers=a.synthesizer is not None, nonce="@nonce@")
