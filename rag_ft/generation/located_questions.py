"""Real questions with the passages of the corpus that answer them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.formats.real_questions import RealQuestion
from rag_ft.dataset.qa_dataset import QADataset, Query
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.locating import Locator
from rag_ft.errors import InputError

logger = logging.getLogger(__name__)

MIN_REAL_QUESTIONS = 50
"""Fewer test questions rarely give a verdict."""

MAX_MISSING = 0.05
"""If a larger share of real questions is about passages that do not exist, they belong to another corpus."""


@dataclass(frozen=True)
class LocatedQuestion:
    """A question that a person asked.

    Attributes:
        query: the question.
        relevant: passage id -> grade, for the passages that answer it.
        negatives: ids of passages that were said not to answer it.
    """

    query: Query
    relevant: dict[str, int]
    negatives: list[str]


def locate_questions(
    questions: Sequence[RealQuestion], corpus: QADataset, prefix: str = HUMAN
) -> tuple[list[LocatedQuestion], list[DroppedRow]]:
    """Find the passages of real questions.

    Args:
        questions: questions with their documents or passages.
        corpus: the passages.
        prefix: prefix of the id of a question without one.

    Raises:
        InputError: if two questions have the same id, or more than one in twenty names a document or passage that is
            not in the corpus.
    """
    locator = Locator(corpus.passages)
    found: list[LocatedQuestion] = []
    dropped: list[DroppedRow] = []
    first_error: InputError | None = None
    members = near_duplicates_by_group(corpus)
    own_ids = Counter(question.id for question in questions if question.id)
    if repeated := next((name for name, times in own_ids.items() if times > 1), None):
        raise InputError(f"two real questions have the id {repeated!r}: ids must be unique")
    free_ids = (name for number in count() if (name := f"{prefix}{number}") not in own_ids)
    for question in questions:
        query = Query(question.id or next(free_ids), question.text, HUMAN, question.answer, question.evidence)
        try:
            located = locator.locate(question)
        except InputError as error:
            first_error = first_error or error
            dropped.append(dropped_row(query, "", str(error)))
            continue
        # If a whole document answers the question, its boilerplate does not.
        relevant = {key: grade for key, grade in located.items() if key not in corpus.boilerplate} or located
        relevant |= {key: 1 for passage in list(relevant) for key in members[corpus.near_duplicates[passage]]}
        answers = {corpus.near_duplicates[passage] for passage in relevant}
        negatives = dict.fromkeys(key for text in question.negatives for key in locator.find(text))
        others = [key for key in negatives if corpus.near_duplicates[key] not in answers]
        found.append(LocatedQuestion(query, relevant, others))
    if first_error is not None and len(dropped) > MAX_MISSING * len(questions):
        more = f" (the first of {len(dropped)} among {len(questions)} questions)" if len(dropped) > 1 else ""
        raise InputError(f"{first_error}{more}")
    for row in dropped:
        logger.warning("left out: %s", row["reason"])
    return found, dropped


def warn_if_few(questions: Sequence[LocatedQuestion]) -> None:
    """Warn if there are real questions, which then are the whole test split, but too few of them."""
    if questions and len(questions) < MIN_REAL_QUESTIONS:
        logger.warning(
            "%d real questions are the whole test, and too few for a verdict: give %d or more",
            len(questions), MIN_REAL_QUESTIONS,
        )  # fmt: skip


def near_duplicates_by_group(corpus: QADataset) -> dict[int, list[str]]:
    """Return group -> ids of the passages that are near-duplicates of each other."""
    members: dict[int, list[str]] = defaultdict(list)
    for passage, group in corpus.near_duplicates.items():
        members[group].append(passage)
    return members
