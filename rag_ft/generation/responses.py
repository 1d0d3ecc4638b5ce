"""Read the questions and verdicts in an LLM's response."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rag_ft.dataset.text.cloze import located_span


@dataclass(frozen=True)
class GeneratedQuestion:
    """A question that an LLM wrote.

    Attributes:
        text: the question.
        style: one of `STYLES` or of your own styles.
        answer: a short answer, if the prompt asks for one.
        evidence: the words of the passage that contain the answer; empty if the passage does not contain them.
    """

    text: str
    style: str = "question"
    answer: str = ""
    evidence: str = ""


def questions_in_json(response: str, styles: Sequence[str], passage: str) -> list[GeneratedQuestion] | None:
    """Return the questions in a response that is the requested JSON; None if it is not.

    Backticks around the JSON and the `<think>` block of a reasoning model are allowed.
    """
    try:
        return _questions(json.loads(_bare(response)), styles, passage)
    except (ValueError, RecursionError):
        return None


def questions_leniently(response: str, styles: Sequence[str], passage: str) -> list[GeneratedQuestion]:
    """Return the questions in a response that is invalid JSON.

    Accepts JSON within other text, complete items of torn JSON, and lines that end with a question mark.
    """
    text = _bare(response)
    for value in _json_values(text):
        if questions := _questions(value, styles, passage):
            return questions
    torn = re.findall(r'"(?:question|query)"\s*:\s*"((?:[^"\\]|\\.){3,400})"', text)
    texts = []
    for item in torn:
        try:
            texts.append(str(json.loads(f'"{item}"', strict=False)))
        except ValueError:
            continue
    # A line of broken JSON may end with a question mark, but is not a question.
    lines = [
        line for line in questions_in(text, len(styles)) if line.endswith(("?", "？")) and not line.startswith("{")
    ]
    return [
        GeneratedQuestion(_plain(question), styles[min(number, len(styles) - 1)])
        for number, question in enumerate((texts or lines)[: len(styles)])
    ]


def questions_in(response: str, count: int) -> list[str]:
    """Return the questions in a response, one per line, without numbers, bullets and quotes.

    Example:
        >>> from rag_ft.generation.responses import questions_in
        >>> questions_in('1. "Who signs a T-9?"\\n- When is it due?', count=2)
        ['Who signs a T-9?', 'When is it due?']
    """
    lines = []
    for line in _bare(response).splitlines():
        text = (
            re.sub(r"^\s*(?:[-*•]|\(?\d+[.):](?!\d)|Q\d*[.:]|Question\s*\d*:)\s*", "", line.replace("**", ""))
            .strip()
            .strip("\"'“”„«»`")
            .strip()
        )
        if text and not text.endswith(":"):
            lines.append(text)
    questions = [text for text in lines if text.endswith(("?", "？"))]
    return (questions or lines)[:count]


def is_json(response: str) -> bool:
    """Return whether a response is JSON of any kind."""
    try:
        json.loads(_bare(response))
    except (ValueError, RecursionError):
        return False
    return True


def verdict_in(response: str) -> tuple[bool, str] | None:
    """Return (whether to keep a question, why not) from a judge's response; None if it contains no verdict."""
    for value in _json_values(_bare(response)):
        if isinstance(value, dict) and isinstance(value.get("keep"), bool):
            return value["keep"], _plain(str(value.get("reason") or ""))[:120]
    return None


def _bare(response: str) -> str:
    """Remove a `<think>` block and backticks around a response."""
    text = response.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rstrip().removesuffix("```").strip()
    return text


def _json_values(text: str) -> Iterator[Any]:
    """Yield the JSON values within a text."""
    decoder = json.JSONDecoder()
    for match in islice(re.finditer(r"[\[{]", text), 50):
        try:
            yield decoder.raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            continue


def _plain(text: str) -> str:
    # JSON can contain half of a surrogate pair (\ud83d), which cannot be written to a file.
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _questions(value: Any, styles: Sequence[str], passage: str) -> list[GeneratedQuestion] | None:
    items = value.get("questions", [value]) if isinstance(value, dict) else value
    if not isinstance(items, list):
        return None
    questions: list[GeneratedQuestion] = []
    for item in items:
        row = {"question": item} if isinstance(item, str) else item
        text = row.get("question") if isinstance(row, dict) else None
        if not isinstance(text, str) or not text.strip() or len(questions) == len(styles):
            continue
        given_style = str(row.get("style") or "").strip().lower()
        style = given_style if given_style in styles else styles[len(questions)]
        answer, evidence = (part if isinstance(part := row.get(name), str) else "" for name in ("answer", "evidence"))
        questions.append(GeneratedQuestion(_plain(text), style, _plain(answer), located_span(evidence, passage)))
    return questions or None
