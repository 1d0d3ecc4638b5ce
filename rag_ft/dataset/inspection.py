"""What a dataset holds and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.text.language import NAMES, corpus_language, stop_words_of, word_count, words_of
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups

GIVEN = "given"
"""The style of questions of an unknown making."""

TAKEN_OUT = {"sentence", "heading"}
"""Styles that training takes out of their passage: that they stand in it does not make them easy to train on."""

BINS = 10
MANY_RELEVANT = 20
"""Of a question with more relevant passages the first are looked at."""

ENOUGH_PAIRS = 500
ENOUGH_TEST = 50
EASY = 0.8
ONE_DOCUMENT = 0.3
FEW_DOCUMENTS = 3
"""Among so few documents each holds a large share of the questions, and nothing can be done about it."""

READ = 512
TOKENS_PER_WORD = 1.3

ASKING = frozenset(
    words_of(
        "about am any anyone can could did do does doing done from get give given got had has have having he her his "
        "how i its many may me might much must my need our she should so some tell than them those us use used want "
        "was we were what when where which who whom whose why would you your"
    )
)
"""English words that ask, and are not in every list of stop words."""


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
    """A question as a person would look at it, with its first passage.

    Attributes:
        overlap: share of its content words that stand in its passage, 0 to 1; None where it has none.
    """

    split: str
    style: str
    question: str
    document: str
    passage: str
    overlap: float | None


@dataclass(frozen=True)
class Inspection:
    """What a dataset holds.

    Attributes:
        passages, documents: how many there are.
        repeated: groups of passages that nearly repeat each other.
        questions: split -> how many.
        known, new: test questions about documents that training sees, and about others.
        negatives, scored_pairs: how many there are.
        styles: split -> style -> questions.
        lengths: words of questions, words and characters of passages.
        overlap: style -> share of a question's distinct content words that stand in its passage, 0 to 1.
        histograms: style -> questions in each tenth of the overlap.
        samples: a few questions of each style.
        warnings: one line each, with what to do.

    Example:
        >>> from rag_ft import Passage, QADataset, Query, inspect_dataset
        >>> passages = {"p": Passage("p", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where do I book holidays?")}, {"test": {"q": {"p": 1}}})
        >>> found = inspect_dataset(dataset)
        >>> found.passages, found.questions, found.new
        (1, {'test': 1}, 1)
        >>> found.samples[0].question
        'Where do I book holidays?'
    """

    passages: int
    documents: int
    repeated: int
    questions: dict[str, int]
    known: int
    new: int
    negatives: int
    scored_pairs: int
    styles: dict[str, dict[str, int]]
    lengths: dict[str, Distribution]
    overlap: dict[str, Distribution]
    histograms: dict[str, list[int]]
    samples: list[Sample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON has them."""
        return asdict(self)


@dataclass(frozen=True)
class _Asked:
    split: str
    query: str
    style: str
    overlap: float | None


def inspect_dataset(dataset: QADataset, split: str | None = None, *, samples: int = 3, seed: int = 0) -> Inspection:
    """Count, measure and check a dataset.

    Args:
        dataset: any.
        split: whose questions are measured and shown; those of all splits where None. Warnings are about all.
        samples: questions of each style that are shown.
        seed: of the draw of samples.

    Raises:
        InputError: where the split has no question.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset.inspection import inspect_dataset
        >>> passages = {"p": Passage("p", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where do I book holidays?")}, {"test": {"q": {"p": 1}}})
        >>> found = inspect_dataset(dataset)
        >>> found.questions, found.overlap["given"].median
        ({'test': 1}, 0.5)
        >>> found.warnings[0]
        'no training question: generate some (rag-ft generate), or give pairs'
    """
    if split is not None:
        dataset.require(split)
    asked = list(_asked(dataset))
    shown = [one for one in asked if split in (None, one.split)]
    known = len(dataset.seen_queries("test"))
    texts = dataset.passage_texts
    styles: dict[str, dict[str, int]] = {}
    for one in shown:
        counts = styles.setdefault(one.split, {})
        counts[one.style] = counts.get(one.style, 0) + 1
    shares: dict[str, list[float]] = {}
    for one in shown:
        if one.overlap is not None:
            shares.setdefault(one.style, []).append(one.overlap)
    passage_words = [word_count(text) for text in texts.values()]
    lengths = {
        "question words": _distribution(word_count(dataset.queries[one.query].text) for one in shown),
        "passage words": _distribution(passage_words),
        "passage characters": _distribution(map(len, texts.values())),
    }
    return Inspection(
        passages=len(dataset.passages),
        documents=len(dataset.documents),
        repeated=sum(size > 1 for size in Counter(dataset.near_duplicates.values()).values()),
        questions={name: len(dataset.qrels[name]) for name in dataset.splits},
        known=known,
        new=len(dataset.qrels.get("test", {})) - known,
        negatives=sum(map(len, dataset.negatives.values())),
        scored_pairs=len(dataset.scored_pairs),
        styles=styles,
        lengths={name: found for name, found in lengths.items() if found is not None},
        overlap={style: found for style, values in shares.items() if (found := _distribution(values))},
        histograms={style: _histogram(values) for style, values in shares.items()},
        samples=list(_samples(dataset, shown, samples, seed)),
        warnings=list(_warnings(dataset, asked, passage_words)),
    )


def content_words(language: str) -> Callable[[str], set[str]]:
    """What gives the distinct words of a text that say something, stemmed where its language has a stemmer.

    Args:
        language: ISO 639-1 code.

    Example:
        >>> from rag_ft.dataset.inspection import content_words
        >>> sorted(content_words("en")("Where do I book my holidays?"))
        ['book', 'holiday']
    """
    import Stemmer

    name = NAMES.get(language)
    stem = Stemmer.Stemmer(name).stemWord if name in Stemmer.algorithms() else str
    stop = set(stop_words_of(language)) | (ASKING if language == "en" else set())
    stems: dict[str, str] = {}

    def distinct(text: str) -> set[str]:
        words = set(words_of(text)) - stop
        return {stems[word] if word in stems else stems.setdefault(word, stem(word)) for word in words}

    return distinct


def _asked(dataset: QADataset) -> Iterator[_Asked]:
    texts = dataset.passage_texts
    content = content_words(corpus_language(list(texts.values())) or "en")
    # Questions about one passage mostly follow each other.
    words_in = lru_cache(maxsize=1000)(lambda passage: content(texts[passage]))
    for split in dataset.splits:
        for identifier, relevant in dataset.qrels[split].items():
            query = dataset.queries[identifier]
            words = content(query.text)
            shares = [
                len(words & words_in(passage)) / len(words) for passage in list(relevant)[:MANY_RELEVANT] if words
            ]
            yield _Asked(split, identifier, query.source or GIVEN, max(shares, default=None))


def _distribution(numbers: Iterable[float]) -> Distribution | None:
    import numpy as np

    values = np.fromiter(numbers, float)
    if not len(values):
        return None
    return Distribution(len(values), *(round(float(value), 4) for value in np.quantile(values, (0, 0.1, 0.5, 0.9, 1))))


def _histogram(shares: Sequence[float]) -> list[int]:
    counts = Counter(min(int(share * BINS), BINS - 1) for share in shares)
    return [counts[place] for place in range(BINS)]


def _samples(dataset: QADataset, shown: Sequence[_Asked], count: int, seed: int) -> Iterator[Sample]:
    by_style: dict[str, list[_Asked]] = {}
    for one in shown:
        by_style.setdefault(one.style, []).append(one)
    for style, several in by_style.items():
        draw = random.Random(f"{seed} {style}")
        for place in sorted(draw.sample(range(len(several)), min(count, len(several)))):
            one = several[place]
            passage = next(iter(dataset.qrels[one.split][one.query]), None)
            if passage is not None:
                yield Sample(
                    one.split,
                    style,
                    dataset.queries[one.query].text,
                    dataset.passages[passage].document,
                    dataset.passage_texts[passage],
                    one.overlap,
                )


def _warnings(dataset: QADataset, asked: Sequence[_Asked], passage_words: Sequence[int]) -> Iterator[str]:
    yield from _too_few(dataset)
    yield from _too_easy(asked)
    yield from _one_document(dataset)
    yield from _leaks(dataset)
    yield from _unused(dataset, passage_words)
    yield from _false_negatives(dataset)


def _too_few(dataset: QADataset) -> Iterator[str]:
    pairs = max(sum(map(len, dataset.qrels.get("train", {}).values())), len(dataset.scored_pairs))
    if not pairs:
        yield "no training question: generate some (rag-ft generate), or give pairs"
    elif pairs < ENOUGH_PAIRS:
        yield (
            f"{pairs} training pairs, under {ENOUGH_PAIRS}: so few mostly teach themselves, and little that holds for "
            "other questions; generate more (--questions-per-passage) or add documents"
        )
    test = len(dataset.qrels.get("test", {}))
    if not test:
        yield "no test question: whether retrieval got better cannot be told; hold some out (rag-ft generate does)"
    elif test < ENOUGH_TEST:
        yield (
            f"{test} test questions, under {ENOUGH_TEST}: a hit rate of so few is known to ±{1 / test**0.5:.2f}, more "
            "than tuning mostly gains; add questions that people asked (--questions)"
        )
    if pairs and not dataset.qrels.get("dev"):
        yield "no dev split, which chooses the model: training takes it out of train; add one to choose it yourself"


def _too_easy(asked: Iterable[_Asked]) -> Iterator[str]:
    shares: dict[str, list[float]] = {}
    for one in asked:
        if one.overlap is not None and not (one.split == "train" and one.style in TAKEN_OUT):
            shares.setdefault(one.style, []).append(one.overlap)
    for style, values in shares.items():
        found = _distribution(values)
        if found is not None and found.median > EASY:
            yield (
                f"questions of style {style!r} are easy (median {found.median:.0%} of their words are in the passage): "
                "a search for words finds those too; have an LLM or people ask in other words"
            )


def _one_document(dataset: QADataset) -> Iterator[str]:
    about = Counter(
        document
        for qrels in dataset.qrels.values()
        for relevant in qrels.values()
        for document in {dataset.passages[passage].document for passage in relevant}
    )
    questions = sum(map(len, dataset.qrels.values()))
    for document, count in about.most_common(1):
        if count > ONE_DOCUMENT * questions and len(dataset.documents) > FEW_DOCUMENTS:
            yield (
                f"the document {document[:60]!r} holds {count / questions:.0%} of the questions: the model and the "
                "figures would be about it alone; add questions about the others"
            )


def _leaks(dataset: QADataset) -> Iterator[str]:
    test = dataset.qrels.get("test", {})
    training = {query: relevant for name in ("train", "dev") for query, relevant in dataset.qrels.get(name, {}).items()}
    if not test or not training:
        return
    ids = [*test, *training]
    groups = near_duplicate_groups([dataset.queries[query].text for query in ids])
    in_test = set(groups[: len(test)])
    again = [query for query, group in zip(training, groups[len(test) :], strict=True) if group in in_test]
    if again:
        examples = ", ".join(f"{dataset.queries[query].text[:60]!r}" for query in again[:2])
        yield (
            f"{len(again)} train or dev questions nearly repeat a test question ({examples}): the test would measure "
            "what was learnt by heart; take them out"
        )
    seen = {passage for relevant in training.values() for passage in relevant}
    seen_groups = {dataset.near_duplicates[passage] for passage in seen}
    asked = {passage for relevant in test.values() for passage in relevant} - seen
    copies = sorted(passage for passage in asked if dataset.near_duplicates[passage] in seen_groups)
    if copies:
        yield (
            f"{len(copies)} test passages nearly repeat a training passage ({copies[0][:60]!r}): what looks new was "
            "seen; remove the copies, or move their questions to one side"
        )


def _unused(dataset: QADataset, passage_words: Sequence[int]) -> Iterator[str]:
    long = sum(words * TOKENS_PER_WORD > READ for words in passage_words)
    if long:
        yield (
            f"{long} passages are longer than about {READ} tokens: most models read no further, and nothing behind is "
            "found; cut smaller (--chunk-size), or take a model that reads further (--max-length)"
        )
    used = {query for qrels in dataset.qrels.values() for query, relevant in qrels.items() if relevant}
    unused = len(dataset.queries.keys() - used)
    if unused:
        yield f"{unused} questions are in no split, and are used for nothing: name them in qrels/, or remove them"


def _false_negatives(dataset: QADataset) -> Iterator[str]:
    relevant_to: Mapping[str, set[str]] = {query: set() for query in dataset.negatives}
    for qrels in dataset.qrels.values():
        for query in dataset.negatives.keys() & qrels.keys():
            relevant_to[query].update(qrels[query])
    false = [
        query
        for query, passages in dataset.negatives.items()
        for groups in [{dataset.near_duplicates[passage] for passage in relevant_to[query]}]
        for passage in passages
        if dataset.near_duplicates[passage] in groups
    ]
    if false:
        question = dataset.queries[false[0]].text[:60]
        yield (
            f"{len(false)} negatives are, or nearly repeat, a passage that answers their question ({question!r}): they "
            "teach what is wrong; take them out of negatives.jsonl"
        )
