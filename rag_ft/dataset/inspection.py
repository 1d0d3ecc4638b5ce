"""Inspect a dataset: counts, lengths, word overlap, samples and warnings."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from rag_ft.dataset.dataset_warnings import find_warnings
from rag_ft.dataset.overlap import measure_overlap
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.sources import HEADING, SENTENCE
from rag_ft.dataset.text.language import corpus_language
from rag_ft.dataset.text.overlap import content_words
from rag_ft.dataset.text.words import word_count

GIVEN = "given"
"""The source that is reported for questions whose source is unknown."""

CLOZE_SOURCES = {SENTENCE, HEADING}
"""Sources of questions that training removes from their passage, so a full overlap does not make them easy."""

BINS = 10
MAX_RELEVANT = 20
"""Maximum number of relevant passages for which the overlap of a question is computed."""

JSON_KEYS = {"seen": "known", "unseen": "new", "sources": "styles", "source": "style"}
"""Attributes that have another name in JSON."""


@dataclass(frozen=True)
class Distribution:
    """Quantiles of some numbers."""

    count: int
    minimum: float
    p10: float
    median: float
    p90: float
    maximum: float


@dataclass(frozen=True)
class Sample:
    """A sample question with its first passage.

    Attributes:
        overlap: fraction of its content words that are in its passage, 0 to 1; None if it has no content words.
    """

    split: str
    source: str
    question: str
    document: str
    passage: str
    overlap: float | None


@dataclass(frozen=True)
class Inspection:
    """What a dataset contains.

    Attributes:
        passages, documents: number of passages and documents.
        repeated: number of groups of passages that nearly repeat each other.
        overlapping: fraction of all words that the passage before in the same document has too, 0 to 1.
        contained: fraction of the passages that are a part of a larger one, 0 to 1.
        questions: split -> number of questions.
        seen, unseen: number of test questions on documents that training sees, and on other documents.
        negatives, scored_pairs: number of hard negatives and scored pairs.
        sources: split -> source -> number of questions.
        lengths: number of words of questions, and of words and characters of passages.
        overlap: source -> fraction of a question's distinct content words that are in its passage, 0 to 1.
        histograms: source -> number of questions in each tenth of the overlap.
        samples: a few questions of each source.
        warnings: one line for each problem, with what to do.

    Example:
        >>> from rag_ft import Passage, QADataset, Query, inspect_dataset
        >>> passages = {"p": Passage("p", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where do I book holidays?")}, {"test": {"q": {"p": 1}}})
        >>> inspection = inspect_dataset(dataset)
        >>> inspection.passages, inspection.questions, inspection.unseen
        (1, {'test': 1}, 1)
        >>> inspection.samples[0].question
        'Where do I book holidays?'
    """

    passages: int
    documents: int
    repeated: int
    overlapping: float
    contained: float
    questions: dict[str, int]
    seen: int
    unseen: int
    negatives: int
    scored_pairs: int
    sources: dict[str, dict[str, int]]
    lengths: dict[str, Distribution]
    overlap: dict[str, Distribution]
    histograms: dict[str, list[int]]
    samples: list[Sample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes for JSON."""
        return asdict(self, dict_factory=lambda items: {JSON_KEYS.get(key, key): value for key, value in items})


@dataclass(frozen=True)
class _Question:
    split: str
    id: str
    source: str
    overlap: float | None


def inspect_dataset(dataset: QADataset, split: str | None = None, *, samples: int = 3, seed: int = 0) -> Inspection:
    """Report counts, lengths, word overlap, samples and warnings of a dataset.

    Args:
        dataset: any dataset.
        split: the split whose questions are measured and sampled; all splits if None. Warnings are about all splits.
        samples: number of sample questions of each source.
        seed: seeds the choice of samples.

    Raises:
        InputError: if the split has no questions.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset.inspection import inspect_dataset
        >>> passages = {"p": Passage("p", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where do I book holidays?")}, {"test": {"q": {"p": 1}}})
        >>> inspection = inspect_dataset(dataset)
        >>> inspection.questions, inspection.overlap["given"].median
        ({'test': 1}, 0.5)
        >>> inspection.warnings[0]
        'the dataset has no training questions: generate questions (rag-ft generate) or add pairs'
    """
    if split is not None:
        dataset.require(split)
    questions = list(_questions(dataset))
    shown = [question for question in questions if split in (None, question.split)]
    overlaps = _overlaps_by_source(shown)
    not_cut_out = [
        question for question in questions if question.split != "train" or question.source not in CLOZE_SOURCES
    ]
    medians = {source: _distribution(values).median for source, values in _overlaps_by_source(not_cut_out).items()}
    texts = dataset.passage_texts.values()
    passage_words = [word_count(text) for text in texts]
    lengths = {
        "question words": [word_count(dataset.queries[question.id].text) for question in shown],
        "passage words": passage_words,
        "passage characters": [len(text) for text in texts],
    }
    seen, overlap = len(dataset.seen_queries("test")), measure_overlap(dataset)
    return Inspection(
        passages=len(dataset.passages),
        documents=len(dataset.documents),
        repeated=sum(size > 1 for size in Counter(dataset.near_duplicates.values()).values()),
        overlapping=round(overlap.repeated, 4),
        contained=round(overlap.contained, 4),
        questions={name: len(dataset.qrels[name]) for name in dataset.splits},
        seen=seen,
        unseen=len(dataset.qrels.get("test", {})) - seen,
        negatives=sum(map(len, dataset.negatives.values())),
        scored_pairs=len(dataset.scored_pairs),
        sources={
            name: dict(Counter(question.source for question in shown if question.split == name))
            for name in dict.fromkeys(question.split for question in shown)
        },
        lengths={name: _distribution(values) for name, values in lengths.items() if values},
        overlap={source: _distribution(values) for source, values in overlaps.items()},
        histograms={source: _histogram(values) for source, values in overlaps.items()},
        samples=list(_draw_samples(dataset, shown, samples, seed)),
        warnings=[*find_warnings(dataset, medians, passage_words), *overlap.warnings()],
    )


def _questions(dataset: QADataset) -> Iterator[_Question]:
    texts = dataset.passage_texts
    content = content_words(corpus_language(list(texts.values())) or "en")
    # Questions about the same passage are usually neighbours.
    words_in = lru_cache(maxsize=1000)(lambda passage: content(texts[passage]))
    for split in dataset.splits:
        for identifier, relevant in dataset.qrels[split].items():
            query = dataset.queries[identifier]
            words = content(query.text)
            overlaps = [
                len(words & words_in(passage)) / len(words) for passage in list(relevant)[:MAX_RELEVANT] if words
            ]
            yield _Question(split, identifier, query.source or GIVEN, max(overlaps, default=None))


def _overlaps_by_source(questions: Iterable[_Question]) -> dict[str, list[float]]:
    overlaps: dict[str, list[float]] = {}
    for question in questions:
        if question.overlap is not None:
            overlaps.setdefault(question.source, []).append(question.overlap)
    return overlaps


def _distribution(numbers: Sequence[float]) -> Distribution:
    import numpy as np

    quantiles = np.quantile(np.asarray(numbers, float), (0, 0.1, 0.5, 0.9, 1))
    return Distribution(len(numbers), *(round(float(value), 4) for value in quantiles))


def _histogram(overlaps: Sequence[float]) -> list[int]:
    counts = Counter(min(int(overlap * BINS), BINS - 1) for overlap in overlaps)
    return [counts[position] for position in range(BINS)]


def _draw_samples(dataset: QADataset, shown: Sequence[_Question], count: int, seed: int) -> Iterator[Sample]:
    for source in dict.fromkeys(question.source for question in shown):
        of_source = [question for question in shown if question.source == source]
        positions = random.Random(f"{seed} {source}").sample(range(len(of_source)), min(count, len(of_source)))
        for question in (of_source[position] for position in sorted(positions)):
            for identifier in list(dataset.qrels[question.split][question.id])[:1]:
                passage, text = dataset.passages[identifier], dataset.own_texts[identifier]
                question_text = dataset.queries[question.id].text
                yield Sample(question.split, source, question_text, passage.document, text, question.overlap)
