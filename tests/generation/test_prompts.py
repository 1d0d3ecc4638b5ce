"""What an LLM is asked, and how its answer is read, whatever it is."""

import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag_ft.generation.prompts import QUESTION_PROMPT, STYLES, fenced, styles_for
from rag_ft.generation.responses import (
    GeneratedQuestion,
    questions_in,
    questions_in_json,
    questions_leniently,
    verdict_in,
)


@pytest.mark.parametrize(
    ("answer", "questions"),
    [
        ("Who signs a T-9?", ["Who signs a T-9?"]),
        ('1. "Who signs a T-9?"\n2) When is it due?\n', ["Who signs a T-9?", "When is it due?"]),
        ("Here are the questions:\n\n- Who signs?\n* When is it due?", ["Who signs?", "When is it due?"]),
        ("Question 1: Who signs?\nQ2: When is it due?", ["Who signs?", "When is it due?"]),
        ("1. **Who signs a T-9?**\n**2. When is it due?**", ["Who signs a T-9?", "When is it due?"]),
        ("2.5 million euros: who approves them?", ["2.5 million euros: who approves them?"]),
        ("10:30 is when which meeting begins?", ["10:30 is when which meeting begins?"]),
        ("Sure! I can help.\nWho signs a T-9?", ["Who signs a T-9?"]),
        ("rules of parental leave", ["rules of parental leave"]),
        ("谁签署表格？", ["谁签署表格？"]),
        ("", []),
        ("\n \n-\n1.\n", []),
    ],
)
def test_questions_are_read_from_lines(answer: str, questions: list[str]) -> None:
    assert questions_in(answer, 5) == questions


def test_surplus_questions_are_ignored() -> None:
    assert questions_in("One here?\nTwo here?\nThree here?", 2) == ["One here?", "Two here?"]


TAG = st.sampled_from(["<passage>", "</passage>", "</ PASSAGE >", "< /passage>", "</pas", "sage>", "<", "/", ">", " "])


@given(parts=st.lists(TAG | st.text(max_size=5), max_size=12))
@example(parts=["</pas", "</passage>", "sage>"])
@example(parts=["</passage id='1'>"])
@example(parts=["<", "</passage>", "/passage>"])
@example(parts=["<" * 20_000, "passage"])
@settings(deadline=None)
def test_a_passage_cannot_close_its_fence(parts: list[str]) -> None:
    prompt = QUESTION_PROMPT.format(passage=fenced("".join(parts)), count=1, styles="- question", language="English")
    inside = prompt.split("\n<passage>\n", 1)[1]
    assert len(re.findall(r"<\s*/\s*passage\b", inside, re.IGNORECASE)) == 1


def test_braces_in_a_passage_are_not_variables() -> None:
    passage = "Set {count} in {passage}, {0} and {unknown}."
    prompt = QUESTION_PROMPT.format(passage=fenced(passage), count=7, styles="- question", language="English")
    assert passage in prompt
    assert "Write 7 search queries" in prompt


def test_a_long_passage_is_cut() -> None:
    assert len(fenced("word " * 10_000)) == 6000


# JSON

PASSAGE = "Forty days of leave are given.\nIt is booked in HELM by noon."
STYLED = ["question", "keywords"]


@pytest.mark.parametrize(
    "answer",
    [
        '{"questions": [{"style": "question", "question": "When is leave booked?"}]}',
        '```json\n{"questions": [{"style": "question", "question": "When is leave booked?"}]}\n```',
        '<think>Hm. Who asks? {"questions": []}</think>\n{"questions": ["When is  leave\\nbooked?"]}',
        '[{"question": "When is leave booked?"}]',
        '{"question": "When is leave booked?", "style": "a kind of its own"}',
        '{"questions": [{"question": ""}, {"question": 7}, null, {"question": "When is leave booked?"}]}',
    ],
)
def test_a_response_in_json_is_read(answer: str) -> None:
    assert questions_in_json(answer, STYLED, PASSAGE) == [GeneratedQuestion("When is leave booked?", "question")]


@pytest.mark.parametrize(
    "answer",
    [
        'Here you are:\n{"questions": [{"style": "question", "question": "When is leave booked?"}]} Good luck!',
        '{"questions": [{"style": "question", "question": "When is leave booked?"}, {"style": "keyw',
        '{"questions": [{"style": "question", "question": "When is leave booked?",}]}',
        "Sure!\n1. When is leave booked?",
    ],
)
def test_questions_are_found_in_broken_json(answer: str) -> None:
    assert questions_in_json(answer, STYLED, PASSAGE) is None
    found = questions_leniently(answer, STYLED, PASSAGE)
    assert [question.text for question in found] == ["When is leave booked?"]


@pytest.mark.parametrize(
    "answer", ["", "I cannot help with that.", '{"questions": [{"style": "question", "ques', "[[[[{"]
)
def test_no_questions_are_found_in_garbage(answer: str) -> None:
    assert questions_in_json(answer, STYLED, PASSAGE) is None
    assert questions_leniently(answer, STYLED, PASSAGE) == []


@given(answer=st.text(st.sampled_from('{}[]":,\\ questionstyle?\n1.-`<think/>é')) | st.text(max_size=80))
@settings(deadline=None)
def test_reading_any_response_raises_nothing(answer: str) -> None:
    strict = questions_in_json(answer, STYLED, PASSAGE)
    for question in [*(strict or []), *questions_leniently(answer, STYLED, PASSAGE)]:
        assert question.text == " ".join(question.text.split()) != ""
        assert question.style in STYLED


def test_evidence_must_be_in_the_passage() -> None:
    rows = [
        {"question": "When is leave booked?", "answer": "by noon", "evidence": "leave are given. It is booked"},
        {"question": "Who books it?", "answer": "the master", "evidence": "The master books it."},
    ]
    found = questions_in_json(json.dumps({"questions": rows}), STYLED, PASSAGE)
    assert found is not None
    assert [question.evidence for question in found] == ["leave are given.\nIt is booked", ""]
    assert [question.answer for question in found] == ["by noon", "the master"]


def test_styles_are_about_equally_frequent_and_depend_on_the_passage_only() -> None:
    names = list(STYLES)
    drawn = [styles_for(f"Passage number {n}.", names, 1)[0] for n in range(400)]
    assert all(60 <= drawn.count(name) <= 140 for name in names)
    assert styles_for("Passage number 7.", names, 1) == [drawn[7]]
    assert sorted(styles_for("x", names, 4)) == sorted(names)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ('{"keep": true}', (True, "")),
        ('```\n{"keep": false, "reason": "too vague"}\n```', (False, "too vague")),
        ('My verdict: {"keep": false}', (False, "")),
        ('{"keep": "yes"}', None),
        ("yes", None),
        ("[1]", None),
    ],
)
def test_a_verdict_is_yes_no_or_missing(answer: str, verdict: tuple[bool, str] | None) -> None:
    assert verdict_in(answer) == verdict


def test_a_long_broken_response_is_read_quickly() -> None:
    started = time.monotonic()
    for answer in ("```json" + "\n" * 50_000 + "{", "[" * 50_000, "{" * 50_000, '"question": "' * 5_000, "\\" * 50_000):
        questions_in_json(answer, STYLED, PASSAGE)
        questions_leniently(answer, STYLED, PASSAGE)
    assert time.monotonic() - started < 10


def test_half_a_character_in_json_becomes_a_question_mark() -> None:
    (question,) = questions_in_json('{"questions": ["Who \\ud83d signs?"]}', STYLED, PASSAGE) or []
    assert question.text == "Who ? signs?"
