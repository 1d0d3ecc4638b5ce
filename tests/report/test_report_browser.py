"""The report in a real browser: it fetches nothing, draws its plots, filters its table, and shows texts as text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes.browser import listen
from fakes.comparisons import ARABIC, ATTACK, TRAINING, runs_of

from rag_ft import Passage, QADataset, Query, cut_into_nodes, generate_qa_dataset, load_dataset, read_documents
from rag_ft.dataset import read_questions
from rag_ft.evaluation import CompareOptions, score_runs
from rag_ft.report.html import write_report
from rag_ft.retrieval.bm25 import BM25

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

NAMES = {"baseline": "words of the questions", "candidate": "whole words", "bm25": "bm25"}
PAGE = 50


def ranked(dataset: QADataset) -> dict[str, list[list[str]]]:
    """Rank with BM25 over the first half of each passage, over its last three quarters, and over all of it."""
    texts = dataset.passage_texts
    asked = [dataset.queries[query].text for query in dataset.require("test")]
    parts = [
        {key: text[: len(text) // 2] for key, text in texts.items()},
        {key: text[len(text) // 4 :] for key, text in texts.items()},
    ]
    return {role: BM25(passages, "en").rank(asked, 100) for role, passages in zip(NAMES, [*parts, texts], strict=True)}


@pytest.fixture(scope="module")
def demo(acme: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    nodes = cut_into_nodes(read_documents(acme / "documents"))
    dataset = generate_qa_dataset(nodes, use_llm=False, questions=read_questions(acme / "questions.jsonl")).dataset
    rankings = ranked(dataset)
    cut = {passage: len(text) // 2 for passage, text in dataset.passage_texts.items() if len(text) > 700}
    comparison = score_runs(dataset, "test", runs_of(rankings, NAMES), CompareOptions(name="acme"), characters_read=cut)
    return write_report(comparison, tmp_path_factory.mktemp("demo") / "report.html", dataset, TRAINING, "acme")


@pytest.fixture(scope="module")
def covidqa(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = load_dataset(shared_data / "covidqa")
    rankings = ranked(dataset)
    rankings["candidate-2"] = rankings["bm25"]
    comparison = score_runs(
        dataset, "test", runs_of(rankings, NAMES | {"candidate-2": "all of it"}), CompareOptions(name="covidqa")
    )
    return write_report(comparison, tmp_path_factory.mktemp("covidqa") / "report.html", dataset)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 questions, one of them with everything that could break a page."""
    draw = random.Random(0)
    evil = f"{ATTACK} <img src=x onerror=alert(1)> </script><!-- {ARABIC}"
    passages = {
        f"p{n}": Passage(f"p{n}", f"Rule {n * 7919} of the harbour. " * 4, doc_id=f"d{n % 90}.md") for n in range(2000)
    }
    passages["p7"] = Passage("p7", evil, doc_id="<b>evil</b>.md")
    queries = {f"q{n}": Query(f"q{n}", f"What does rule {n * 7919} say?") for n in range(2000)}
    queries["q7"] = Query("q7", f"{evil} unmistakable")
    dataset = QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(2000)}})
    ids = list(passages)

    def ranking(wanted: str) -> list[str]:
        others = draw.sample(ids, 12)
        place = draw.choice([0, 0, 1, 3, 8, 12])
        return [*others[:place], wanted, *others[place:]] if place < 12 else others

    rankings = {role: [ranking(f"p{n}") for n in range(2000)] for role in NAMES}
    rankings["candidate"][7] = ["p7"]
    rankings["baseline"][7] = ["p1", "p2"]
    options = CompareOptions(name=ATTACK, metrics=["ndcg@10", "hit_rate@5"])
    comparison = score_runs(dataset, "test", runs_of(rankings, NAMES), options)
    return write_report(comparison, tmp_path_factory.mktemp("many") / "report.html", dataset)


def opened(browser: BrowserContext, file: Path) -> Page:
    """Open a report, which may request nothing but itself."""
    page = browser.new_page()
    heard = listen(page)
    page.goto(file.as_uri())
    page.wait_for_selector("#questions-rows tr")
    assert heard.errors == []
    assert heard.requests == [file.as_uri()]
    return page


def rows(page: Page) -> list[str]:
    return page.locator("#questions-rows tr").all_inner_texts()


def counted(page: Page) -> int:
    return int(page.inner_text("#questions-count").split()[0].replace(",", ""))


@pytest.mark.parametrize("report", ["demo", "covidqa"])
def test_all_plots_are_drawn_and_nothing_is_fetched(
    browser: BrowserContext, report: str, request: pytest.FixtureRequest
) -> None:
    page = opened(browser, request.getfixturevalue(report))
    drawn = page.evaluate("""() => [...document.querySelectorAll("figure > .picture > svg")].map((svg) => {
        const size = svg.getBoundingClientRect();
        const shapes = [...svg.querySelectorAll("path, use")].filter((one) => {
          const box = one.getBoundingClientRect(), style = getComputedStyle(one);
          const seen = style.opacity !== "0" && (style.stroke !== "none" || style.fill !== "none");
          return seen && (box.width > 0 || box.height > 0);
        });
        const words = [...svg.querySelectorAll("text")].filter((one) => one.getBoundingClientRect().width > 0);
        return {width: size.width, height: size.height, shapes: shapes.length, words: words.length,
                named: svg.getAttribute("role") === "img" && !!svg.querySelector("title").textContent};
    })""")
    assert len(drawn) == {"demo": 6, "covidqa": 5}[report]
    for picture in drawn:
        assert picture["width"] > 200
        assert picture["height"] > 60
        assert picture["shapes"] >= 3
        assert picture["words"] >= 3
        assert picture["named"]


