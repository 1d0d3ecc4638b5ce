"""The dataset: passages, questions, and which passage answers which question."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rag_ft.dataset.text.containment import Containment
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.units import find_boilerplate, find_split_units, keys_of_documents, keys_of_units
from rag_ft.errors import InputError

SPLITS = ("train", "dev", "test")

DERIVED_FROM_PASSAGES = (
    "documents", "passage_texts", "own_texts", "near_duplicates", "boilerplate", "split_units", "unit_keys",
    "containment",
)  # fmt: skip
"""Cached properties of `QADataset` that depend on the passages alone."""


@dataclass(frozen=True)
class Passage:
    """A passage of a document, which is embedded and retrieved.

    Attributes:
        id: its id.
        text: the text that is embedded, after the title.
        title: the title of its document.
        doc_id: the document.
        content: the text without the metadata that LlamaIndex embeds with a node; empty if `text` has none. Questions
            are about it, and reports show it.

    Example:
        >>> from rag_ft import Passage
        >>> Passage("leave.md#0", "Leave is booked in HELM.", title="Leave", doc_id="leave.md").document
        'leave.md'
        >>> Passage("note", "Badges open doors.").document
        'note'
    """

    id: str
    text: str
    title: str = ""
    doc_id: str = ""
    content: str = ""

    @property
    def own_text(self) -> str:
        """The text without metadata."""
        return self.content or self.text

    @property
    def document(self) -> str:
        """The source document. A passage without one is its own document."""
        return self.doc_id or self.id


@dataclass(frozen=True)
class Query:
    """A question, human or generated.

    Attributes:
        source: the source of the question (`human`, `sentence`, `keywords`, `question`, ...); empty if unknown.
        answer: an answer in any words; empty if unknown.
        evidence: the words of the passage that answer it; empty if unknown.
        one_answer: all relevant passages hold the same answer: overlapping, larger or repeated passages. Metrics count
            it once.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> query = Query("q1", "Where do I book holidays?", source="human", answer="In HELM.")
        >>> passages = {"p1": Passage("p1", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {query.id: query}, {"test": {query.id: {"p1": 1}}})
        >>> dataset.queries["q1"].answer
        'In HELM.'
    """

    id: str
    text: str
    source: str = ""
    answer: str = ""
    evidence: str = ""
    one_answer: bool = False


@dataclass(frozen=True)
class ScoredPair:
    """A question and a passage as texts, with a score of how well the passage answers: 0 (not at all) to 1.

    Example:
        >>> from rag_ft import QADataset
        >>> from rag_ft.dataset import ScoredPair
        >>> pairs = [ScoredPair("Where do I book holidays?", "Leave is booked in HELM.", 0.9),
        ...          ScoredPair("Where do I book holidays?", "Leave is granted by the warden.", 0.4)]
        >>> QADataset({}, {}, {}, scored_pairs=pairs).scored_pairs[0].score
        0.9
    """

    query: str
    passage: str
    score: float


Qrels = dict[str, dict[str, int]]
"""Query id -> passage id -> grade (1 or more: relevant)."""


def best_graded(relevant: Mapping[str, int]) -> list[str]:
    """Return the relevant passages with the highest grade.

    Example:
        >>> from rag_ft.dataset.qa_dataset import best_graded
        >>> best_graded({"chapter": 1, "paragraph": 2})
        ['paragraph']
    """
    best = max(relevant.values(), default=0)
    return [passage for passage, grade in relevant.items() if grade == best]


@dataclass(frozen=True)
class QADataset:
    """Questions with the passages that answer them, in the splits `train`, `dev` and `test`.

    Attributes:
        passages: passage id -> passage, in the order of the corpus.
        queries: query id -> query.
        qrels: split -> query id -> passage id -> grade.
        info: how the dataset was created (`dataset.json`).
        negatives: query id -> ids of its hard negatives: passages that look relevant but do not answer it.
        scored_pairs: questions and passages with a score instead of a binary label.
        negative_sources: query id -> passage id -> the retriever that mined this negative (`dense`, `bm25`). Negatives
            that are missing here come from the user.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> dataset = QADataset(
        ...     passages={"p1": Passage("p1", "A Kittiwake is an expenses claim.", doc_id="glossary")},
        ...     queries={"q1": Query("q1", "How do I get my money back?")},
        ...     qrels={"train": {"q1": {"p1": 1}}},
        ... )
        >>> dataset
        QADataset(1 passages of 1 documents; questions: train 1)
    """

    passages: dict[str, Passage]
    queries: dict[str, Query]
    qrels: dict[str, Qrels]
    info: dict[str, Any] = field(default_factory=dict)
    negatives: dict[str, list[str]] = field(default_factory=dict)
    scored_pairs: list[ScoredPair] = field(default_factory=list)
    negative_sources: dict[str, dict[str, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {len(self.qrels[split])}" for split in self.splits) or "none"
        return f"QADataset({len(self.passages)} passages of {len(self.documents)} documents; questions: {counts})"

    @property
    def splits(self) -> list[str]:
        """The splits that have questions: train, dev, test, then any others."""
        names = [*SPLITS, *sorted(set(self.qrels) - set(SPLITS))]
        return [name for name in names if self.qrels.get(name)]

    @cached_property
    def documents(self) -> dict[str, list[str]]:
        """Document -> ids of its passages, in the order of the corpus."""
        documents: dict[str, list[str]] = {}
        for passage in self.passages.values():
            documents.setdefault(passage.document, []).append(passage.id)
        return documents

    @cached_property
    def passage_texts(self) -> dict[str, str]:
        """Passage id -> the text that is embedded: title, newline, text.

        A title that is empty, or the same in the whole corpus, is left out, because it does not distinguish passages.
        """
        return self._titled({key: passage.text for key, passage in self.passages.items()})

    @cached_property
    def own_texts(self) -> dict[str, str]:
        """Passage id -> its text without metadata, but with its title, as in `passage_texts`."""
        return self._titled({key: passage.own_text for key, passage in self.passages.items()})

    def _titled(self, texts: dict[str, str]) -> dict[str, str]:
        if len({passage.title for passage in self.passages.values()}) < 2:
            return texts
        titles = {key: passage.title for key, passage in self.passages.items()}
        return {key: f"{titles[key]}\n{text}" if titles[key] else text for key, text in texts.items()}

    @cached_property
    def near_duplicates(self) -> dict[str, int]:
        """Passage id -> its group. Passages that nearly repeat each other share a group."""
        return dict(zip(self.passages, near_duplicate_groups(list(self.own_texts.values())), strict=True))

    @cached_property
    def containment(self) -> Containment:
        """The passages that contain a text word for word."""
        return Containment({key: passage.own_text for key, passage in self.passages.items()})

    def answering_passages(self, query: str, relevant: Collection[str]) -> list[str]:
        """Return the relevant passages of a question and those that contain one of them, which are no negatives either.

        Args:
            query: id of the question.
            relevant: ids of its relevant passages.
        """
        spans = [self.passages[passage].own_text for passage in relevant]
        if self.queries[query].one_answer:
            # The best of them, and the sentence that was asked about.
            spans = [*spans[:1], self.queries[query].evidence, self.queries[query].text]
        larger = (key for span in spans for key in self.containment.holding(span))
        return list(dict.fromkeys([*relevant, *larger]))

    @cached_property
    def boilerplate(self) -> set[str]:
        """Ids of the passages that nearly repeat in more than 5 documents. They get no questions."""
        return find_boilerplate(self.documents, self.near_duplicates)

    @cached_property
    def split_units(self) -> dict[str, int]:
        """Passage id -> the unit that a split keeps together and that a bootstrap resamples as a whole.

        A unit is a document or, below 10 documents, a group of 5 neighbouring passages. Units that share a
        near-duplicate passage are merged, unless it is boilerplate.
        """
        return find_split_units(self.documents, self.near_duplicates, self.boilerplate)

    @cached_property
    def unit_keys(self) -> dict[int, str]:
        """Unit -> a key by which it is drawn: equal files and texts have equal keys, in any order and with any ids."""
        texts = {key: passage.own_text for key, passage in self.passages.items()}
        return keys_of_units(self.split_units, self.documents, keys_of_documents(self.documents, texts))

    @property
    def held_out_units(self) -> set[int]:
        """The units that dev or test questions are about, and train questions are not."""
        units = self.split_units
        units_of = {
            split: {units[passage] for grades in self.qrels.get(split, {}).values() for passage in grades}
            for split in SPLITS
        }
        return (units_of["dev"] | units_of["test"]) - units_of["train"]

    @property
    def training_passages(self) -> dict[str, str]:
        """Passage id -> text of the passages that training may see.

        In a dataset of few documents, parts of a document are held out, so both units and documents are checked.
        """
        train, units = self.require("train"), self.split_units
        documents = self.documents_of(train, "train")
        seen = {units[passage] for relevant in train.values() for passage in relevant}
        return {
            key: text
            for key, text in self.passage_texts.items()
            if self.passages[key].document in documents and units[key] in seen
        }

    def near_duplicate_queries(self, query_ids: Iterable[str]) -> dict[str, int]:
        """Query id -> its group. Of these queries, those that nearly repeat each other share a group."""
        ids = list(query_ids)
        return dict(zip(ids, near_duplicate_groups([self.queries[query].text for query in ids]), strict=True))

    def require(self, split: str) -> Qrels:
        """Return the qrels of a split.

        Raises:
            InputError: if the split has no questions.
        """
        qrels = self.qrels.get(split)
        if not qrels:
            splits = ", ".join(self.splits) or "none"
            raise InputError(f"the dataset has no questions in split {split!r} (splits with questions: {splits})")
        return qrels

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """Return (query id, passage id) for every relevant passage of a split.

        If all relevant passages of a question hold the same answer, one of the smallest is included.
        """
        return [
            (query, passage)
            for query, relevant in self.require(split).items()
            for passage in (best_graded(relevant)[:1] if self.queries[query].one_answer else relevant)
        ]

    def one_answer(self, split: str) -> set[str]:
        """Return the ids of a split's questions whose relevant passages all hold the same answer."""
        return {query for query in self.qrels.get(split, {}) if self.queries[query].one_answer}

    def questions(self, split: str) -> list[Query]:
        """Return the questions of a split; an empty list if it has none."""
        return [self.queries[query] for query in self.qrels.get(split, {})]

    def texts(self, split: str) -> list[str]:
        """Return the texts of a split's questions; an empty list if it has none."""
        return [query.text for query in self.questions(split)]

    def positive_texts(self, split: str) -> list[str]:
        """Return the distinct relevant passages of a split, as texts."""
        return [self.passage_texts[key] for key in dict.fromkeys(passage for _, passage in self.pairs(split))]

    def documents_of(self, query_ids: Iterable[str], split: str) -> set[str]:
        """Return the documents of the relevant passages of these queries."""
        qrels = self.qrels[split]
        return {self.passages[passage].document for query in query_ids for passage in qrels[query]}

    def seen_queries(self, split: str = "test") -> set[str]:
        """Return the questions of a split that are about documents which training sees.

        Training is `train` and `dev` together, because `dev` selects the model.
        """
        seen = {
            document
            for name in ("train", "dev")
            if name != split and self.qrels.get(name)
            for document in self.documents_of(self.qrels[name], name)
        }
        return {
            query
            for query, relevant in self.qrels.get(split, {}).items()
            if any(self.passages[passage].document in seen for passage in relevant)
        }

    def with_qrels(self, qrels: Mapping[str, Qrels]) -> QADataset:
        """Return the same passages and questions with other splits."""
        return self._like(qrels=dict(qrels))

    def with_questions(
        self, queries: Mapping[str, Query], qrels: Mapping[str, Qrels], negatives: Mapping[str, list[str]] | None = None
    ) -> QADataset:
        """Return the same passages with other questions."""
        return self._like(queries=dict(queries), qrels=dict(qrels), negatives=dict(negatives or {}))

    def with_negatives(
        self, negatives: Mapping[str, list[str]], sources: Mapping[str, dict[str, str]] | None = None
    ) -> QADataset:
        """Return the same questions with other hard negatives and their sources."""
        return self._like(negatives=dict(negatives), negative_sources=dict(sources or {}))

    def without_mined_negatives(self) -> QADataset:
        """Return the dataset without mined hard negatives, because another model may mine better ones."""
        given = {
            query: [passage for passage in negatives if passage not in self.negative_sources.get(query, {})]
            for query, negatives in self.negatives.items()
        }
        return self.with_negatives({query: negatives for query, negatives in given.items() if negatives})

    def with_scored_pairs(self, pairs: Iterable[ScoredPair]) -> QADataset:
        """Return the same questions with other scored pairs."""
        return self._like(scored_pairs=list(pairs))

    def with_info(self, info: Mapping[str, Any]) -> QADataset:
        """Return the same dataset with other `info`."""
        return self._like(info=dict(info))

    def _like(self, **changes: Any) -> QADataset:
        changed = replace(self, **changes)
        # These are slow to compute and only depend on the passages.
        changed.__dict__.update({name: vars(self)[name] for name in DERIVED_FROM_PASSAGES if name in vars(self)})
        return changed
