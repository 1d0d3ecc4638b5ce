"""Turn the passages that people picked in an app or on the A/B page into training questions."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.formats.real_questions import RealQuestion
from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.locating import Locator
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import InputError
from rag_ft.feedback.shown_query import ShownQuery, shown_queries
from rag_ft.feedback.vote_log import Votes, digest_of

logger = logging.getLogger(__name__)

MAX_QUESTION_CHARACTERS = 2_000
"""Maximum length of a question. A longer one is probably a pasted text."""

MAX_PICKS = 5
"""Maximum number of picks for a query: more picks suggest that the passages were not read."""

MAX_NEGATIVES = 5

MISSING_PASSAGE = "its picked passage is not in the corpus any more"


@dataclass
class _Picks:
    """The picks of all people who asked a question: text -> ids of the passages that contain it."""

    question: str
    positives: dict[str, tuple[str, ...]] = field(default_factory=dict)
    negatives: dict[str, tuple[str, ...]] = field(default_factory=dict)


def questions_from_feedback(
    file: str | Path | Votes, passages: Mapping[str, Passage]
) -> tuple[list[RealQuestion], list[DroppedRow]]:
    """Turn the picks of a vote log into questions with positive and negative passages.

    A picked passage is a positive. A passage above it in the same list that was not picked is a hard negative
    (Joachims 2002), unless anyone picked it for the same question. Votes on a variant are ignored, because they do not
    judge a passage. The file is not trusted: a passage only counts if the corpus contains its text.

    Args:
        file: the vote log of `ABRetriever`, `ABQueryEngine` or `rag-ft ab`.
        passages: the current corpus.

    Returns:
        (distinct questions, one row of `dropped.jsonl` for each pick that cannot be used).

    Raises:
        InputError: if the file does not exist or has no usable pick.

    Example:
        >>> import tempfile
        >>> from rag_ft import Passage
        >>> from rag_ft.feedback import ShownResults, Votes, questions_from_feedback
        >>> votes = Votes(tempfile.mkdtemp() + "/votes.jsonl")
        >>> texts = {"x": "Badges open doors.", "y": "A Kittiwake is an expenses claim."}
        >>> results = ShownResults(passages=["x", "y"], teams=["a", "b"])
        >>> votes.shown("q1", "interleave", "me", "What is a claim?", results, texts=texts)
        >>> votes.pick("q1", "y")
        'b'
        >>> questions, _ = questions_from_feedback(votes, {key: Passage(key, text) for key, text in texts.items()})
        >>> questions[0].text, questions[0].positives, questions[0].negatives
        ('What is a claim?', ('A Kittiwake is an expenses claim.',), ('Badges open doors.',))
    """
    votes = file if isinstance(file, Votes) else _open_votes(Path(file))
    rows = list(votes.rows())
    corpus = _Corpus(passages, {row["digest"]: row["text"] for row in rows if _is_passage(row)})
    dropped: list[DroppedRow] = []
    picks: dict[str, _Picks] = {}
    for shown in shown_queries(rows).values():
        if not shown.picks:
            continue
        question = plain_question(str(shown.row["question"]))
        if reason := _reason_to_drop(question, shown):
            dropped.append(dropped_row(Query("", question[:MAX_QUESTION_CHARACTERS], HUMAN), "", reason))
            continue
        question_picks = picks.setdefault(one_line(question).casefold(), _Picks(question))
        for passage in shown.picks:
            ids = corpus.find(shown, passage)
            if not ids:
                dropped.append(dropped_row(Query("", question, HUMAN), passage[:200], MISSING_PASSAGE))
                continue
            question_picks.positives[corpus.text(ids)] = ids
            for skipped in skipped_above(shown, passage):
                if skipped_ids := corpus.find(shown, skipped):
                    question_picks.negatives[corpus.text(skipped_ids)] = skipped_ids
    questions = [_real_question(question_picks) for question_picks in picks.values() if question_picks.positives]
    if not questions:
        first = f" ({len(dropped)} cannot be used, the first because: {dropped[0]['reason']})" if dropped else ""
        raise InputError(
            f"{votes.file} contains no picks to train on{first}: votes only compare variants, so collect picks of "
            "passages"
        )
    if dropped:
        logger.warning("%s: %d picks cannot be used (the first: %s)", votes.file, len(dropped), dropped[0]["reason"])
    return questions, dropped


def skipped_above(shown: ShownQuery, passage: str) -> list[str]:
    """Return the unpicked passages above a picked one, in the list where it was picked."""
    variant = shown.picks.get(passage)
    lists = [shown.rankings[variant]] if variant is not None else [shown.passages, *shown.rankings.values()]
    above = (key for ranking in lists if passage in ranking for key in ranking[: ranking.index(passage)])
    return [key for key in dict.fromkeys(above) if key not in shown.picks]


def plain_question(text: str) -> str:
    """Return a question without control characters and without halves of surrogate pairs."""
    text = text.encode("utf-8", "replace").decode()
    return " ".join(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", " ", text).split())


def _real_question(picks: _Picks) -> RealQuestion:
    positive_ids = dict.fromkeys(passage for ids in picks.positives.values() for passage in ids)
    negatives = [text for text, ids in picks.negatives.items() if positive_ids.keys().isdisjoint(ids)]
    return RealQuestion(
        picks.question,
        tuple(positive_ids),
        positives=tuple(picks.positives),
        negatives=tuple(negatives[:MAX_NEGATIVES]),
    )


def _reason_to_drop(question: str, shown: ShownQuery) -> str:
    """Return why the picks for a question cannot be used; empty if they can."""
    if not re.search(r"\w", question):
        return "its question is empty"
    if len(question) > MAX_QUESTION_CHARACTERS:
        return f"its question has more than {MAX_QUESTION_CHARACTERS:,} characters"
    if len(shown.picks) > MAX_PICKS:
        return f"more than {MAX_PICKS} passages were picked for it"
    return ""


class _Corpus:
    """Finds shown passages in the corpus by their text."""

    def __init__(self, passages: Mapping[str, Passage], texts: Mapping[str, str]) -> None:
        self._passages, self._texts = passages, texts
        self._locator = Locator(passages)
        self._ids_of: dict[tuple[str, str], tuple[str, ...]] = {}

    def find(self, shown: ShownQuery, passage: str) -> tuple[str, ...]:
        """Return the ids of the passages that contain the text of a shown passage; none if it is not in the corpus."""
        digests = shown.row.get("digests")
        digest = digests.get(passage) if isinstance(digests, Mapping) else None
        text = self._texts.get(digest, "") if isinstance(digest, str) else ""
        # The id alone is not enough: if the documents were cut differently, it belongs to another text.
        if not text:
            return ()
        if (passage, text) not in self._ids_of:
            self._ids_of[passage, text] = tuple(self._locator.find(text, [passage]))
        return self._ids_of[passage, text]

    def text(self, ids: Iterable[str]) -> str:
        """Return the current text of passages."""
        return "\n".join(self._passages[key].text or self._passages[key].title for key in ids)


def _is_passage(row: Mapping[str, Any]) -> bool:
    text = row.get("text")
    return row["event"] == "passage" and isinstance(text, str) and row.get("digest") == digest_of(text)


def _open_votes(file: Path) -> Votes:
    if not file.is_file():
        raise InputError(f"{file} is not a file: pass the vote log of rag-ft ab, ABRetriever or ABQueryEngine")
    return Votes(file)
