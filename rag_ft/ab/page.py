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
"""Maximum number of characters in a question."""

MAX_REMEMBERED_VOTES = 10_000
"""Number of recent blind votes to remember, so that a second vote is refused."""

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
    """Create a web page on which both variants answer a question and a person votes for the better one.

    Args:
        a: the variant on the left, unless `blind`.
        b: the variant on the right.
        votes: the vote log or its file.
        access: who may use the page. Its address is `http://HOST:PORT/?token=TOKEN`.
        blind: shuffle the sides for each question, and reveal the variants after the vote.
        timeout: seconds after which a variant that has not answered counts as failed.
        patience: seconds to wait for the second variant after the first has answered.

    Raises:
        InputError: if the vote log contains votes on other variants.
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
        result = await run_in_threadpool(page_votes.pick, body["query"], body["passage"], body["place"], picked)
        return JSONResponse(result)

    @app.exception_handler(RagFtError)
    async def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 422 if isinstance(error, InputError) else 500)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"the page failed with an internal error ({reason_of(error)}): see the log"}, 500)

    app.add_middleware(PageAccess, rules=access)
    return app


class _PageVotes:
    """Records votes and picks on a side of the page for the variant that was shown there."""

    def __init__(self, votes: Votes, blind: bool) -> None:
        self._votes, self._blind = votes, blind
        self._voted: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def vote(self, query: str, better: str) -> dict[str, Any]:
        """Record a vote, and return the names and times of both variants."""
        row = self._row(query)
        preferences: dict[str, Preference] = {"tie": "tie", "neither": "neither", **_places(row)}
        if better not in preferences:
            raise InputError(f"the vote is {better[:20]!r}: use left, right, tie or neither")
        with self._lock:
            if self._blind and query in self._voted:
                raise InputError("this question already has a vote and the variants are revealed: ask another question")
            self._votes.vote(query, preferences[better])
            self._voted[query] = None
            while len(self._voted) > MAX_REMEMBERED_VOTES:
                self._voted.popitem(last=False)
        names, milliseconds = row["names"], row["milliseconds"]
        return {
            "names": {place: names[variant] for place, variant in _places(row).items()},
            "ms": {place: milliseconds.get(variant) for place, variant in _places(row).items()},
        }

    def pick(self, query: str, passage: str, place: str, picked: bool) -> dict[str, Any]:
        """Record that a passage answers the question, or take this pick back."""
        row = self._row(query)
        if place not in _places(row):
            raise InputError(f"the place is {place[:20]!r}: use left or right")
        if picked:
            self._votes.pick(query, passage, _places(row)[place])
        else:
            self._votes.unpick(query, passage)
        return {"picked": picked}

    def _row(self, query: str) -> dict[str, Any]:
        row = self._votes.find(query)
        if row.get("mode") != MODE:
            raise InputError(f"this page has no results with the id {query[:40]!r}: ask the question again")
        return row


def _places(row: dict[str, Any]) -> dict[str, Variant]:
    return dict(zip(PLACES, row["order"], strict=True))


def question_in(body: dict[str, Any]) -> str:
    """Return the question of a request.

    Raises:
        InputError: if the question is empty or too long.
    """
    question = str(body["question"]).strip()
    if not question:
        raise InputError("the question is empty: type a question")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise InputError(
            f"the question has {len(question):,} characters, and the limit is {MAX_QUESTION_CHARACTERS:,}: shorten it"
        )
    return question


def check_same_variants(votes: Votes, a: str, b: str) -> None:
    """Raise an `InputError` if a log has votes on other variants, since they would be counted together."""
    names = next((row["names"] for row in votes.rows() if row.get("mode") == MODE and "names" in row), None)
    if names is not None and names != {"a": a, "b": b}:
        raise InputError(
            f"{votes.file} holds votes on {names.get('a')} and {names.get('b')}: choose another --votes FILE"
        )


async def _body(request: Request, *required: str) -> dict[str, Any]:
    """Return the JSON object of a request, in which the required fields must be strings."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InputError("the request body is not a JSON object")
    for name in required:
        if not isinstance(body.get(name), str):
            raise InputError(f"{name!r} is missing: send it as a string")
    return body


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    async for event in events:
        # json.dumps escapes lone surrogates, which a parser may leave in a text.
        yield json.dumps(event) + "\n"


def _page(a: PageVariant, b: PageVariant, blind: bool) -> str:
    names = None if blind else {"left": a.name, "right": b.name}
    template = template_environment("ab", autoescape=True).get_template("ab.html.j2")
    return template.render(names=names, blind=blind, answers=a.synthesizer is not None, nonce="@nonce@")
