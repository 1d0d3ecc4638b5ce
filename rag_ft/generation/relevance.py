"""Which passages answer a generated question: all that contain its answer, as overlapping and larger passages do."""

from __future__ import annotations

from collections import defaultdict

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.dataset.sources import SENTENCE
from rag_ft.dataset.text.cloze import sentence_around
from rag_ft.dataset.text.containment import MIN_WORDS
from rag_ft.dataset.text.words import words_of
from rag_ft.dataset.units import MAX_DOCUMENTS_OF_REPEAT

SIMILAR_LENGTH = 1.5
"""Up to this multiple of the length of the passage that was asked about, others are as good: grade 2, longer ones 1."""

IN_MANY_DOCUMENTS = f"its answer stands in more than {MAX_DOCUMENTS_OF_REPEAT} documents"


class Relevance:
    """Finds the passages that answer questions about a passage.

    Args:
        corpus: the passages.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.generation.relevance import Relevance
        >>> text = "Leave is booked in HELM by noon."
        >>> passages = {"small": Passage("small", text, doc_id="a"),
        ...             "large": Passage("large", f"Badges open the doors at night. {text}", doc_id="a")}
        >>> Relevance(QADataset(passages, {}, {})).of(Query("q", text, "sentence"), "small")
        {'small': 2, 'large': 1}
    """

    def __init__(self, corpus: QADataset) -> None:
        self._corpus = corpus
        self._members = near_duplicates_by_group(corpus)
        self._found: dict[str, list[str]] = {}

    def of(self, query: Query, passage: str) -> dict[str, int]:
        """Return passage id -> grade: 2 for the passage and those of its size if larger ones contain the answer too.

        The answer is the evidence of a question, a sentence that is asked about, or else the whole passage.

        Args:
            query: a question about the passage.
            passage: id of the passage.
        """
        return self.holding(answer_span(query, self._corpus.passages[passage]), [passage])

    def holding(self, span: str, known: list[str]) -> dict[str, int]:
        """Return passage id -> grade of the passages that contain a text, and of those that are known to answer.

        Args:
            span: a text from a passage.
            known: ids of passages that answer; their near-duplicates do as well.
        """
        repeats = [key for passage in known for key in self._members[self._corpus.near_duplicates[passage]]]
        found = list(dict.fromkeys([*known, *repeats, *self._holders(span)]))
        lengths = {key: len(self._corpus.passages[key].own_text) for key in found}
        # A passage that was not asked about may repeat a general sentence, so it is never a better answer.
        limit = SIMILAR_LENGTH * min(lengths[key] for key in known)
        best = [key for key in found if lengths[key] <= limit]
        larger = sorted((key for key in found if lengths[key] > limit), key=lengths.__getitem__)
        return dict.fromkeys(best, 2 if larger else 1) | dict.fromkeys(larger, 1)

    def _holders(self, span: str) -> list[str]:
        if span not in self._found:
            self._found[span] = self._corpus.containment.holding(span)
        return self._found[span]

    def in_many_documents(self, relevant: dict[str, int]) -> bool:
        """Return whether passages are of so many documents that a question is about none of them in particular."""
        return len({self._corpus.passages[key].document for key in relevant}) > MAX_DOCUMENTS_OF_REPEAT


def answer_span(query: Query, passage: Passage) -> str:
    """Return the words of a passage that answer a question about it."""
    span = query.text if query.source == SENTENCE else query.evidence
    if span and len(words_of(span)) < MIN_WORDS:
        span = sentence_around(span, passage.own_text)  # "40 days" stands in many passages
    return span or passage.own_text


def near_duplicates_by_group(corpus: QADataset) -> dict[int, list[str]]:
    """Return group -> ids of the passages that are near-duplicates of each other."""
    members: dict[int, list[str]] = defaultdict(list)
    for passage, group in corpus.near_duplicates.items():
        members[group].append(passage)
    return members
