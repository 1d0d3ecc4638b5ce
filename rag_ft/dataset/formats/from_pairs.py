"""Build a dataset from labelled pairs: their texts become the corpus, or are located in a given corpus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.formats.labelled_pairs import LabelledPair
from rag_ft.dataset.qa_dataset import Passage, QADataset, Qrels, Query, ScoredPair
from rag_ft.dataset.text.locating import Locator
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import InputError


def dataset_from_pairs(
    pairs: Iterable[LabelledPair], passages: Mapping[str, Passage] | None = None, split: str = "train"
) -> tuple[QADataset, list[DroppedRow]]:
    """Build a dataset from labelled pairs.

    Args:
        pairs: the pairs, as from `read_labelled_pairs`.
        passages: the corpus in which each text is located (see `Locator`). If None, the distinct texts are the
            corpus, in the documents that their rows name.
        split: the split of questions without one.

    Returns:
        The dataset with its negatives and scored pairs, and a row for `dropped.jsonl` for each text that is not in the
        corpus and each question without a relevant passage.

    Example:
        >>> from rag_ft.dataset.formats.from_pairs import dataset_from_pairs
        >>> from rag_ft.dataset.formats.labelled_pairs import LabelledPair
        >>> dataset, dropped = dataset_from_pairs([LabelledPair("How?", ("So.",), ("Not so.",))])
        >>> dataset.qrels, dataset.negatives, dropped
        ({'train': {'q0': {'p0': 1}}}, {'q0': ['p1']}, [])
    """
    corpus: _GivenCorpus | _OwnTexts = _OwnTexts() if passages is None else _GivenCorpus(passages)
    pairs = list(pairs)
    queries = _queries(pairs, split)
    qrels: dict[str, Qrels] = {}
    negatives: dict[str, dict[str, None]] = {}
    scores: dict[tuple[str, str], float] = {}
    dropped: list[DroppedRow] = []
    has_reason: set[str] = set()

    def drop(query: Query, passage: str, reason: str) -> None:
        has_reason.add(query.id)
        dropped.append(dropped_row(query, passage, reason))

    for pair in pairs:
        query = queries[_key(pair, split)]
        for text, documents, positive in _texts(pair):
            ids, reason = corpus.find(text, documents) if text else corpus.inside(pair)
            if not ids:
                drop(query, text, reason)
            for passage in ids:
                # A document with score 0 is a negative too. Other scores of a document say little about its passages.
                if not positive or pair.score == 0:
                    negatives.setdefault(query.id, {})[passage] = None
                elif pair.is_relevant:
                    qrels.setdefault(pair.split or split, {}).setdefault(query.id, {})[passage] = 1
                is_training = pair.split in ("", "train")
                if pair.score is not None and is_training and text and (positive or pair.score == 0):
                    scores[query.id, passage] = max(pair.score, scores.get((query.id, passage), 0.0))
    answered = {query: relevant for split_qrels in qrels.values() for query, relevant in split_qrels.items()}
    has_reason |= {query for query, _ in scores}
    for query in queries.values():
        for passage in [key for key in negatives.get(query.id, ()) if key in answered.get(query.id, ())]:
            del negatives[query.id][passage]
            drop(query, passage, "it is marked both as relevant and as not relevant")
        if query.id not in answered and query.id not in has_reason:
            drop(query, "", "no passage answers it")
    dataset = QADataset(
        dict(corpus.passages),
        {query.id: query for query in queries.values() if query.id in answered},
        qrels,
        negatives={query: list(ids) for query, ids in negatives.items() if ids and query in answered},
    )
    texts, questions = dataset.passage_texts, {query.id: query.text for query in queries.values()}
    scored = [ScoredPair(questions[query], texts[passage], score) for (query, passage), score in scores.items()]
    return dataset.with_scored_pairs(scored), dropped


def _key(pair: LabelledPair, split: str) -> tuple[str, str]:
    return one_line(pair.query), pair.split or split


def _queries(pairs: Sequence[LabelledPair], split: str) -> dict[tuple[str, str], Query]:
    """Return (question, split) -> query. Its id is that of its pair if that is unused, otherwise `q` and a number."""
    given_ids = {pair.id for pair in pairs}
    new_ids = (new_id for number in count() if (new_id := f"q{number}") not in given_ids)
    queries: dict[tuple[str, str], Query] = {}
    used_ids: set[str] = set()
    for pair in pairs:
        key = _key(pair, split)
        if (query := queries.get(key)) is None:
            identifier = pair.id if pair.id and pair.id not in used_ids else next(new_ids)
            used_ids.add(identifier)
            queries[key] = Query(identifier, pair.query, "", pair.answer, pair.evidence)
        else:
            queries[key] = replace(query, answer=query.answer or pair.answer, evidence=query.evidence or pair.evidence)
    return queries


def _texts(pair: LabelledPair) -> Iterable[tuple[str, Sequence[str], bool]]:
    """Yield (text, documents, whether it is a positive). An empty text stands for the documents themselves."""
    for index, text in enumerate(pair.positives):
        aligned = len(pair.documents) == len(pair.positives)
        yield text, pair.documents[index : index + 1] if aligned else pair.documents, True
    for text in pair.negatives:
        # A negative beside a positive is not in the document of the positive.
        yield text, () if pair.positives else pair.documents, False
    if not pair.positives and not pair.negatives:
        yield "", pair.documents, True


class _OwnTexts:
    """A corpus that consists of the texts of the pairs."""

    def __init__(self) -> None:
        self.passages: dict[str, Passage] = {}
        self._id_of: dict[str, str] = {}

    def find(self, text: str, documents: Sequence[str]) -> tuple[list[str], str]:
        identifier = self._id_of.setdefault(one_line(text), f"p{len(self._id_of)}")
        document = documents[0] if len(documents) == 1 else ""
        passage = self.passages.setdefault(identifier, Passage(identifier, text, "", document))
        if document and not passage.doc_id:
            self.passages[identifier] = replace(passage, doc_id=document)
        return [identifier], ""

    def inside(self, pair: LabelledPair) -> tuple[list[str], str]:
        # For questions and answers with the name of a page, the answer is the only text.
        text = pair.evidence or pair.answer
        return self.find(text, pair.documents) if text else ([], "it names a document, and no corpus holds its text")


class _GivenCorpus:
    """A given corpus, in which the texts of the pairs are located."""

    def __init__(self, passages: Mapping[str, Passage]) -> None:
        self.passages = passages
        self._locator = Locator(passages)

    def find(self, text: str, documents: Sequence[str]) -> tuple[list[str], str]:
        return self._locator.find(text, documents), "its passage is not in the corpus"

    def inside(self, pair: LabelledPair) -> tuple[list[str], str]:
        try:
            return self._locator.inside(pair.documents, pair.evidence, pair.query), ""
        except InputError as error:
            return [], str(error)
