"""How much the passages of a corpus repeat each other because chunks overlap or contain each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.dataset.text.words import word_count

MAX_OVERLAP = 0.1
"""Fraction of repeated words above which a warning is given."""

MIN_SHARED_WORDS = 3
"""Minimum number of words that neighbours share to count as an overlap."""

MAX_EXAMINED = 5_000
"""Maximum number of passages that are searched in larger ones. More are sampled at even distances."""


@dataclass(frozen=True)
class Overlap:
    """How much a corpus repeats itself.

    Attributes:
        repeated: fraction of all words that the passage before in the same document has too, 0 to 1.
        contained: fraction of the distinct passages that are a part of a larger one, 0 to 1.

    Example:
        >>> from rag_ft.dataset.overlap import Overlap
        >>> Overlap(repeated=0.5).growth
        2.0
    """

    repeated: float = 0.0
    contained: float = 0.0

    @property
    def growth(self) -> float:
        """Size of the index as a multiple of that without repeated words."""
        return 1 / max(1 - self.repeated, 1e-9)

    def warnings(self) -> Iterator[str]:
        """Yield one line for each kind of repetition that costs time or accuracy."""
        if self.repeated > MAX_OVERLAP:
            yield (
                f"{self.repeated:.0%} of the passages' words repeat the passage before (chunk overlap): the index and "
                f"the time to embed it are {self.growth:.1f} times as large as without overlap (chunk_overlap=0)"
            )
        if self.contained > MAX_OVERLAP:
            yield (
                f"{self.contained:.0%} of the passages are a part of a larger one: index the smallest only "
                "(get_leaf_nodes) and keep the larger ones in the document store (AutoMergingRetriever)"
            )


def measure_overlap(dataset: QADataset) -> Overlap:
    """Measure how much neighbouring passages share, and how many are a part of a larger one.

    Args:
        dataset: any dataset.

    Example:
        >>> from rag_ft import Passage, QADataset
        >>> from rag_ft.dataset.overlap import measure_overlap
        >>> texts = ["Leave is booked. It lasts forty days.", "It lasts forty days. Ask the master."]
        >>> passages = {f"p{n}": Passage(f"p{n}", text, doc_id="leave.md") for n, text in enumerate(texts)}
        >>> round(measure_overlap(QADataset(passages, {}, {})).repeated, 2)
        0.29
    """
    texts = {key: one_line(passage.own_text) for key, passage in dataset.passages.items()}
    total = sum(map(word_count, texts.values()))
    shared = 0
    for passages in dataset.documents.values():
        for before, after in pairwise(passages):
            words = word_count(shared_end(texts[before], texts[after]))
            shared += words if words >= MIN_SHARED_WORDS else 0
    distinct = _one_of_each_group(dataset)
    examined = distinct[:: max(1, len(distinct) // MAX_EXAMINED)]
    contained = sum(bool(_larger_passages(dataset, key)) for key in examined)
    return Overlap(shared / max(total, 1), contained / max(len(examined), 1))


def made_of_smaller(dataset: QADataset) -> set[str]:
    """Return the passages of which half or more is in smaller passages, such as the parents in a hierarchy of nodes.

    Args:
        dataset: any dataset.

    Example:
        >>> from rag_ft import Passage, QADataset
        >>> from rag_ft.dataset.overlap import made_of_smaller
        >>> parts = ["Leave is booked in HELM by noon.", "Badges open all doors of the harbour."]
        >>> passages = {f"p{n}": Passage(f"p{n}", text) for n, text in enumerate([" ".join(parts), *parts])}
        >>> made_of_smaller(QADataset(passages, {}, {}))
        {'p0'}
    """
    covered: dict[str, int] = defaultdict(int)
    lengths = {key: len(passage.own_text) for key, passage in dataset.passages.items()}
    for key in _one_of_each_group(dataset):
        for holder in _larger_passages(dataset, key):
            covered[holder] += lengths[key]
    return {holder for holder, characters in covered.items() if 2 * characters >= lengths[holder]}


def _larger_passages(dataset: QADataset, key: str) -> list[str]:
    """Return the passages that a passage is a part of, without its copies."""
    near = dataset.near_duplicates
    return [
        holder for holder in dataset.containment.holding(dataset.passages[key].own_text) if near[holder] != near[key]
    ]


def _one_of_each_group(dataset: QADataset) -> list[str]:
    """Return one passage of each group of near-duplicates: all copies are in the same larger passages."""
    return list({group: key for key, group in reversed(dataset.near_duplicates.items())}.values())


def shared_end(before: str, after: str) -> str:
    """Return the longest end of a text that another one begins with.

    Args:
        before: a text.
        after: the text that follows it.

    Example:
        >>> from rag_ft.dataset.overlap import shared_end
        >>> shared_end("Leave is booked. Ask the master.", "Ask the master. He signs.")
        'Ask the master.'
    """
    beginning = after[:8]
    start = before.find(beginning, max(0, len(before) - len(after))) if beginning else -1
    while start >= 0:
        if after.startswith(before[start:]):
            return before[start:]
        start = before.find(beginning, start + 1)
    return ""
