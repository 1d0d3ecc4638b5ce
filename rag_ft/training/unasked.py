"""What training does not ask about: a tuned model must not lose the documents that make up the rest of the corpus."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.dataset.splitting import split_units
from rag_ft.dataset.styles import SENTENCE
from rag_ft.dataset.text.cloze import sentences, without_copy
from rag_ft.training.dev import ENOUGH, Dev, DevQuestions

MOST = 300
"""Passages that are asked about. They are encoded for the base and for each share that the guard looks at."""

MOST_READ, MOST_CHARACTERS = 400, 2_000
"""Passages of either kind whose words are compared, and how much of each."""

RARE = 0.05
"""A passage is unlike those that are asked about where fewer than this share of them are as unlike the others."""

MANY = 1 / 3
"""Share of passages that are unlike those asked about, over which dev questions cannot speak for them: .07 to .21 were
found where the questions are about the corpus, .55 to .81 where they are about another domain (covidqa, scifact)."""

FOLDS = 5


@dataclass(frozen=True)
class Unasked:
    """The documents that neither training nor dev asks about.

    Attributes:
        questions: sentences that are taken out of passages of these documents.
        unlike: share of their passages that are unlike all that is asked about: about 5 % where the questions are
            about documents drawn at random.
    """

    questions: Dev
    unlike: float = 0.0

    @property
    def foreign(self) -> bool:
        """Whether many of them are unlike what is asked about, so that dev questions cannot speak for them."""
        return self.unlike > MANY

    @property
    def findings(self) -> list[str]:
        """What to tell whoever trains on these questions."""
        if not self.foreign:
            return []
        return [
            f"{self.unlike:.0%} of the passages of documents that no training question is about are unlike those that "
            "are asked about: a model is shipped only where it is better on them too. If they belong to what the model "
            "is for, add questions on them; if not, leave them out of the dataset"
        ]


def unasked_documents(dataset: QADataset, seed: int = 0) -> Unasked | None:
    """What can be said about the documents that neither training nor dev asks about.

    Sentences that are taken out of their passages do not say which weights are the best, for they would approve of too
    much; but what loses on them is tuned for something else than this corpus. Passages of test documents are among
    them, test questions are not looked at.

    Args:
        dataset: with a train split, and dev carved out of it.
        seed: of the draw.

    Returns:
        Questions on at most 300 passages, searched among these; None where there are fewer than 30.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.training.unasked import unasked_documents
        >>> text = "Badge {} opens the small gate at night. Lost badges of kind {} are blocked at once."
        >>> passages = {f"p{n}": Passage(f"p{n}", text.format(n, n)) for n in range(40)}
        >>> dataset = QADataset(passages, {"q": Query("q", "Who opens?")}, {"train": {"q": {"p0": 1}}})
        >>> len(unasked_documents(dataset).questions.groups)
        39
    """
    asked = {
        document
        for split in ("train", "dev")
        if dataset.qrels.get(split)
        for document in dataset.documents_of(dataset.qrels[split], split)
    }
    draw = random.Random(seed)
    left = [passage for passage in dataset.passages.values() if passage.document not in asked]
    draw.shuffle(left)
    questions = _sentence_questions(left, draw, seed)
    if questions is None:
        return None
    read = [passage for passage in dataset.passages.values() if passage.document in asked]
    read = draw.sample(read, min(MOST_READ, len(read)))
    if len(read) < FOLDS:
        return Unasked(questions)
    return Unasked(questions, _unlike(dataset, [p.id for p in read], [p.id for p in left[:MOST_READ]]))


def _sentence_questions(passages: Sequence[Passage], draw: random.Random, seed: int) -> DevQuestions | None:
    chosen: dict[str, Passage] = {}
    queries: dict[str, Query] = {}
    for passage in passages[: 10 * MOST]:
        if len(chosen) == MOST:
            break
        found = [(text, rest) for text in sentences(passage.text) if (rest := without_copy(text, passage.text))]
        if found:
            text, rest = draw.choice(found)
            chosen[passage.id] = replace(passage, text=rest)
            queries[passage.id] = Query(passage.id, text, SENTENCE)
    if len(chosen) < ENOUGH:
        return None
    return DevQuestions.of(QADataset(chosen, queries, {"dev": {key: {key: 1} for key in chosen}}), seed)


def _unlike(dataset: QADataset, asked: Sequence[str], unasked: Sequence[str]) -> float:
    """Share of the unasked passages that a classifier by words finds further from the asked ones than nearly all these.

    A classifier between two samples as a test whether they are of one kind: Lopez-Paz & Oquab 2017. It reads other
    documents than it judges.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    units = split_units(dataset)
    groups: list[int] = []
    for passages in (asked, unasked):
        own = [units[passage] for passage in passages]
        # Of very few documents each passage stands for itself.
        own = own if len(set(own)) >= FOLDS else [-1 - len(groups) - place for place in range(len(own))]
        groups += own
    kind = np.array([1] * len(asked) + [0] * len(unasked))
    # Parts of words are there in every script.
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000)
    texts = vectors.fit_transform([dataset.passage_texts[key][:MOST_CHARACTERS] for key in (*asked, *unasked)])
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    classifier = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1_000)
    likeness = cross_val_predict(classifier, texts, kind, groups=groups, cv=folds, method="decision_function")
    return float(np.mean(likeness[kind == 0] < np.quantile(likeness[kind == 1], RARE)))
