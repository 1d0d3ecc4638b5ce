"""Slices of the questions: which questions belong to each, and the metrics on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.qa_dataset import best_graded
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.text.language import corpus_language
from rag_ft.dataset.text.overlap import content_words
from rag_ft.dataset.units import MIN_DOCUMENTS
from rag_ft.evaluation.significance import Difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.dataset.qa_dataset import QADataset

Figures = dict[str, float]
"""Metric -> mean."""

SLICE_TITLES = {
    "known": "new questions on seen documents",
    "new": "unseen documents",
    "earlier": "earlier questions",
    "later": "later questions",
}
"""Name of a slice of held-out questions in `comparison.json` -> its title. A merged dataset has the last two."""

MIN_SLICE_QUESTIONS = 20
"""Minimum number of questions of a slice by trait."""

FEW_SHARED, MANY_SHARED = 1 / 3, 2 / 3
"""Limits of the fraction of a question's content words that its passage contains. Questions with a high fraction are
easy for every retriever, and most generated questions have one: the headline metric must not depend on them alone."""

SHORT, LONG = 6, 15
"""Limits of short and long questions, in words."""

TRUNCATED = "truncated passages"


@dataclass(frozen=True)
class Slice:
    """The metrics of each retriever on some of the questions.

    Attributes:
        queries: the number of questions.
        models: role -> metric -> mean.
        differences: candidate -> its difference to the baseline in nDCG@10.
    """

    queries: int
    models: dict[str, Figures]
    differences: dict[str, Difference] = field(default_factory=dict)


def held_out_slices(dataset: QADataset, split: str) -> dict[str, NDArray[np.bool_]]:
    """Slice questions into those on seen and unseen documents, and into earlier and later ones.

    Returns:
        Name of a slice (see `SLICE_TITLES`) -> mask in the order of the qrels, shape (questions,).
    """
    qrels = dataset.require(split)

    def mask(queries: Collection[str]) -> NDArray[np.bool_]:
        return np.array([query in queries for query in qrels])

    is_seen = mask(dataset.seen_queries(split))
    slices = {"known": is_seen, "new": ~is_seen}
    is_earlier = mask(set(dataset.info.get("earlier_questions", ())))
    if is_earlier.any():
        slices |= {"earlier": is_earlier, "later": ~is_earlier}
    return slices


def trait_slices(dataset: QADataset, split: str, truncated: Collection[str] = ()) -> dict[str, NDArray[np.bool_]]:
    """Slice questions by shared words, length, truncated passages, source and, if there are few, document.

    Slices of under 20 questions, and of all questions, are left out. Each document is a slice if the questions are
    about fewer than 10.

    Args:
        dataset: the dataset.
        split: the split of the questions.
        truncated: passages that a candidate truncates (`characters_read`).

    Returns:
        Name of a slice -> mask in the order of the qrels, shape (questions,).

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation.slices import trait_slices
        >>> texts = ["Where is leave booked, and when?", "How do I get my holidays at all?"]
        >>> queries = {f"q{n}": Query(f"q{n}", texts[n % 2]) for n in range(60)}
        >>> dataset = QADataset({"p": Passage("p", "Leave is booked in HELM.")}, queries,
        ...                     {"test": {query: {"p": 1} for query in queries}})
        >>> {name: int(mask.sum()) for name, mask in trait_slices(dataset, "test").items()}
        {'few words in common': 30, 'most words in common': 30, 'short (up to 6 words)': 30}
    """
    qrels = dataset.require(split)
    queries = [dataset.queries[query] for query in qrels]
    shared = _shared_words(dataset, split)
    lengths = np.array([len(query.text.split()) for query in queries])
    sources = [query.source if query.source not in ("", HUMAN) else "asked by people" for query in queries]
    documents = [dataset.passages[next(iter(relevant))].document for relevant in qrels.values()]
    slices = {
        "few words in common": shared < FEW_SHARED,
        "some words in common": (shared >= FEW_SHARED) & (shared < MANY_SHARED),
        "most words in common": shared >= MANY_SHARED,
        f"short (up to {SHORT} words)": lengths <= SHORT,
        f"long (over {LONG} words)": lengths > LONG,
        TRUNCATED: np.array(
            [any(passage in truncated for passage in best_graded(relevant)) for relevant in qrels.values()]
        ),
    }
    if len(set(sources)) > 1:
        slices |= _by_value(sources, {name: name for name in sorted(set(sources))})
    if len(set(documents)) < MIN_DOCUMENTS:
        slices |= _by_value(documents, {name: f"document {name}" for name in documents})
    return {name: mask for name, mask in slices.items() if MIN_SLICE_QUESTIONS <= mask.sum() < len(mask)}


def _shared_words(dataset: QADataset, split: str) -> NDArray[np.float64]:
    """Return the fraction of each question's content words in one of its first 3 passages, shape (questions,)."""
    texts = dataset.passage_texts
    words_of = content_words(corpus_language(list(texts.values())[:500]) or "en")
    passage_words = lru_cache(maxsize=10_000)(lambda passage: words_of(texts[passage]))
    fractions = []
    for query, relevant in dataset.qrels[split].items():
        words = words_of(dataset.queries[query].text)
        shared = [len(words & passage_words(passage)) / len(words) for passage in list(relevant)[:3] if words]
        fractions.append(max(shared, default=0.0))
    return np.array(fractions)


def _by_value(values: Sequence[str], titles: dict[str, str]) -> dict[str, NDArray[np.bool_]]:
    """Return title -> mask of the questions with its value."""
    return {title: np.array([each == value for each in values]) for value, title in titles.items()}
