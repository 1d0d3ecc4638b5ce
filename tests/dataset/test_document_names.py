"""Documents are named as people do. What is clear is matched, and nothing is guessed."""

import time
import unicodedata
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft.dataset.formats.real_questions import RealQuestion
from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.document_names import MAX_NEAREST, MAX_SCANNED, DocumentNames, split_names
from rag_ft.dataset.text.locating import Locator
from rag_ft.errors import InputError, UnknownIdError

DOCUMENTS = [
    "leave/fmla.md", "leave/sick.md", "old/sick.md", "reports/report0.pdf", "Cafe\u0301 menu.docx", "badges",
    "https://example.org/hr/pay%20day.html", "rules, part 2.md", "guide.v2.txt", "README.md", "docs/en/index.md",
    "C# & F#.md",
]  # fmt: skip
ALIASES = {
    "/home/me/handbook/leave/fmla.md": ["leave/fmla.md"],
    "Family and Medical Leave": ["leave/fmla.md"],
    "What is TCP/IP?": ["guide.v2.txt"],
    "Sick leave": ["leave/sick.md", "old/sick.md"],
    "gone": ["not/in/the/corpus.md"],
    "5f0c": ["badges"],
}
NAMES = DocumentNames(DOCUMENTS, ALIASES)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("leave/fmla.md", "leave/fmla.md"),
        ("fmla.md", "leave/fmla.md"),
        ("leave\\fmla.md", "leave/fmla.md"),
        ("docs/leave/fmla.md", "leave/fmla.md"),
        ("./leave/fmla.md", "leave/fmla.md"),
        ("../leave/old/../fmla.md", "leave/fmla.md"),
        ("/home/me/handbook/leave/fmla.md", "leave/fmla.md"),
        ("/srv/other/leave/fmla.md", "leave/fmla.md"),
        ("C:\\Users\\Me\\Leave\\FMLA.MD", "leave/fmla.md"),
        ("C:/Users/Me/leave/fmla.md", "leave/fmla.md"),
        ("\\\\server\\share\\leave\\fmla.md", "leave/fmla.md"),
        ("file:///home/me/docs/leave/fmla.md", "leave/fmla.md"),
        ("file:///C:/docs/leave/fmla.md", "leave/fmla.md"),
        ("https://wiki.example.org/leave/fmla.md?version=3#notice", "leave/fmla.md"),
        ("fmla", "leave/fmla.md"),
        ("FMLA", "leave/fmla.md"),
        ("leave/fmla#notice-period", "leave/fmla.md"),
        ("fmla.md, page 3", "leave/fmla.md"),
        ("fmla.md p. 3", "leave/fmla.md"),
        ("fmla.md (pp. 3-4)", "leave/fmla.md"),
        ("fmla.md - page 3", "leave/fmla.md"),
        ("fmla.md, S. 3", "leave/fmla.md"),
        ("'fmla.md'", "leave/fmla.md"),
        ("[[fmla]]", "leave/fmla.md"),
        ("\u201efmla.md\u201c", "leave/fmla.md"),
        (" fmla.md\n", "leave/fmla.md"),
        ("family and medical  leave", "leave/fmla.md"),
        ("what is tcp/ip?", "guide.v2.txt"),
        ("report0.pdf", "reports/report0.pdf"),
        ("caf\u00e9 menu", "Cafe\u0301 menu.docx"),
        ("Cafe%CC%81%20menu.docx", "Cafe\u0301 menu.docx"),
        ("badges.md", "badges"),
        ("docs/badges", "badges"),
        ("5f0c", "badges"),
        ("http://www.example.org/hr/pay day.html", "https://example.org/hr/pay%20day.html"),
        ("pay day", "https://example.org/hr/pay%20day.html"),
        ("rules, part 2", "rules, part 2.md"),
        ("guide.v2", "guide.v2.txt"),
        ("readme", "README.md"),
        ("C# & f#.md#top", "C# & F#.md"),
        ("leave/sick.md", "leave/sick.md"),
        ("x/OLD/sick", "old/sick.md"),
    ],
)
def test_a_document_is_found_as_people_name_it(name: str, document: str) -> None:
    assert NAMES.find(name) == document


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sick.md", "'sick.md' may be 'leave/sick.md' or 'old/sick.md': write more of the path"),
        ("Sick leave", "'Sick leave' may be 'leave/sick.md' or 'old/sick.md': write more"),
        ("flma.md", "'flma.md' is not a document or passage (the nearest: 'leave/fmla.md'"),
        ("old/fmla.md", "(the nearest: 'leave/fmla.md'"),
        ("fmla.pdf", "(the nearest: 'leave/fmla.md'"),
        ("family medical leave", "(the nearest: 'leave/fmla.md'"),
        ("de/index.md", "(the nearest: 'docs/en/index.md'"),
        ("IP?", "is not a document or passage"),
        ("fmla.md#3", "is not a document or passage"),
        ("gone", "is not a document or passage"),
        ("", "'' is not a document or passage"),
        ("/", "is not a document or passage"),
        ("x" * 5_000, "is not a document or passage"),
    ],
)
def test_what_is_unclear_or_unknown_is_an_error_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UnknownIdError) as failure:
        NAMES.find(name)
    assert said in str(failure.value)
    assert len(str(failure.value)) < 400
    assert "\n" not in str(failure.value)


