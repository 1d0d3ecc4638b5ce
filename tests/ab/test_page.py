"""The A/B page over real HTTP: who may use it, what it answers, and what it records."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.ab_variants import TOKEN, A, B, Ranks, page
from llama_index.core.llms import MockLLM
from llama_index.core.response_synthesizers import get_response_synthesizer

from rag_ft import InputError
from rag_ft.ab.page import MAX_QUESTION_CHARACTERS, create_ab_page
from rag_ft.ab.page_access import AccessRules
from rag_ft.ab.side_by_side import PageVariant, ranks_in_other
from rag_ft.feedback import Votes


class Visitor:
    """Sends the requests that the page's script sends."""

    def __init__(self, address: str) -> None:
        self.origin = address.split("/?")[0]
        headers = {"origin": self.origin, "x-rag-ft-token": TOKEN}
        self.client = httpx.Client(base_url=self.origin, headers=headers, timeout=20)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def ask(self, question: str = "What is a Kittiwake?") -> list[dict[str, Any]]:
        answer = self.post("/ask", question=question)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page") / "votes.jsonl"


@pytest.fixture(scope="module")
def visitor(votes: Path) -> Iterator[Visitor]:
    with page(votes) as address:
        yield Visitor(address)


def test_a_question_shows_both_rankings_and_the_ranks_on_the_other_side(visitor: Visitor, votes: Path) -> None:
    events = visitor.ask()
    assert [event["event"] for event in events] == ["passages", "passages", "shown"]
    found = {event["place"]: event for event in events[:2]}
    assert [passage["id"] for passage in found["left"]["passages"]] == list(A.keys)
    assert found["right"]["passages"][0]["document"] == "claims"
    assert found["left"]["ms"] >= 0
    assert events[2]["moved"] == {"left": [3, 1, None, None], "right": [2, None, 1, None]}
    row = Votes(votes).find(events[2]["query"])
    assert row["rankings"] == {"a": list(A.keys), "b": list(B.keys)}
    assert row["names"] == {"a": "model-a", "b": "model-b"}


def test_a_vote_and_a_pick_are_on_disk_before_they_are_answered(visitor: Visitor, votes: Path) -> None:
    query = visitor.ask("Where do visitors go?")[-1]["query"]
    before = Votes(votes).tally()
    answer = visitor.post("/vote", query=query, better="right")
    assert answer.json()["names"] == {"left": "model-a", "right": "model-b"}
    assert visitor.post("/pick", query=query, passage="claims#0", place="left").json() == {"picked": True}
    assert Votes(votes).tally().b == before.b + 1
    assert list(Votes(votes).rows())[-1] | {"time": ""} == {
        "time": "", "event": "pick", "query": query, "passage": "claims#0", "side": "a",
    }  # fmt: skip
    visitor.post("/pick", query=query, passage="claims#0", place="left", picked=False)
    visitor.post("/vote", query=query, better="neither")
    assert Votes(votes).tally().neither == before.neither + 1


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/ask", {"question": "  \n "}, "the question is empty"),
        ("/ask", {"question": "x" * 100_000}, f"100,000 characters, and the limit is {MAX_QUESTION_CHARACTERS:,}"),
        ("/ask", {}, "'question' is missing"),
        ("/ask", {"question": ["What?"]}, "'question' is missing"),
        ("/vote", {"query": "never", "better": "left"}, "nothing was shown"),
        ("/pick", {"query": "never", "passage": "x", "place": "left"}, "nothing was shown"),
    ],
)
def test_bad_input_is_one_clear_line(visitor: Visitor, path: str, body: dict[str, Any], reason: str) -> None:
    answer = visitor.client.post(path, json=body)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_votes_on_passages_that_were_not_shown_are_refused(visitor: Visitor) -> None:
    query = visitor.ask()[-1]["query"]
    for path, body, reason in (
        ("/vote", {"better": "a"}, "use left, right, tie or neither"),
        ("/pick", {"passage": "hebrew#0", "place": "right"}, "was not shown"),
        ("/pick", {"passage": "hebrew#0", "place": "middle"}, "use left or right"),
    ):
        assert reason in visitor.post(path, query=query, **body).json()["error"]


@pytest.mark.parametrize(
    ("method", "headers", "reason"),
    [
        ("GET", {"x-rag-ft-token": "wrong"}, "the token is missing or wrong"),
        ("GET", {"x-rag-ft-token": ""}, "the token is missing or wrong"),
        ("POST", {"x-rag-ft-token": TOKEN[:-1]}, "the token is missing or wrong"),
        ("GET", {"host": "evil.example"}, "unknown host name"),
        ("POST", {"host": "evil.example:80", "origin": "http://evil.example:80"}, "unknown host name"),
        ("POST", {"host": "192.0.2.7", "origin": "http://192.0.2.7"}, "unknown host name"),
        ("POST", {"host": "127.0.0.1.evil.example"}, "unknown host name"),
        ("POST", {"origin": "http://evil.example"}, "from another web page"),
        ("POST", {"origin": "null"}, "from another web page"),
        ("POST", {"origin": "http://127.0.0.1:1"}, "from another web page"),
        ("POST", {"origin": ""}, "from another web page"),
        ("GET", {"origin": "http://evil.example"}, "from another web page"),
    ],
)
def test_requests_of_other_pages_are_refused(
    visitor: Visitor, votes: Path, method: str, headers: dict[str, str], reason: str
) -> None:
    before = votes.read_bytes()
    answer = visitor.client.request(
        method, "/ask" if method == "POST" else "/", headers=headers, json={"question": "?"}
    )
    assert answer.status_code == 403
    assert reason in answer.json()["error"]
    assert votes.read_bytes() == before


