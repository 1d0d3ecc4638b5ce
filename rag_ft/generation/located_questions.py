"""Locate the passages of the corpus that answer real questions."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from rag_ft.clean_text import clean_text, has_text
from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.formats.real_questions import RealQuestion
from rag_ft.dataset.qa_dataset import QADataset, Query
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.cloze import located_span
from rag_ft.dataset.text.locating import Locator
from rag_ft.errors import InputError
from rag_ft.generation.relevance import Relevance

logger = logging.getLogger(__name__)

MIN_REAL_QUESTIONS = 50
"""Minimum number of real test questions for a verdict."""

MAX_MISSING = 0.05
"""Maximum fraction of real questions whose passages do not exist. Above it, they belong to another corpus."""


@dataclass(frozen=True)
class LocatedQuestion:
    """A question that a person asked.

    Attributes:
        query: the question.
        relevant: passage id -> grade, for the passages that answer it.
        negatives: ids of passages that do not answer it.
    """

    query: Query
    relevant: dict[str, int]
    negatives: list[str]


def locate_questions(
    questions: Sequence[RealQuestion],
    corpus: QADataset,
    prefix: str = HUMAN,
    *,
    other_names: Mapping[str, Collection[str]] | None = None,
) -> tuple[list[LocatedQuestion], list[DroppedRow]]:
    """Locate the passages that answer real questions.

    Args:
        questions: questions with their documents or passages.
        corpus: the passages.
        prefix: prefix of the ids for questions without an id.
        other_names: other name of a document -> documents (`rag_ft.documents.node_documents.other_names`).

    Raises:
        InputError: if two questions have the same id, or more than 5 % name a document or passage that is not in the
            corpus.
    """
    questions = [_clean(question) for question in questions]
    locator = Locator(corpus.passages, other_names)
    located_questions: list[LocatedQuestion] = []
    dropped: list[DroppedRow] = []
    first_error: InputError | None = None
    relevance = Relevance(corpus)
    given_ids = Counter(question.id for question in questions if question.id)
    if repeated := next((name for name, times in given_ids.items() if times > 1), None):
        raise InputError(f"two real questions have the id {repeated!r}: ids must be unique")
    free_ids = (name for number in count() if (name := f"{prefix}{number}") not in given_ids)
    for question in questions:
        query = Query(question.id or next(free_ids), question.text, HUMAN, question.answer, question.evidence)
        if not has_text(question.text):
            dropped.append(dropped_row(query, "", "it has no text"))
            continue
        try:
            answering = locator.locate(question)
        except InputError as error:
            first_error = first_error or error
            dropped.append(dropped_row(query, "", str(error)))
            continue
        # If a whole document answers the question, its boilerplate does not.
        relevant = {key: grade for key, grade in answering.items() if key not in corpus.boilerplate} or answering
        relevant, one_answer = _with_holders(question, relevant, relevance, corpus)
        query = replace(query, one_answer=one_answer)
        answering_groups = {corpus.near_duplicates[passage] for passage in relevant}
        marked = dict.fromkeys(key for text in question.negatives for key in locator.find(text))
        negatives = [key for key in marked if corpus.near_duplicates[key] not in answering_groups]
        located_questions.append(LocatedQuestion(query, relevant, negatives))
    if first_error is not None and len(dropped) > MAX_MISSING * len(questions):
        more = f" (the first of {len(dropped)} such errors in {len(questions)} questions)" if len(dropped) > 1 else ""
        raise InputError(f"{first_error}{more}")
    for row in dropped:
        logger.warning("a question is left out: %s", row["reason"])
    return located_questions, dropped


def _with_holders(
    question: RealQuestion, relevant: dict[str, int], relevance: Relevance, corpus: QADataset
) -> tuple[dict[str, int], bool]:
    """Add the passages that contain the answer too. Return them, and whether all of them hold the same answer."""
    # A snippet or a text is one answer. Of a whole document, each passage may have another part of the answer.
    spans = [text for text in (question.positives or [_as_in_passage(question, relevant, corpus)]) if text.strip()]
    documents = {corpus.passages[key].document for key in relevant}
    holders = dict(relevant)
    for span in spans or [""]:
        found = relevance.holding(span, list(relevant))
        if question.documents or relevance.in_many_documents(found):
            found = {key: grade for key, grade in found.items() if corpus.passages[key].document in documents}
        # A text that was cut in other places may be in several passages, each with a part of it.
        if len(spans) == 1 and relevant.keys() <= set(corpus.containment.holding(span)):
            return found, True
        holders |= {key: 1 for key in found if key not in holders}
    return holders, False


def _as_in_passage(question: RealQuestion, relevant: Iterable[str], corpus: QADataset) -> str:
    """Return the evidence as a passage has it: a person may add quotation marks, or leave out markup."""
    found = (located_span(question.evidence, corpus.passages[key].own_text) for key in relevant)
    return next(filter(None, found), question.evidence)


def _clean(question: RealQuestion) -> RealQuestion:
    """Return a question as it can be stored.

    Raises:
        InputError: if its id cannot be stored.
    """
    if re.search(r"[\t\r\n]", question.id) or question.id != clean_text(question.id):
        raise InputError(f"the id {question.id!r} of a question has a tab, a line break or half a character: change it")
    return replace(
        question, text=clean_text(question.text), answer=clean_text(question.answer),
        evidence=clean_text(question.evidence), positives=[clean_text(text) for text in question.positives],
        negatives=[clean_text(text) for text in question.negatives],
    )  # fmt: skip


def warn_if_few(questions: Sequence[LocatedQuestion]) -> None:
    """Warn if the test split, which only contains the real questions, is too small for a verdict."""
    if questions and len(questions) < MIN_REAL_QUESTIONS:
        logger.warning(
            "the test split has only %d real questions, too few for a verdict: add at least %d",
            len(questions), MIN_REAL_QUESTIONS - len(questions),
        )  # fmt: skip
