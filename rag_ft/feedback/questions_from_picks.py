"""What people picked, in the app or on the A/B page -> questions with the passage that answers them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_ft.dataset.formats.labelled_pairs import one_line
from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.locating import Locator
from rag_ft.errors import InputError
from rag_ft.feedback.tally import ShownQuery, shown_queries
from rag_ft.feedback.vote_log import Votes, digest_of
from rag_ft.generation.filters import Row, dropped_row
from rag_ft.generation.real_questions import RealQuestion

logger = logging.getLogger(__name__)

LONGEST = 2_000
"""Characters of a question: what is longer is a text that somebody pasted."""

MOST_PICKS = 5
"""Passages that one person may call right for one question; who picks more did not read them."""

MOST_NEGATIVES = 5

GONE = "its picked passage is not in the corpus any more"


@dataclass
class _Said:
    """What was said about a question, by whoever asked it."""

    text: str
    positives: dict[str, tuple[str, ...]] = field(default_factory=dict)
    negatives: dict[str, tuple[str, ...]] = field(default_factory=dict)


def questions_from_feedback(
    file: str | Path | Votes, passages: Mapping[str, Passage]
) -> tuple[list[RealQuestion], list[Row]]:
    """Questions that people asked, with the passages that they picked, from a file of votes.

    A picked passage is a positive. What stood above it in the same list and was not picked is a hard negative
    (Joachims 2002), unless somebody picked it for the same question. Votes on a side say nothing of a passage, and
    are left out. The file may come from anywhere: a passage counts only where its text stands in the corpus.

    Args:
        file: of `ABRetriever`, `ABQueryEngine` or `rag-ft ab`.
        passages: the corpus as it is now.

    Returns:
        (each question once, a row for `dropped.jsonl` of each pick that cannot be used).

    Raises:
        InputError: where there is no such file, or it holds no pick that can be used.

    Example:
        >>> import tempfile
        >>> from rag_ft import Passage
        >>> from rag_ft.feedback import Votes, questions_from_feedback
        >>> votes = Votes(tempfile.mkdtemp() + "/votes.jsonl")
        >>> texts = {"x": "Badges open doors.", "y": "A Kittiwake is an expenses claim."}
        >>> shown = {"passages": ["x", "y"], "teams": ["a", "b"]}
        >>> votes.shown("q1", "interleave", "me", "What is a claim?", texts=texts, **shown)
        >>> votes.pick("q1", "y")
        'b'
        >>> questions, _ = questions_from_feedback(votes, {key: Passage(key, text) for key, text in texts.items()})
        >>> questions[0].text, questions[0].positives, questions[0].negatives
        ('What is a claim?', ('A Kittiwake is an expenses claim.',), ('Badges open doors.',))
    """
    votes = file if isinstance(file, Votes) else _opened(Path(file))
    rows = list(votes.rows())
    texts = {row["digest"]: row["text"] for row in rows if _is_passage(row)}
    picked = [shown for shown in shown_queries(rows).values() if shown.picks]
    corpus = _Corpus(passages, texts)
    dropped: list[Row] = []
    said: dict[str, _Said] = {}
    for shown in picked:
        question = plain_question(str(shown.row["question"]))
        reason = _why_not(question, shown)
        if reason:
            dropped.append(dropped_row(Query("", question[:LONGEST], HUMAN), "", reason))
            continue
        about = said.setdefault(one_line(question).casefold(), _Said(question))
        for passage in shown.picks:
            places = corpus.places(shown, passage)
            if not places:
                dropped.append(dropped_row(Query("", question, HUMAN), passage[:200], GONE))
                continue
            about.positives[corpus.text(places)] = places
            for above in above_of(shown, passage):
                if above_places := corpus.places(shown, above):
                    about.negatives[corpus.text(above_places)] = above_places
    questions = [_question(about) for about in said.values() if about.positives]
    if not questions:
        first = f" (the first of {len(dropped)} that cannot be used: {dropped[0]['reason']})" if dropped else ""
        raise InputError(
            f"{votes.file} holds no pick that can be trained on{first}: votes say which side is better, picks which "
            "passage is right"
        )
    if dropped:
        logger.warning("%s: %d picks cannot be used (the first: %s)", votes.file, len(dropped), dropped[0]["reason"])
    return questions, dropped


def above_of(shown: ShownQuery, passage: str) -> list[str]:
    """What stood above a picked passage and was not picked, in the list where it was picked."""
    rankings = shown.rankings
    side = shown.picks.get(passage)
    lists = [rankings[side]] if side is not None else [shown.passages, *rankings.values()]
    above = (key for ranking in lists if passage in ranking for key in ranking[: ranking.index(passage)])
    return [key for key in dict.fromkeys(above) if key not in shown.picks]


def plain_question(text: str) -> str:
    """A question without control characters and halves of character pairs."""
    text = text.encode("utf-8", "replace").decode()
    return " ".join(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", " ", text).split())


def _question(about: _Said) -> RealQuestion:
    right = {place for places in about.positives.values() for place in places}
    wrong = [text for text, places in about.negatives.items() if right.isdisjoint(places)]
    named = dict.fromkeys(place for places in about.positives.values() for place in places)
    return RealQuestion(
        about.text, tuple(named), positives=tuple(about.positives), negatives=tuple(wrong[:MOST_NEGATIVES])
    )


def _why_not(question: str, shown: ShownQuery) -> str:
    if not re.search(r"\w", question):
        return "its question is empty"
    if len(question) > LONGEST:
        return f"its question has more than {LONGEST:,} characters"
    if len(shown.picks) > MOST_PICKS:
        return f"more than {MOST_PICKS} passages were picked for it"
    return ""


class _Corpus:
    """Finds passages that were shown, by their text."""

    def __init__(self, passages: Mapping[str, Passage], texts: Mapping[str, str]) -> None:
        self._passages, self._texts = passages, texts
        self._locator = Locator(passages)
        self._found: dict[tuple[str, str], tuple[str, ...]] = {}

    def places(self, shown: ShownQuery, passage: str) -> tuple[str, ...]:
        """The passages of the corpus where the text of one that was shown stands; none where it is gone."""
        digests = shown.row.get("digests")
        digest = digests.get(passage) if isinstance(digests, Mapping) else None
        text = self._texts.get(digest, "") if isinstance(digest, str) else ""
        # Without its text an id is not enough: another cutting of the documents gives it to another text.
        if not text:
            return ()
        if (passage, text) not in self._found:
            self._found[passage, text] = tuple(self._locator.find(text, [passage]))
        return self._found[passage, text]

    def text(self, places: Iterable[str]) -> str:
        """The text of passages as the corpus has it now."""
        return "\n".join(self._passages[place].text or self._passages[place].title for place in places)


def _is_passage(row: Mapping[str, Any]) -> bool:
    text = row.get("text")
    return row["event"] == "passage" and isinstance(text, str) and row.get("digest") == digest_of(text)


def _opened(file: Path) -> Votes:
    if not file.is_file():
        raise InputError(f"{file} is no file: give the votes of rag-ft ab, of ABRetriever or of ABQueryEngine")
    return Votes(file)
