"""The A/B page in a real browser: ask, vote and pick; texts from documents are shown as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.ab_variants import HEBREW, HOSTILE, TEXTS, TOKEN, A, B, Ranks, node, page
from fakes.browser import listen

from rag_ft.documents.nodes import passages_from_nodes
from rag_ft.feedback import Votes, questions_from_feedback

expect: Any = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with page(tmp_path / "votes.jsonl") as where:
        yield where


def ask(window: Any, question: str) -> None:
    """Ask both sides and wait until the page has shown all that they found: only then can anybody vote."""
    window.get_by_label("Question").fill(question)
    window.keyboard.press("Enter")
    expect(window.get_by_role("group", name="Which side is better?")).to_be_visible()


def test_the_keyboard_alone_can_ask_pick_and_vote(browser: Any, address: str, tmp_path: Path) -> None:
    window = browser.new_page()
    heard = listen(window)
    window.goto(address)
    expect(window.get_by_label("Question")).to_be_focused()
    window.keyboard.type("What is a Kittiwake?")
    window.keyboard.press("Enter")
    expect(window.get_by_role("group", name="Which side is better?")).to_be_visible()
    assert window.locator("#left .passage").count() == window.locator("#right .passage").count() == 4
    assert "ms" in window.locator("#left .ms").inner_text()
    assert window.locator("#right .move").first.inner_text().startswith("▲ 1")
    assert window.locator("#threads path").count() == 2  # what both have found

    right = window.get_by_role("button", name="This passage answers the question: right, rank 1")
    right.focus()
    window.keyboard.press("Enter")
    expect(right).to_have_attribute("aria-pressed", "true")
    expect(window.locator("#left .passage.right")).to_have_count(1)  # the same passage on the other side
    better = window.get_by_role("button", name="Right", exact=True)
    better.focus()
    window.keyboard.press("Space")
    expect(better).to_have_attribute("aria-pressed", "true")
    assert "Vote saved" in window.locator("#thanks").inner_text()

    votes = Votes(tmp_path / "votes.jsonl")
    assert (votes.tally().b, votes.tally().queries) == (1, 1)
    questions, dropped = questions_from_feedback(votes, passages_from_nodes([node(key) for key in TEXTS]))
    assert [(found.text, found.positives, found.documents) for found in questions] == [
        ("What is a Kittiwake?", (TEXTS["claims#0"],), ("claims#0",))
    ]
    assert not dropped
    assert heard.errors == []
    host = address.split("/")[2]
    assert heard.foreign(host) == []
    assert len(heard.requests) == 4  # the page, the question, the pick, the vote


def test_markup_in_a_passage_is_shown_as_text(browser: Any, address: str) -> None:
    window = browser.new_page()
    heard = listen(window)
    window.goto(address)
    ask(window, HOSTILE)
    expect(window.get_by_text(HOSTILE, exact=True)).to_be_visible()
    hebrew = window.get_by_text(HEBREW, exact=True)
    expect(hebrew).to_be_visible()
    assert hebrew.evaluate("element => getComputedStyle(element).direction") == "rtl"
    assert window.title() == "Two rankings side by side"
    assert window.locator(".passage img, .passage script").count() == 0
    assert heard.errors == []


def test_errors_are_shown_on_the_page(browser: Any, tmp_path: Path) -> None:
    window = browser.new_page()
    with page(tmp_path / "votes.jsonl", b=Ranks(fails=True)) as address:
        window.goto(address)
        status = window.get_by_role("status").first
        window.get_by_role("button", name="Ask both").click()
        expect(status).to_have_text("The question is empty: type a question.")
        window.get_by_label("Question").fill("x" * 100_000)
        window.get_by_role("button", name="Ask both").click()
        expect(status).to_contain_text("100,000 characters, and the limit is 2,000")
        window.get_by_label("Question").fill("What is a Kittiwake?")
        window.get_by_role("button", name="Ask both").click()
        expect(window.get_by_role("alert")).to_contain_text("the server of local-b is down")
        expect(window.locator("#left .passage")).to_have_count(4)
        expect(window.get_by_role("button", name="Left", exact=True)).to_be_disabled()
        window.goto(address.replace(TOKEN, "wrong"))
        expect(window.locator("body")).to_contain_text("the token is missing or wrong")
        window.goto(address)
        window.get_by_label("Question").fill("Still there?")
    window.get_by_role("button", name="Ask both").click()
    expect(window.get_by_role("status").first).to_contain_text(
        "The server does not respond: is rag-ft ab still running"
    )


def test_another_page_cannot_vote(browser: Any, address: str, tmp_path: Path) -> None:
    window = browser.new_page()
    window.route("http://evil.example/", lambda route: route.fulfill(body="<p>evil</p>", content_type="text/html"))
    window.goto("http://evil.example/")
    origin = address.split("/?")[0]
    results = window.evaluate(
        """async ([origin, token]) => {
            const tries = [{}, {mode: "no-cors"}, {headers: {"x-rag-ft-token": token}}];
            const found = [];
            for (const more of tries) {
                try {
                    const answer = await fetch(origin + "/ask", {method: "POST", body: '{"question": "?"}', ...more});
                    found.push(answer.type + " " + answer.status);
                } catch (error) { found.push("refused"); }
            }
            return found;
        }""",
        [origin, TOKEN],
    )
    assert results == ["refused"] * 3
    assert list(Votes(tmp_path / "votes.jsonl").rows()) == []


def test_blind_variants_are_named_after_the_vote(browser: Any, tmp_path: Path) -> None:
    window = browser.new_page()
    with page(tmp_path / "votes.jsonl", blind=True) as address:
        window.goto(address)
        ask(window, "What is a Kittiwake?")
        expect(window.get_by_role("heading", name="Left", exact=True)).to_be_visible()
        assert not re.search(r"model-|\d ms", window.locator("body").inner_text())
        window.get_by_role("button", name="Equally good").click()
        expect(window.locator("#thanks")).to_contain_text("Left was model-")
        expect(window.get_by_role("button", name="Equally good")).to_be_disabled()
        assert {window.locator(f"#{place} h2").inner_text() for place in ("left", "right")} == {"model-a", "model-b"}


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_can_be_read(browser: Any, address: str, width: int, scheme: Any) -> None:
    window = browser.new_page()
    window.set_viewport_size({"width": width, "height": 800})
    window.emulate_media(color_scheme=scheme)
    window.goto(address)
    ask(window, "What is a Kittiwake?")
    expect(window.get_by_role("button", name="Neither is good")).to_be_visible()
    assert window.evaluate("document.documentElement.scrollWidth") <= width
    dark = window.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    more = window.get_by_role("button", name="Show the whole passage: left, rank 3")
    more.click()
    expect(more).to_have_attribute("aria-expanded", "true")


def test_every_control_has_a_name_and_every_side_a_heading(browser: Any, address: str) -> None:
    window = browser.new_page()
    window.goto(address)
    ask(window, "What is a Kittiwake?")
    expect(window.get_by_role("region", name="model-a")).to_be_visible()
    for button in window.get_by_role("button").all():
        assert button.evaluate("element => (element.ariaLabel || element.textContent).trim()")
    names = [button.get_attribute("aria-label") for button in window.locator(".pick").all()]
    assert len(set(names)) == len(names) == len(A.keys) + len(B.keys)
    assert "1 higher than on the other side" in window.locator("#right .move").first.inner_text()