def test_colours_follow_the_page(browser: BrowserContext, demo: Path) -> None:
    page = opened(browser, demo)
    ask = "getComputedStyle(document.querySelector('figure text')).fill"
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate(ask))
    assert colours[0] != colours[1]
    assert all(colour.startswith("rgb") for colour in colours)


def test_the_table_filters_sorts_and_turns_its_pages(browser: BrowserContext, demo: Path) -> None:
    page = opened(browser, demo)
    total = counted(page)
    assert len(rows(page)) == min(PAGE, total)
    found = {}
    for kind, word in (("win", "better"), ("loss", "worse"), ("same", "same")):
        page.select_option("#questions-kind", kind)
        found[kind] = counted(page)
        assert all(f"\t{word}\t" in f"\t{row}\t".replace("\n", "\t") for row in rows(page))
    assert sum(found.values()) == total
    assert min(found.values()) > 0
    page.select_option("#questions-kind", "")
    page.select_option("#questions-cause", label="lexical copy")
    assert 0 < counted(page) < total
    assert all("lexical copy" in row for row in rows(page))
    page.select_option("#questions-cause", "")
    page.select_option("#questions-slice", label="unseen documents")
    assert 0 < counted(page) < total
    page.select_option("#questions-slice", "")
    page.fill("#questions-search", "LANTERN home")
    assert 0 < counted(page) < total
    page.fill("#questions-search", "no such words at all")
    assert (counted(page), rows(page)) == (0, [])
    page.fill("#questions-search", "")
    head = page.locator("#questions-table thead th").nth(2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    ranks = page.locator("#questions-rows tr td:nth-child(3)").all_inner_texts()
    assert [int(rank) for rank in ranks] == sorted(int(rank) for rank in ranks)
    page.click("#questions-next")
    assert "page 2 of" in page.inner_text("#questions-count")


def test_the_table_works_from_the_keyboard(browser: BrowserContext, demo: Path) -> None:
    page = opened(browser, demo)
    page.focus("#questions-search")
    page.keyboard.type("lantern")
    assert 0 < counted(page) < 279
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "questions-kind"
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#questions-table th[aria-sort='ascending']").count() == 1


def test_each_candidate_has_its_own_rows(browser: BrowserContext, covidqa: Path) -> None:
    page = opened(browser, covidqa)
    before = rows(page)
    page.select_option("#questions-role", "candidate-2")
    assert rows(page) != before
    assert counted(page) == 379


def test_2000_questions_are_shown_in_pages_and_filtered_at_once(browser: BrowserContext, many: Path) -> None:
    page = opened(browser, many)
    assert counted(page) == 2000
    assert page.locator("#questions-rows tr").count() == PAGE
    # All of it happens within the event: the table waits for no frame and no later event.
    found = page.evaluate("""() => {
        const box = document.getElementById("questions-search"), seen = [];
        for (const words of ["r", "ru", "rule 7919", "rule", ""]) {
          box.value = words;
          box.dispatchEvent(new Event("input"));
          seen.push([document.getElementById("questions-count").textContent.split(" ")[0],
                     document.querySelectorAll("#questions-rows tr").length]);
        }
        return seen;
    }""")
    assert found[-1] == ["2,000", PAGE]
    assert all(count <= PAGE for _, count in found)
    assert page.evaluate("document.querySelectorAll('*').length") < 6000
    page.evaluate("for (let turn = 0; turn < 39; turn++) document.getElementById('questions-next').click()")
    assert page.locator("#questions-next").is_disabled()
    assert page.locator("#questions-rows tr").count() == PAGE


def test_markup_in_documents_is_shown_as_text(browser: BrowserContext, many: Path) -> None:
    page = opened(browser, many)
    page.on("dialog", lambda dialog: pytest.fail("a script of a document ran"))
    page.fill("#questions-search", "Unmistakable")
    assert counted(page) == 1
    cells = page.locator("#questions-rows tr td")
    assert ATTACK in cells.nth(0).inner_text()
    cells.nth(5).locator("summary").click()
    assert ARABIC in cells.nth(5).inner_text()
    assert "<b>evil</b>.md" in cells.nth(5).inner_text()
    assert ATTACK in page.inner_text(".eyebrow")
    assert page.locator("img, b, script:not([type]) >> nth=1").count() == 0
    assert page.evaluate("document.querySelector('#questions-rows td:first-child').dir") == "auto"
    # The page itself may not reach the network either.
    refused = page.evaluate("""async () => {
        const tried = [];
        document.addEventListener("securitypolicyviolation", (event) => tried.push(event.effectiveDirective));
        await fetch("http://127.0.0.1:9/x").catch(() => {});
        const made = document.createElement("script");
        made.textContent = "window.broken = 1";
        document.body.append(made);
        // Violations are reported in tasks of their own, later than what causes them.
        for (let turn = 0; turn < 100 && tried.length < 2; turn++) await new Promise((done) => setTimeout(done, 50));
        return [tried, window.broken ?? null];
    }""")
    assert refused == [["connect-src", "script-src-elem"], None]


def test_it_fits_a_narrow_window_and_prints(browser: BrowserContext, demo: Path, tmp_path: Path) -> None:
    page = opened(browser, demo)
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("#questions-controls").is_visible()
    assert page.locator("#questions-table").is_visible()