def test_an_equal_name_always_wins() -> None:
    names = DocumentNames(["fmla.md", "leave/fmla.md", "FMLA.md", "fmla", "a%20b", "a b"], {"FMLA": ["leave/fmla.md"]})
    for document in ("fmla.md", "leave/fmla.md", "FMLA.md", "fmla", "a%20b", "a b"):
        assert names.find(document) == document
        assert names.find(f'"{document}"') == document
    assert names.find("FMLA") == "leave/fmla.md"
    assert names.find("x/FMLA.md") == "FMLA.md"
    assert names.matches("x/Fmla.md") == ["FMLA.md", "fmla.md"]


PARTS = st.text(st.sampled_from("abX\u00e9\u0153\u00df #?-_"), min_size=1, max_size=4).filter(
    lambda part: part.strip() == part and "  " not in part
)
PATHS = st.tuples(st.lists(PARTS, max_size=3), PARTS, st.sampled_from(["", ".md", ".pdf", ".docx"])).map(
    lambda drawn: "/".join([*drawn[0], drawn[1] + drawn[2]])
)
SAME: dict[str, Callable[[str], str]] = {
    "as it is": lambda name: name,
    "a longer path": lambda name: f"zz/{name}",
    "an absolute path": lambda name: f"/zz/{name}",
    "a path of Windows": lambda name: "C:\\zz\\" + name.replace("/", "\\"),
    "the current folder": lambda name: f"./{name}",
    "an address": lambda name: f"https://zz.org/{quote(name)}",
    "a file's address": lambda name: f"file:///zz/{quote(name)}",
    "percent encoding": quote,
    "another Unicode form": lambda name: unicodedata.normalize("NFD", name),
}
AROUND: dict[str, Callable[[str], str]] = {
    "nothing": lambda name: name,
    "quotes": lambda name: f'"{name}"',
    "brackets": lambda name: f"[{name}]",
    "an anchor": lambda name: f"{name}#zz",
    "a query and an anchor": lambda name: f"{name}?zz=1#zz",
    "a page": lambda name: f"{name}, p. 7",
    "an anchor in quotes": lambda name: f"'{name}#zz'",
}
SHORTER: dict[str, Callable[[str], str]] = {
    "a shorter path": lambda name: name.rpartition("/")[2],
    "no suffix": lambda name: name.removesuffix(".md").removesuffix(".pdf").removesuffix(".docx"),
    "upper case": str.upper,
}


@given(documents=st.lists(PATHS, min_size=1, max_size=8, unique=True), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_decorated_name_is_the_document_whatever_else_is_there(documents: list[str], data: st.DataObject) -> None:
    document = data.draw(st.sampled_from(documents))
    same, around = data.draw(st.sampled_from(sorted(SAME))), data.draw(st.sampled_from(sorted(AROUND)))
    name = AROUND[around](SAME[same](document))
    found = DocumentNames(documents).matches(name)
    assert found == [document]


def folded_stem(name: str) -> str:
    last = name.rpartition("/")[2]
    return unicodedata.normalize("NFD", SHORTER["no suffix"](last)).casefold()


@given(documents=st.lists(PATHS, min_size=1, max_size=8, unique=True), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_shortened_name_is_the_document_or_unclear_and_never_a_wrong_one(
    documents: list[str], data: st.DataObject
) -> None:
    document = data.draw(st.sampled_from(documents))
    name = document
    for step in data.draw(st.lists(st.sampled_from(sorted(SHORTER)), min_size=1, max_size=2)):
        name = SHORTER[step](name)
    name = AROUND[data.draw(st.sampled_from(sorted(AROUND)))](name)
    found = DocumentNames(documents).matches(name)
    others = [other for other in documents if folded_stem(other) == folded_stem(document)]
    if others == [document]:
        assert found == [document]
    assert found
    assert set(found) <= set(others)
    # Only documents that are nearer to what is written take its place: their path is shorter.
    assert document in found or max(other.count("/") for other in found) <= document.count("/")


@given(documents=st.lists(PATHS, min_size=1, max_size=8, unique=True), name=PATHS)
@settings(max_examples=200, deadline=None)
def test_a_file_of_another_folder_is_not_matched(documents: list[str], name: str) -> None:
    documents = [f"corpus/{document}" for document in documents]
    assert DocumentNames(documents).matches(f"zz/{name}") == []


def test_many_documents_of_one_name_are_told_apart_by_their_folder() -> None:
    documents = [f"{number}/docs/index.md" for number in range(5 * MAX_SCANNED)] + ["index.md"]
    names = DocumentNames(documents)
    assert names.find("x\\7\\DOCS\\index") == "7/docs/index.md"
    assert names.find("x/index.md") == "index.md"
    assert len(names.matches("docs/index.md")) == 5 * MAX_SCANNED


def test_names_are_found_fast_in_a_large_corpus() -> None:
    documents = [f"d{number % 1000}/page {number}.md" for number in range(200_000)]
    started = time.monotonic()
    names = DocumentNames(documents)
    assert time.monotonic() - started < 2
    names.find("page 7")
    started = time.monotonic()
    for number in range(2_000):
        assert names.find(f"x/D{number % 1000}/Page {number}") == documents[number]
    for number in range(3 * MAX_NEAREST):
        assert ("nearest" in names.why_not(f"paeg {number}")) == (number < MAX_NEAREST)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("a.md; b.md", ["a.md", "b.md"]),
        ("a.md, b.md", ["a.md", "b.md"]),
        ("a.md\nb.md\r\n", ["a.md", "b.md"]),
        ("a.md|b.md", ["a.md", "b.md"]),
        ("a.md; b.md, c, d.md", ["a.md", "b.md, c, d.md"]),
        ("c, d.md", ["c, d.md"]),
        ("c, d.md; a.md, b.md", ["c, d.md", "a.md", "b.md"]),
        ("a.md, e.md", ["a.md, e.md"]),
        (";", [";"]),
        ("", [""]),
    ],
)
def test_a_cell_with_several_names_is_split_if_all_are_known(cell: str, names: list[str]) -> None:
    assert split_names(cell, {"a.md", "b.md", "c, d.md", "b.md, c, d.md"}.__contains__) == names


