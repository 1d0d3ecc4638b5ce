"""Uncovered documents: those without a train or dev question. A tuned model must not lose on them.

They have no real questions, so sentences taken out of their passages stand in for these. A model that learns to answer
"What is X?" may get worse at sentences everywhere, and better at what people ask. Therefore the same sentences are
asked about dev's unseen documents, where the effect on real questions is known (the control). If these lose as well,
only what the uncovered documents lose beyond them counts against a model (difference in differences).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.dataset.sources import SENTENCE
from rag_ft.dataset.text.cloze import sentences, without_copy
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.evaluation.significance import paired_bootstrap
from rag_ft.training.selection.dev_score import MIN_PART
from rag_ft.training.selection.dev_set import MIN_UNITS, DevQuestions
from rag_ft.training.selection.select import MAX_P_VALUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_ft.evaluation.significance import Difference

MAX_PROBED = 300
"""Maximum number of uncovered passages with a question. They are encoded for the base and for each candidate."""

MAX_COMPARED = 400
"""Maximum number of passages of either kind that are compared to find a domain shift."""

SENTENCE_CHARACTERS, MAX_CHARACTERS = 1_000, 2_000
"""Number of characters at the start of a passage that a sentence is taken from, and that are read at all."""

RARE = 0.05
"""A passage is out of domain if fewer than this fraction of the covered passages have so low a score."""

MAX_OUT_OF_DOMAIN = 1 / 3
"""Fraction of out-of-domain passages above which dev questions do not represent the uncovered documents. Measured: .05
to .25 if the questions are about the corpus, .47 to .81 if they are about another domain (covidqa, scifact)."""

EXPLAINED, MIN_CONTROL_GROUPS = 1 / 2, 5
"""Fraction of a loss on uncovered documents that the control must lose too, and minimum number of its documents. With
less the control does not explain the loss: a few documents have so wide an interval that any loss is compatible with
it."""

ALPHA = 0.025
"""One-sided p-value below which the uncovered documents lose more than the control."""

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class UncoveredDocuments:
    """The documents without a train or dev question.

    Attributes:
        questions: sentences taken out of passages of these documents and of dev's unseen documents, as questions that
            search the passages of both; None if there are few.
        is_control: which of them are about dev's unseen documents, shape (questions,); none if these have few.
        is_out_of_domain: which of them are about passages that are unlike the covered ones, shape (questions,).
        out_of_domain: fraction of the uncovered passages that are unlike the covered ones. It is about 5 % if the
            covered documents are a random sample.
    """

    questions: DevQuestions | None
    is_control: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    is_out_of_domain: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    out_of_domain: float = 0.0

    @property
    def domain_shift(self) -> bool:
        """Whether so many passages are out of domain that dev questions do not represent them."""
        return self.out_of_domain > MAX_OUT_OF_DOMAIN

    @property
    def findings(self) -> list[str]:
        """A warning if there is a domain shift."""
        if not self.domain_shift:
            return []
        consequence = (
            "a model is shipped only if it is also better on them"
            if self.questions is not None
            else "the effect of tuning on them cannot be measured, because most have no sentence to use as a question"
        )
        return [
            f"{self.out_of_domain:.0%} of the passages in documents without a train or dev question are unlike the "
            f"covered passages: {consequence}. Add questions about them if the model is meant for them, or remove them "
            "from the dataset"
        ]

    def objection_to(self, differences: NDArray[np.float64], gain_on_unseen: float | None = None) -> str:
        """Return why a model must not be shipped because of these documents, or "".

        Args:
            differences: candidate minus base for each of `questions`, shape (questions,).
            gain_on_unseen: mean gain of the real dev questions on unseen documents. The control is used only if they
                gain: if they lose as well, the loss on sentences is one of retrieval.
        """
        gain = self._gain(differences, self._mask(self.is_control, not_in=True))
        if self.domain_shift:
            # Gains on passages like the covered ones would hide a loss on the others.
            unlike = self._mask(self.is_out_of_domain)
            gain = self._gain(differences, unlike) if unlike.sum() >= MIN_PART else gain
            if gain.mean <= 0 or gain.p_value / 2 > MAX_P_VALUE:
                return f"the documents without a train or dev question are unlike the others and may not gain ({gain})"
        if gain.ci95[1] >= 0 or ((gain_on_unseen or 0.0) > 0 and self._explains(differences)):
            return ""
        return f"it loses on the documents without a train or dev question ({gain})"

    def _mask(self, values: NDArray[np.bool_], not_in: bool = False) -> NDArray[np.bool_]:
        """Return a mask over the questions, in which missing values are False."""
        assert self.questions is not None
        mask = values if len(values) else np.zeros(len(self.questions.groups), dtype=bool)
        return ~mask if not_in else mask

    def _gain(self, differences: NDArray[np.float64], mask: NDArray[np.bool_]) -> Difference:
        assert self.questions is not None
        groups = [group for group, selected in zip(self.questions.groups, mask, strict=True) if selected]
        return paired_bootstrap(differences[mask], groups)

    def _explains(self, differences: NDArray[np.float64]) -> bool:
        """Tell whether the control loses as well, so that the loss is one on sentences and not on these documents."""
        from scipy.stats import ttest_ind

        assert self.questions is not None
        is_control = self._mask(self.is_control)
        groups = np.array([str(group) for group in self.questions.groups])
        uncovered, control = (
            np.array([differences[mask & (groups == group)].mean() for group in np.unique(groups[mask])])
            for mask in (~is_control, is_control)
        )
        if len(control) < MIN_CONTROL_GROUPS or control.mean() > EXPLAINED * uncovered.mean():
            return False
        return bool(ttest_ind(uncovered, control, equal_var=False, alternative="less").pvalue > ALPHA)


def uncovered_documents(dataset: QADataset, seed: int = 0) -> UncoveredDocuments | None:
    """Find the uncovered documents, and make questions about them.

    Sentences taken out of their passages cannot select weights, because they approve of too much. But a model that
    loses on them was tuned for another corpus. Passages of test documents are used; test questions are not.

    Args:
        dataset: a dataset with a train and a dev split.
        seed: seeds every random choice.

    Returns:
        Questions on at most 300 passages, searched among these; None if there are fewer than 30 uncovered passages.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.training.selection.uncovered import uncovered_documents
        >>> text = "Badge {} opens gate {} at night. Lost badges of kind {} are blocked within {} days."
        >>> passages = {f"p{n}": Passage(f"p{n}", text.format(n, 3 * n, n, 7 * n)) for n in range(40)}
        >>> dataset = QADataset(passages, {"q": Query("q", "Who opens?")}, {"train": {"q": {"p0": 1}}})
        >>> len(uncovered_documents(dataset).questions.groups)
        39
    """
    documents_of = {
        split: dataset.documents_of(dataset.qrels[split], split) if dataset.qrels.get(split) else set()
        for split in ("train", "dev")
    }
    covered = _passages_in(dataset, documents_of["train"] | documents_of["dev"])
    covered_ids = {passage.id for passage in covered}
    uncovered = [passage for passage in dataset.passages.values() if passage.id not in covered_ids]
    if not covered or len(uncovered) < MIN_UNITS:
        return None
    rng = random.Random(seed)
    compared, probed = (rng.sample(passages, min(MAX_COMPARED, len(passages))) for passages in (covered, uncovered))
    unlike = dict(zip((passage.id for passage in probed), _out_of_domain(compared, probed), strict=True))
    in_order = [passage for passage in uncovered if passage.id in unlike]
    asked = _sentence_questions(in_order, rng)
    control = _sentence_questions(_passages_in(dataset, documents_of["dev"] - documents_of["train"]), rng)
    if len(control) < MIN_UNITS:
        control = []
    return UncoveredDocuments(
        questions=_as_dev_questions([*asked, *control], seed) if len(asked) >= MIN_UNITS else None,
        is_control=np.array([False] * len(asked) + [True] * len(control)),
        is_out_of_domain=np.array([bool(unlike[passage.id]) for _, passage in asked] + [False] * len(control)),
        out_of_domain=float(np.mean(list(unlike.values()))),
    )


def _passages_in(dataset: QADataset, documents: set[str]) -> list[Passage]:
    return [passage for passage in dataset.passages.values() if passage.document in documents]


def _sentence_questions(passages: Sequence[Passage], rng: random.Random) -> list[tuple[str, Passage]]:
    """Take one sentence out of each passage as a question about it. Return (sentence, passage without it)."""
    sample = _sample_distinct(passages, rng)
    one_line = [" ".join(passage.own_text.split()) for passage in sample]
    questions = []
    for passage in sample:
        for sentence in _shuffled_sentences(passage.own_text[:MAX_CHARACTERS], rng):
            rest = without_copy(sentence, passage.text[:MAX_CHARACTERS])
            if rest and sum(sentence in other for other in one_line) == 1:
                questions.append((sentence, replace(passage, text=rest, content="")))
                break
    return questions


def _as_dev_questions(questions: Sequence[tuple[str, Passage]], seed: int) -> DevQuestions:
    """Make a dev set of sentences that search all their passages."""
    passages = {passage.id: passage for _, passage in questions}
    queries = {passage.id: Query(passage.id, sentence, SENTENCE) for sentence, passage in questions}
    return DevQuestions.of(QADataset(passages, queries, {"dev": {key: {key: 1} for key in passages}}), seed)


def _sample_distinct(passages: Sequence[Passage], rng: random.Random) -> list[Passage]:
    """Sample passages without near-duplicates, which would rank as high as the right one.

    They keep the order of the corpus, because few documents are resampled as groups of neighbouring passages.
    """
    indices = sorted(rng.sample(range(len(passages)), min(len(passages), 3 * MAX_PROBED)))
    sampled = [passages[index] for index in indices]
    groups = near_duplicate_groups([passage.own_text[:MAX_CHARACTERS] for passage in sampled])
    distinct = list(dict(zip(reversed(groups), reversed(sampled), strict=True)).values())[::-1]
    chosen = set(rng.sample(range(len(distinct)), min(len(distinct), MAX_PROBED)))
    return [passage for index, passage in enumerate(distinct) if index in chosen]


def _shuffled_sentences(text: str, rng: random.Random) -> list[str]:
    """Return the sentences at the start of a text in random order."""
    complete = sentences(text[:SENTENCE_CHARACTERS])
    complete = complete[:-1] if len(text) > SENTENCE_CHARACTERS else complete  # the last one is cut off
    return rng.sample(complete, len(complete))


def _out_of_domain(covered: Sequence[Passage], uncovered: Sequence[Passage]) -> NDArray[np.bool_]:
    """Return which uncovered passages a classifier scores below nearly all covered ones, shape (uncovered,).

    A classifier between two samples tests whether they have the same distribution (Lopez-Paz & Oquab 2017). It scores
    documents that it was not trained on, and needs two documents of each kind.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    documents = min(len({passage.document for passage in passages}) for passages in (covered, uncovered))
    if documents < 2:
        return np.zeros(len(uncovered), dtype=bool)
    passages = [*covered, *uncovered]
    is_covered = np.array([1] * len(covered) + [0] * len(uncovered))
    # Character n-grams exist in every script.
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000)
    vectors = vectorizer.fit_transform([passage.own_text[:MAX_CHARACTERS] for passage in passages])
    scores = cross_val_predict(
        LogisticRegression(C=10.0, class_weight="balanced", max_iter=1_000),
        vectors,
        is_covered,
        groups=[passage.document for passage in passages],
        cv=StratifiedGroupKFold(min(FOLDS, documents), shuffle=True, random_state=0),
        method="decision_function",
    )
    return np.asarray(scores[is_covered == 0] < np.quantile(scores[is_covered == 1], RARE))
