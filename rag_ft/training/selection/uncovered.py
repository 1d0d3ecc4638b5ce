"""What training does not ask about: a tuned model must not lose the documents that make up the rest of the corpus."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.dataset.sources import SENTENCE
from rag_ft.dataset.text.cloze import sentences, without_copy
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.training.selection.dev_set import ENOUGH, Dev, DevQuestions

MOST = 300
"""Passages that are asked about. They are encoded for the base and for each share that the guard looks at."""

MOST_READ = 400
"""Passages of either kind whose words are compared."""

HEAD, MOST_CHARACTERS = 1_000, 2_000
"""Where a sentence is taken from, so that a model reads the place, and how much of a passage is read at all."""

RARE = 0.05
"""A passage is unlike those that are asked about where fewer than this share of them are as unlike the others."""

MANY = 1 / 3
"""Share of passages that are unlike those asked about, over which dev questions cannot speak for them: .05 to .25 were
found where the questions are about the corpus, .47 to .81 where they are about another domain (covidqa, scifact)."""

FOLDS = 5


@dataclass(frozen=True)
class UncoveredDocuments:
    """The documents that neither training nor dev asks about.

    Attributes:
        questions: sentences that are taken out of passages of these documents; None where they are few.
        unlike: share of their passages that are unlike all that is asked about: about 5 % where the questions are
            about documents drawn at random.
    """

    questions: Dev | None
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
            f"{self.unlike:.0%} of the passages in documents that neither train nor dev asks about are unlike those "
            "asked about: "
            + (
                "a model is shipped only where it is better on them too"
                if self.questions is not None
                else "nothing tells what a model does with them, since no sentence can be taken out of most of them"
            )
            + ". If they belong to what the model is for, add questions on them; if not, leave them out of the dataset"
        ]


def uncovered_documents(dataset: QADataset, seed: int = 0) -> UncoveredDocuments | None:
    """What can be said about the documents that neither training nor dev asks about.

    Sentences that are taken out of their passages do not say which weights are the best, for they would approve of too
    much; but what loses on them is tuned for something else than this corpus. Passages of test documents are among
    them, test questions are not looked at.

    Args:
        dataset: with a train split, and dev carved out of it.
        seed: of the draw.

    Returns:
        Questions on at most 300 passages, searched among these; None where there are fewer than 30 such passages.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.training.selection.uncovered import uncovered_documents
        >>> text = "Badge {} opens gate {} at night. Lost badges of kind {} are blocked within {} days."
        >>> passages = {f"p{n}": Passage(f"p{n}", text.format(n, 3 * n, n, 7 * n)) for n in range(40)}
        >>> dataset = QADataset(passages, {"q": Query("q", "Who opens?")}, {"train": {"q": {"p0": 1}}})
        >>> len(uncovered_documents(dataset).questions.groups)
        39
    """
    asked = {
        document
        for split in ("train", "dev")
        if dataset.qrels.get(split)
        for document in dataset.documents_of(dataset.qrels[split], split)
    }
    draw = random.Random(seed)
    read = [passage for passage in dataset.passages.values() if passage.document in asked]
    left = [passage for passage in dataset.passages.values() if passage.document not in asked]
    if not read or len(left) < ENOUGH:
        return None
    read, seen = (draw.sample(some, min(MOST_READ, len(some))) for some in (read, left))
    return UncoveredDocuments(_sentence_questions(left, draw, seed), _unlike(read, seen))


def _sentence_questions(passages: Sequence[Passage], draw: random.Random, seed: int) -> DevQuestions | None:
    # In the order of the corpus, since few documents are resampled by neighbouring passages.
    places = sorted(draw.sample(range(len(passages)), min(len(passages), 3 * MOST)))
    tried = [passages[place] for place in places]
    # What nearly repeats another passage would rank as high as the right one.
    groups = near_duplicate_groups([passage.text[:MOST_CHARACTERS] for passage in tried])
    tried = list(dict(zip(reversed(groups), reversed(tried), strict=True)).values())[::-1]
    kept = set(draw.sample(range(len(tried)), min(len(tried), MOST)))
    tried = [passage for place, passage in enumerate(tried) if place in kept]
    plain = [" ".join(passage.text.split()) for passage in tried]
    chosen: dict[str, Passage] = {}
    queries: dict[str, Query] = {}
    for passage in tried:
        text = passage.text[:MOST_CHARACTERS]
        for sentence in _at_random(text, draw):
            rest = without_copy(sentence, text)
            if rest and sum(sentence in other for other in plain) == 1:
                chosen[passage.id] = replace(passage, text=rest)
                queries[passage.id] = Query(passage.id, sentence, SENTENCE)
                break
    if len(chosen) < ENOUGH:
        return None
    return DevQuestions.of(QADataset(chosen, queries, {"dev": {key: {key: 1} for key in chosen}}), seed)


def _at_random(text: str, draw: random.Random) -> list[str]:
    """The sentences at the beginning of a text, in any order."""
    found = sentences(text[:HEAD])
    found = found[:-1] if len(text) > HEAD else found  # the last one is cut
    return draw.sample(found, len(found))


def _unlike(asked: Sequence[Passage], uncovered: Sequence[Passage]) -> float:
    """Share of the unasked passages that a classifier by words finds further from the asked ones than nearly all these.

    A classifier between two samples as a test whether they are of one kind: Lopez-Paz & Oquab 2017. It judges documents
    that it has not read: a kind is not told from a single document.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    fewest = min(len({passage.document for passage in passages}) for passages in (asked, uncovered))
    if fewest < 2:
        return 0.0
    kind = np.array([1] * len(asked) + [0] * len(uncovered))
    # Parts of words are there in every script.
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000)
    texts = vectors.fit_transform([passage.text[:MOST_CHARACTERS] for passage in (*asked, *uncovered)])
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
    classifier = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1_000)
    groups = [passage.document for passage in (*asked, *uncovered)]
    likeness = cross_val_predict(classifier, texts, kind, groups=groups, cv=folds, method="decision_function")
    return float(np.mean(likeness[kind == 0] < np.quantile(likeness[kind == 1], RARE)))
