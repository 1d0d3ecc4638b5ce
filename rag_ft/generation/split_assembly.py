"""Assemble questions from all sources into one dataset with splits. Real questions go to test first."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.qa_dataset import QADataset, Qrels, Query
from rag_ft.dataset.sources import HUMAN, KEY_PHRASES
from rag_ft.dataset.splitting import split_questions
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.generation.filters import Pair
from rag_ft.generation.located_questions import LocatedQuestion
from rag_ft.generation.relevance import IN_MANY_DOCUMENTS, Relevance

MAX_REAL_TEST = 500
"""Number of real questions that all go to test. If there are more, at least this number goes there if possible."""

TEST_FRACTIONS = (0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0)
"""Fractions of the passages of seen documents whose real questions go to test. The first that gives enough of
them is used."""

MIN_REAL_DEV = 50
"""Minimum number of real dev questions for a dev split without generated questions."""

UNSEEN_DOCUMENTS = 0.2
"""Default fraction of the documents that training does not see."""

TEST_PASSAGES = 0.15
"""Fraction of the passages of seen documents whose generated questions go to test."""

OTHER_SOURCE = "its split is measured by questions of another making"
TOO_SIMILAR = "too like a question of another split, or its answer is in a passage of another split"


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """The settings of a split.

    Attributes:
        training: sources of the generated training questions.
        evaluation: sources of the generated dev and test questions; dev also has key phrases.
        unseen_documents: fraction of the documents that training does not see. If 0, all documents are seen, dev and
            test have other questions about them, and questions from training-only sources all go to train.
        seed: seeds every random choice.
    """

    training: Set[str]
    evaluation: Set[str]
    unseen_documents: float
    seed: int

    @property
    def dev(self) -> Set[str]:
        """Sources of the generated dev questions."""
        return {*self.evaluation, KEY_PHRASES}


def assemble(
    corpus: QADataset,
    pairs: Sequence[Pair],
    real: Sequence[LocatedQuestion],
    picked: Sequence[LocatedQuestion],
    plan: SplitPlan,
) -> tuple[QADataset, list[DroppedRow]]:
    """Split questions. Leave out those that would leak or whose source is not used in their split.

    All passages that contain the answer of a question are relevant, and so are near-duplicates of its passage.

    Args:
        corpus: the passages.
        pairs: generated questions that passed the filters.
        real: questions that people asked.
        picked: questions whose passages people picked. They are split like generated ones, but are left out of test if
            there are real questions, because people can only pick what the compared models showed.
        plan: the sources of each split, the fraction of unseen documents, and the seed.

    Returns:
        The dataset with its splits, and a row of `dropped.jsonl` for each question that is in none.
    """
    queries = {query.id: query for query, _ in pairs} | {
        question.query.id: question.query for question in [*real, *picked]
    }
    relevance = Relevance(corpus)
    answers = {query.id: relevance.of(query, passage) for query, passage in pairs}
    in_many = {query for query, relevant in answers.items() if relevance.in_many_documents(relevant)}
    generated: Qrels = {query: relevant for query, relevant in answers.items() if query not in in_many}
    picked_qrels: Qrels = {question.query.id: question.relevant for question in picked}
    real_qrels: Qrels = {question.query.id: question.relevant for question in real}
    # If all documents are seen, questions from training-only sources need not be held out by document.
    train_only = (
        {} if plan.unseen_documents else {q: r for q, r in generated.items() if queries[q].source not in plan.dev}
    )
    to_split = {query: relevant for query, relevant in (generated | picked_qrels).items() if query not in train_only}
    dataset = corpus.with_questions(queries, {})
    splits = _split(dataset, to_split, real_qrels, plan)
    splits["train"] |= _dissimilar(train_only, splits["dev"] | splits["test"], queries)
    with_real = splits
    if real and len(real) <= MAX_REAL_TEST:
        splits = {name: _dissimilar(qrels, real_qrels, queries) for name, qrels in splits.items()}
        with_real = splits | {"test": real_qrels}

    sources = _sources_of_splits(plan, real_qrels, splits)
    if not any(queries[query].source in sources["train"] for query in splits["train"]):
        # Passages of a single sentence have no other questions without an LLM.
        sources["train"] = sources["train"] | {KEY_PHRASES}
    picked_splits = {"train", "dev"} if real else {"train", "dev", "test"}
    kept = {
        name: {
            query: relevant
            for query, relevant in qrels.items()
            if (name in picked_splits if query in picked_qrels else queries[query].source in sources[name])
        }
        for name, qrels in with_real.items()
    }
    used = {query for qrels in kept.values() for query in qrels}
    in_a_split = {query for qrels in splits.values() for query in qrels}
    without_passage = [(question.query, "") for question in [*real, *picked]]
    dropped = [
        dropped_row(query, passage, _reason(query.id, in_many, in_a_split))
        for query, passage in [*pairs, *without_passage]
        if query.id not in used
    ]
    negatives = {
        question.query.id: question.negatives
        for question in [*real, *picked]
        if question.negatives and question.query.id in used
    }
    return corpus.with_questions({key: queries[key] for key in queries if key in used}, kept, negatives), dropped


def _reason(query: str, in_many: Set[str], in_a_split: Set[str]) -> str:
    """Return why a question is in no split."""
    if query in in_many:
        return IN_MANY_DOCUMENTS
    return OTHER_SOURCE if query in in_a_split else TOO_SIMILAR


def _split(dataset: QADataset, generated: Qrels, real: Qrels, plan: SplitPlan) -> dict[str, Qrels]:
    """Split generated questions, together with the real ones if there are many."""
    if len(real) <= MAX_REAL_TEST:
        # If real questions are the test split, no questions about seen documents need to be held out.
        fraction = 0.0 if real else TEST_PASSAGES
        return split_questions(dataset, generated, plan.unseen_documents, fraction, seed=plan.seed)
    # The fractions are of passages, and questions cluster: use the smallest one with enough real test questions.
    for fraction in TEST_FRACTIONS:
        splits = split_questions(dataset, generated | real, plan.unseen_documents, fraction, seed=plan.seed)
        if sum(query in real for query in splits["test"]) >= MAX_REAL_TEST:
            break
    return splits


def _sources_of_splits(plan: SplitPlan, real: Qrels, splits: dict[str, Qrels]) -> dict[str, Set[str]]:
    """Return the sources that are used in each split."""
    if len(real) <= MAX_REAL_TEST:
        return {"train": plan.training, "dev": plan.dev, "test": {HUMAN} if real else plan.evaluation}
    enough = sum(query in real for query in splits["dev"]) >= MIN_REAL_DEV
    return {"train": plan.training | {HUMAN}, "dev": {HUMAN} if enough else plan.dev | {HUMAN}, "test": {HUMAN}}


def _dissimilar(qrels: Qrels, held_out: Qrels, queries: dict[str, Query]) -> Qrels:
    """Return the questions that do not nearly repeat a held-out one."""
    if not qrels:
        return {}
    ids = [*held_out, *qrels]
    groups = near_duplicate_groups([queries[query].text for query in ids])
    held_out_groups = set(groups[: len(held_out)])
    return {
        query: qrels[query]
        for query, group in zip(ids[len(held_out) :], groups[len(held_out) :], strict=True)
        if group not in held_out_groups
    }
