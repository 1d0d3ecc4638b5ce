"""Questions of all makings -> one dataset with its splits; real ones go to test first."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import count

from rag_ft.dataset.qa_dataset import QADataset, Qrels, Query
from rag_ft.dataset.sources import HUMAN, KEY_PHRASES
from rag_ft.dataset.splitting import split_questions
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.errors import InputError
from rag_ft.generation.filters import Pair, Row, dropped_row
from rag_ft.generation.real_questions import Locator, RealQuestion

logger = logging.getLogger(__name__)

REAL_TEST = 500
"""Real questions that all go to test; of more about so many, or a third of them, and the rest train and choose."""

SHARES = (0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0)
"""Of the passages of the documents that training sees, whose real questions may go to test."""

ENOUGH_REAL_DEV = 50
FEW_REAL = 50
"""Fewer questions end in no verdict."""

MOST_LOST = 0.05
"""A larger share of real questions whose passage is nowhere means that they belong to another corpus."""

OTHER_SOURCE = "its split is measured by questions of another making"
LIKE_ANOTHER = "too like a question of another split"

NEW_DOCUMENTS, NEW_QUESTIONS = 0.2, 0.15


@dataclass(frozen=True)
class Located:
    """A question that people asked, with the passages that answer it and those that were said not to."""

    query: Query
    relevant: dict[str, int]
    negatives: list[str]


def make_real(
    questions: Sequence[RealQuestion], corpus: QADataset, prefix: str = HUMAN
) -> tuple[list[Located], list[Row]]:
    """Find the passages of real questions.

    Args:
        questions: with their documents or passages.
        corpus: the passages.
        prefix: of the ids of those that have none.

    Raises:
        InputError: where more than one in twenty names a document or passage that is not in the corpus.
    """
    locator = Locator(corpus.passages)
    found: list[Located] = []
    dropped: list[Row] = []
    first: InputError | None = None
    common = corpus.boilerplate
    members = _members(corpus)
    named = [question.id for question in questions if question.id]
    if len(set(named)) < len(named):
        twice = next(name for name, times in Counter(named).items() if times > 1)
        raise InputError(f"two real questions have the id {twice!r}: ids must be unique")
    free = (name for number in count() if (name := f"{prefix}{number}") not in set(named))
    for question in questions:
        query = Query(question.id or next(free), question.text, HUMAN, question.answer, question.evidence)
        try:
            located = locator.locate(question)
            # Of a whole document that answers it, the boilerplate does not.
            relevant = {key: grade for key, grade in located.items() if key not in common} or located
            relevant |= {key: 1 for passage in list(relevant) for key in members[corpus.near_duplicates[passage]]}
        except InputError as error:
            first = first or error
            dropped.append(dropped_row(query, "", str(error)))
            continue
        answers = {corpus.near_duplicates[passage] for passage in relevant}
        negatives = {key: None for text in question.negatives for key in locator.find(text)}
        found.append(Located(query, relevant, [key for key in negatives if corpus.near_duplicates[key] not in answers]))
    if first is not None and len(dropped) > MOST_LOST * len(questions):
        more = f" (the first of {len(dropped)} among {len(questions)} questions)" if len(dropped) > 1 else ""
        raise InputError(f"{first}{more}")
    for row in dropped:
        logger.warning("left out: %s", row["reason"])
    return found, dropped


def warn_of_few(real: Sequence[Located]) -> None:
    """Say where real questions, which are the whole test, are too few."""
    if real and len(real) < FEW_REAL:
        logger.warning(
            "%d real questions are the whole test, and too few for a verdict: give %d or more", len(real), FEW_REAL
        )


def assemble(
    corpus: QADataset,
    pairs: Sequence[Pair],
    real: Sequence[Located],
    training: Set[str],
    evaluating: Set[str],
    seed: int,
    new_documents: float = NEW_DOCUMENTS,
    feedback: Sequence[Located] = (),
) -> tuple[QADataset, list[Row]]:
    """Split questions, and leave out what would leak or is of the wrong making for its split.

    All near-duplicates of a question's passage count as relevant too.

    Args:
        corpus: the passages.
        pairs: generated questions that passed the filters.
        real: questions that people asked.
        training: styles that are trained on.
        evaluating: styles of generated dev and test questions; dev has key phrases too.
        seed: of the draw.
        new_documents: share of the documents that training does not see. With 0 all are known: dev and test are new
            questions about them, and what only trains (sentences, headings) is taken from all of them.
        feedback: questions whose passages people picked: they are split as generated ones are. Where there are real
            questions to test on, none of these tests: only what the asked models showed could be picked.

    Returns:
        The dataset with its splits, and a row for each question that could go nowhere.
    """
    members = _members(corpus)
    queries = {query.id: query for query, _ in pairs} | {found.query.id: found.query for found in [*real, *feedback]}
    qrels: Qrels = {query.id: dict.fromkeys(members[corpus.near_duplicates[passage]], 1) for query, passage in pairs}
    picked: Qrels = {found.query.id: found.relevant for found in feedback}
    qrels |= picked
    real_qrels: Qrels = {found.query.id: found.relevant for found in real}
    dataset = corpus.with_questions(queries, {})
    measuring = {*evaluating, KEY_PHRASES}
    wanted = {"train": training, "dev": measuring, "test": {HUMAN} if real else evaluating}

    # Where all documents are known, what only trains says nothing about what is held out.
    only_train = {q for q in qrels if queries[q].source not in measuring and q not in picked}
    trains = {} if new_documents else {q: r for q, r in qrels.items() if q in only_train}
    divided = {query: relevant for query, relevant in qrels.items() if query not in trains}
    if len(real) > REAL_TEST:
        # The shares are of passages, and questions cluster: the least share that holds enough of them.
        for share in SHARES:
            splits = split_questions(dataset, divided | real_qrels, new_documents, share, seed=seed)
            if sum(query in real_qrels for query in splits["test"]) >= REAL_TEST:
                break
        enough = sum(query in real_qrels for query in splits["dev"]) >= ENOUGH_REAL_DEV
        wanted |= {"train": {*training, HUMAN}, "dev": {HUMAN} if enough else {*wanted["dev"], HUMAN}}
        splits["train"] |= _unlike(trains, splits["dev"] | splits["test"], queries)
        placed = splits
    else:
        # With real questions to test on, questions about known documents need not be taken from training.
        splits = split_questions(dataset, divided, new_documents, 0.0 if real else NEW_QUESTIONS, seed=seed)
        splits["train"] |= _unlike(trains, splits["dev"] | splits["test"], queries)
        splits = {name: _unlike(part, real_qrels, queries) for name, part in splits.items()} if real else splits
        placed = splits | {"test": real_qrels} if real else splits
    picked_in = {"train", "dev"} if real else {"train", "dev", "test"}
    kept = {
        name: {
            query: relevant
            for query, relevant in part.items()
            if (name in picked_in if query in picked else queries[query].source in wanted[name])
        }
        for name, part in placed.items()
    }
    used = {query for part in kept.values() for query in part}
    unlike = {query for part in splits.values() for query in part}
    dropped = [
        dropped_row(query, passage, OTHER_SOURCE if query.id in unlike else LIKE_ANOTHER)
        for query, passage in pairs
        if query.id not in used
    ]
    dropped += [dropped_row(found.query, "", LIKE_ANOTHER) for found in real if found.query.id not in used]
    dropped += [
        dropped_row(found.query, "", OTHER_SOURCE if found.query.id in unlike else LIKE_ANOTHER)
        for found in feedback
        if found.query.id not in used
    ]
    negatives = {
        found.query.id: found.negatives for found in [*real, *feedback] if found.negatives and found.query.id in used
    }
    return corpus.with_questions(
        {key: query for key, query in queries.items() if key in used}, kept, negatives
    ), dropped


def _members(corpus: QADataset) -> dict[int, list[str]]:
    members: dict[int, list[str]] = defaultdict(list)
    for passage, group in corpus.near_duplicates.items():
        members[group].append(passage)
    return members


def _unlike(part: Qrels, held_out: Qrels, queries: dict[str, Query]) -> Qrels:
    """The questions of a part that do not nearly repeat a held-out one."""
    if not part:
        return {}
    ids = [*held_out, *part]
    groups = near_duplicate_groups([queries[query].text for query in ids])
    asked = set(groups[: len(held_out)])
    return {
        query: part[query]
        for query, group in zip(ids[len(held_out) :], groups[len(held_out) :], strict=True)
        if group not in asked
    }