PASSAGES = {
    passage.id: passage
    for passage in [
        Passage("reports/report0.pdf#0", "Leave is booked in HELM by noon.", "Annual report", "reports/report0.pdf"),
        Passage("reports/report0.pdf#1", "Badges open the doors of the harbour.", "", "reports/report0.pdf"),
        Passage("a/x.md#0", "The crane is greased by its keeper.", "Introduction", "a/x.md"),
        Passage("b/x.md#0", "The winch is greased by its keeper.", "Introduction", "b/x.md"),
        Passage("x", "A passage named like a file.", "", "c/y.md"),
    ]
}
REPORT = ["reports/report0.pdf#0", "reports/report0.pdf#1"]


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        (["report0.pdf"], REPORT),
        (["annual report"], REPORT),
        (["/data/reports/report0.pdf"], REPORT),
        (["Report0, p. 3", "b/x"], [*REPORT, "b/x.md#0"]),
        (["report0.pdf; a\\x.md"], [*REPORT, "a/x.md#0"]),
        (["reports/report0.pdf#1"], REPORT[1:]),
        (["reports/report0.pdf#1 | x"], [REPORT[1], "x"]),
        (["x"], ["x"]),
        (["report0.pdf", "nowhere"], REPORT),
    ],
)
def test_the_documents_of_a_question_are_matched(documents: list[str], found: list[str]) -> None:
    locator = Locator(PASSAGES)
    assert locator.locate(RealQuestion("How?", documents)) == dict.fromkeys(found, 1)
    if found[:2] == REPORT:
        assert locator.locate(RealQuestion("How?", documents, "booked in HELM")) == {REPORT[0]: 1}
        assert locator.locate(RealQuestion("How?", documents, positives=["open the doors"])) == {REPORT[1]: 1}


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        (["x.md"], "is unclear: the question 'How?' names 'x.md', which may be 'a/x.md' or 'b/x.md': write more of"),
        (
            ["reprot0.pdf"],
            "names 'reprot0.pdf', which is not a document or passage (the nearest: 'reports/report0.pdf'",
        ),
        (["report0.pdf; y.pdf"], "names 'y.pdf', which is not a document or passage"),
        (["Introduction"], "is not in the corpus: the question 'How?' names 'Introduction'"),
        ([], "is not in the corpus: the question 'How?' names none"),
        (["reports/report0.pdf#9"], "names 'reports/report0.pdf#9', which is not a document or passage"),
    ],
)
def test_a_question_whose_document_is_unclear_is_refused(documents: list[str], said: str) -> None:
    with pytest.raises(UnknownIdError) as failure:
        Locator(PASSAGES).locate(RealQuestion("How?", documents))
    assert said in str(failure.value)
    with pytest.raises(InputError, match="its evidence is not in its document"):
        Locator(PASSAGES).locate(RealQuestion("How?", ["report0"], "Elephants never forget a harbour."))


def test_other_names_of_documents_can_be_given() -> None:
    locator = Locator(PASSAGES, {"b7c1": ["a/x.md"], "/srv/b/x.md": ["b/x.md"], "Introduction": ["b/x.md"]})
    assert locator.inside(["b7c1"]) == ["a/x.md#0"]
    assert locator.inside(["/srv/b/x.md"]) == ["b/x.md#0"]
    assert locator.inside(["introduction"]) == ["b/x.md#0"]