def test_a_token_is_required_and_a_post_needs_it_in_the_header(visitor: Visitor) -> None:
    assert httpx.get(visitor.origin).status_code == 403
    assert httpx.get(f"{visitor.origin}/?token={TOKEN}").status_code == 200
    assert httpx.get(f"{visitor.origin}/?token={TOKEN}&token=x").status_code == 403
    sent = httpx.post(
        f"{visitor.origin}/ask?token={TOKEN}", json={"question": "What?"}, headers={"origin": visitor.origin}
    )
    assert sent.status_code == 403
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert visitor.client.get(path).status_code == 404


def test_a_body_that_is_far_too_long_is_refused(visitor: Visitor) -> None:
    answer = visitor.client.post("/ask", content=b"x" * 2_000_000)
    assert answer.status_code == 413
    assert "shorten the question" in answer.json()["error"]


def test_the_page_loads_nothing_and_cannot_be_framed(visitor: Visitor) -> None:
    answer = visitor.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "@nonce@" not in answer.text
    again = visitor.client.get("/").headers["content-security-policy"]
    assert again != policy  # a nonce is used once


def test_names_are_escaped(tmp_path: Path) -> None:
    with page(tmp_path / "votes.jsonl", a=PageVariant('<script>alert("a")</script>', A)) as address:
        assert "<script>alert" not in httpx.get(address).text


def test_a_variant_that_fails_or_hangs_takes_nobody_down(tmp_path: Path) -> None:
    with page(tmp_path / "votes.jsonl", b=Ranks(fails=True)) as address:
        events = {event["event"]: event for event in Visitor(address).ask()}
        assert "the server of local-b is down" in events["failed"]["reason"]
        assert events["failed"]["place"] == "right"
        assert len(events["passages"]["passages"]) == 4
        assert events["shown"]["places"] == ["left"]
    with page(tmp_path / "votes.jsonl", b=Ranks("claims#0", waits=3), timeout=0.3) as address:
        began = time.monotonic()
        events = {event["event"]: event for event in Visitor(address).ask()}
        assert "no answer after 0.3 s" in events["failed"]["reason"]
        assert time.monotonic() - began < 2.5
    with page(tmp_path / "votes.jsonl", a=Ranks(fails=True), b=Ranks(fails=True)) as address:
        assert [event["event"] for event in Visitor(address).ask()] == ["failed", "failed"]
    assert Votes(tmp_path / "votes.jsonl").tally().failed == {"a": 0, "b": 2}


def test_blind_variants_are_shuffled_and_named_only_after_the_vote(tmp_path: Path) -> None:
    with page(tmp_path / "votes.jsonl", blind=True) as address:
        visitor = Visitor(address)
        assert "model-" not in visitor.client.get("/").text
        seen = set()
        for _ in range(30):
            events = visitor.ask()
            assert "model-" not in json.dumps(events)
            assert '"ms"' not in json.dumps(events)
            query = events[-1]["query"]
            revealed = visitor.post("/vote", query=query, better="left").json()
            left = next(event for event in events if event.get("place") == "left")
            assert revealed["names"]["left"] == ("model-a" if left["passages"][0]["id"] == A.keys[0] else "model-b")
            assert set(revealed["ms"]) == {"left", "right"}
            seen.add(revealed["names"]["left"])
        assert seen == {"model-a", "model-b"}
        assert "ask another question" in visitor.post("/vote", query=query, better="right").json()["error"]
        tally = Votes(tmp_path / "votes.jsonl").tally()
        assert tally.a + tally.b == 30
    with page(tmp_path / "other.jsonl", a=Ranks(fails=True), blind=True) as address:
        events = Visitor(address).ask()
        assert "local-b" not in json.dumps(events)
        assert "see the log in the terminal" in json.dumps(events)


def test_an_answer_that_fails_leaves_its_passages(tmp_path: Path) -> None:
    class Failing(MockLLM):
        def complete(self, *args: Any, **kwargs: Any) -> Any:
            raise ConnectionError("no answer today")

    variants = [
        PageVariant(name, retriever, get_response_synthesizer(llm=llm))
        for name, retriever, llm in (("one", A, MockLLM(max_tokens=8)), ("two", B, Failing(max_tokens=8)))
    ]
    with page(tmp_path / "votes.jsonl", *variants) as address:
        events = Visitor(address).ask()
    assert sorted((event["event"], event.get("place")) for event in events if event["event"] != "shown") == [
        ("answer", "left"), ("failed", "right"), ("passages", "left"), ("passages", "right"),
    ]  # fmt: skip
    assert events[-1]["places"] == ["left", "right"]
    assert set(Votes(tmp_path / "votes.jsonl").find(events[-1]["query"])["answers"]) == {"a"}


def test_votes_on_other_models_need_another_file(visitor: Visitor, votes: Path) -> None:
    visitor.ask()
    with pytest.raises(InputError, match="holds votes on model-a and model-b"):
        create_ab_page(PageVariant("model-a", A), PageVariant("another", B), votes, access=AccessRules(token=TOKEN))


def test_each_passage_knows_its_rank_on_the_other_side() -> None:
    assert ranks_in_other(["x", "y", "z"], ["z", "x"]) == [2, None, 1]
    assert ranks_in_other(["x"], None) == [None]
    assert ranks_in_other(None, ["x"]) == []
