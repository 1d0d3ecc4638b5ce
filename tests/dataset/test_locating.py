"""A text is located in the corpus by equality, containment or shared words, or reported as missing."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft.dataset.formats.real_questions import RealQuestion, read_questions
from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.locating import MAX_SCANNED, Locator
from rag_ft.errors import InputError, UnknownIdError

WORDS = [f"w{number}" for number in range(60)]
LONG = {f"d#{place}": Passage(f"d#{place}", " ".join(WORDS[start : start + 20]), "", "d") for place, start in
        enumerate((0, 20, 40))}  # fmt: skip
CROWD = LONG | {
    f"e#{place}": Passage(f"e#{place}", f"x{place} y{place} shared tail", "", "e") for place in range(MAX_SCANNED + 9)
}


@pytest.mark.parametrize("passages", [LONG, CROWD], ids=["few", "many"])
@pytest.mark.parametrize("documents", [[], ["d"]], ids=["anywhere", "in its document"])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" ".join(WORDS[20:40]).replace(" ", "\n"), ["d#1"]),
        (" ".join(WORDS[22:30]), ["d#1"]),
        (" ".join(WORDS[22:30])[1:-1], ["d#1"]),
        (" ".join(WORDS[5:50]), ["d#0", "d#1", "d#2"]),
        (" ".join(WORDS[8:46]), ["d#0", "d#1"]),
        (" ".join(WORDS[0:40]), ["d#0", "d#1"]),
        (" ".join(WORDS[12:26]), ["d#0"]),
        (" ".join(WORDS[15:45:3]), []),
        (" ".join(WORDS[20:26] + ["new"] * 8), []),
        (" ".join([*WORDS[20:30], "TYPO", *WORDS[31:40]]).upper(), ["d#1"]),
        ("quite another text of six words", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_text_is_located_or_reported_as_missing(text: str, found: list, documents: list, passages: dict) -> None:
    assert Locator(passages).find(text, documents) == found


def test_a_short_text_counts_only_inside_its_document() -> None:
    locator = Locator(CROWD)
    assert locator.find("shared tail") == []
    assert len(locator.find("shared tail", ["e"])) == MAX_SCANNED + 9
    assert locator.find("x7 y7 shared", ["e"]) == ["e#7"]
    assert locator.find("x7 y7 shared tail") == ["e#7"]
    assert locator.find("w5 w6", ["e#7", "d#0"]) == ["d#0"]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_index_finds_what_a_full_scan_finds(data: st.DataObject) -> None:
    texts = data.draw(
        st.lists(st.lists(st.sampled_from("abcdefgh休暇申請"), min_size=1, max_size=9).map(" ".join), min_size=1)
    )
    passages = {f"p{place}": Passage(f"p{place}", text) for place, text in enumerate(texts)}
    whole = data.draw(st.sampled_from(texts))
    start = data.draw(st.integers(0, len(whole) - 1))
    text = whole[start : data.draw(st.integers(start + 1, len(whole)))].strip()
    found = set(Locator(passages).find(text))
    wanted = {key for key, passage in passages.items() if passage.text == text}
    if not wanted and len(text.split()) >= 5:
        wanted = {key for key, passage in passages.items() if text in passage.text}
    if wanted:
        assert found == wanted


def test_missing_evidence_selects_no_passage() -> None:
    with pytest.raises(InputError, match="its evidence is not in its document: the question 'How\\?' has 'Elephants"):
        Locator(LONG).locate(RealQuestion("How?", ["d"], "Elephants never forget a harbour."))
    with pytest.raises(UnknownIdError, match="'nowhere', which is not a document or passage"):
        Locator(LONG).locate(RealQuestion("How?", ["nowhere"]))
    with pytest.raises(InputError, match="its passage is not in the corpus: the question 'How\\?'"):
        Locator(LONG).locate(RealQuestion("How?", positives=["Elephants never forget a harbour."]))
    assert Locator(LONG).locate(RealQuestion("How?", ["d"], "w4\n w5")) == {"d#0": 1}
    assert Locator(LONG).locate(RealQuestion("How?", positives=[LONG["d#2"].text, "gone"])) == {"d#2": 1}
    assert Locator(LONG).locate(RealQuestion("How?", ["d"])) == dict.fromkeys(LONG, 1)


def test_every_evidence_of_the_demo_is_found(acme: Path) -> None:
    from rag_ft.documents.nodes import cut_into_nodes, passages_from_nodes
    from rag_ft.documents.reader import read_documents

    passages = passages_from_nodes(cut_into_nodes(read_documents(acme / "documents")))
    locator = Locator(passages)
    questions = read_questions(acme / "questions.jsonl")
    assert len(questions) >= 50
    for question in questions:
        found = locator.locate(question)
        assert {passages[key].document for key in found} <= set(question.documents)
        assert any(" ".join(question.evidence.split())[:20] in " ".join(passages[key].text.split()) for key in found)
