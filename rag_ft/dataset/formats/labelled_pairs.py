"""Read question-passage pairs, triplets, scored pairs and click logs from tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rag_ft.dataset.formats.beir import read_beir
from rag_ft.dataset.formats.columns import find_columns, plain_name
from rag_ft.dataset.formats.llama_index_json import read_llama_index_json
from rag_ft.dataset.formats.tables import BadRows, is_json_list, read_table, saved_splits
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import InputError

MIN_POSITIVE_SCORE = 0.5
"""Minimum score of a positive. A passage with a lower score above 0 is only used as a scored pair."""

UNBOUNDED_SCORES = {"clicks", "click", "click_count", "relevance", "grade"}
"""Columns of scores without a fixed maximum: they are divided by the largest score of their question."""

POSITIVE_WORDS = ["yes", "y", "true", "relevant", "positive", "up", "good", "thumbs_up"]
POSITIVE_WORDS += ["thumbs up", "like", "👍"]
NEGATIVE_WORDS = ["no", "n", "false", "not relevant", "not_relevant", "irrelevant", "negative", "down", "bad"]
NEGATIVE_WORDS += ["thumbs_down", "thumbs down", "dislike", "👎"]
WORD_SCORES = dict.fromkeys(POSITIVE_WORDS, 1.0) | dict.fromkeys(NEGATIVE_WORDS, 0.0)

DEV_NAMES = {"validation", "valid", "val", "eval"}
SNIFFED_ROWS = 100
"""Number of rows that are read to recognise the columns."""


@dataclass(frozen=True)
class LabelledPair:
    """A question with passages that people labelled for it.

    Attributes:
        query: the question.
        positives: texts of passages that answer it; with a score below 0.5, texts that answer it only partly.
        negatives: texts of passages that do not answer it.
        score: score of the positives from 0 to 1; 0 if the passages are negatives, None without a score.
        documents: ids or names of documents or passages: one for all positives, or one for each.
        evidence: a snippet of a document that answers it.
        id: id of the question; empty if the row has none.
        answer: an answer in any words.
        split: the split in the file; empty if the file has no splits.

    Example:
        >>> from rag_ft.dataset import LabelledPair, dataset_from_pairs
        >>> pair = LabelledPair("Where do I book holidays?", ("Leave is booked in HELM.",), ("Badges open doors.",))
        >>> dataset, dropped = dataset_from_pairs([pair])
        >>> dataset
        QADataset(2 passages of 2 documents; questions: train 1)
        >>> LabelledPair("Where do I book holidays?", ("Leave is granted by the warden.",), score=0.2).is_relevant
        False
    """

    query: str
    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    score: float | None = None
    documents: tuple[str, ...] = ()
    evidence: str = ""
    id: str = ""
    answer: str = ""
    split: str = ""

    @property
    def is_relevant(self) -> bool:
        """Whether its positives, or its documents, count as relevant."""
        return self.score is None or self.score >= MIN_POSITIVE_SCORE


def read_labelled_pairs(path: str | Path, *, fields: Mapping[str, str] | None = None) -> list[LabelledPair]:
    """Read question-passage pairs, triplets, scored pairs, or a log of clicks or ratings.

    Columns are recognised by their usual names, in any case: `query`, `question`, `anchor`, `sentence1`;
    `positive`, `context`, `passage`, `sentence2`, `answer`; `negative`, `hard_negatives`, `neg_1`; `score`, `label`,
    `rating`, `clicks`; `document`, `doc_id`, `source`, `url`; `evidence`; `id`. A cell may contain a list (in CSV as
    JSON). Rows of one question are merged if they agree (in score, document and evidence).

    Scores are scaled to 0 to 1. Scores and labels that are already from 0 to 1 are kept. Words such as "yes" and "not
    relevant" become 1 and 0. Ratings and similarities above 1 are divided by the largest of the file (4 of 5
    stars: 0.8); clicks, relevance and grades, which have no maximum, by the largest of their question. A passage with
    score 0 is a negative. Other scores below 0.5 are neither positive nor negative.

    Invalid rows, such as one without a question, are left out with a warning if they are at most 5 % of the rows.

    Args:
        path: a CSV, TSV, JSONL, JSON (a list of objects, or LlamaIndex's `EmbeddingQAFinetuneDataset`) or Parquet
            file, a folder of `datasets.save_to_disk`, or a BEIR folder.
        fields: role -> column, for other column names: `{"query": "frage", "positive": "stelle"}`. The other roles are
            negative, score, document, evidence, answer and id.

    Raises:
        InputError: if the columns are ambiguous or more than 5 % of the rows are invalid. The message names the file
            and the line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft.dataset.formats.labelled_pairs import read_labelled_pairs
        >>> file = Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = file.write_text("frage;stelle;clicks\\nHow?;So.;4\\nHow?;Not so.;0\\n")
        >>> for pair in read_labelled_pairs(file, fields={"query": "frage", "positive": "stelle"}):
        ...     print(pair.query, pair.positives, pair.negatives, pair.score)
        How? ('So.',) () 1.0
        How? () ('Not so.',) 0.0
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: pass a file or folder of questions with their passages")
    if (path / "corpus.jsonl").is_file():
        return _pairs_of(read_beir(path))
    if path.suffix.lower() == ".json" and path.is_file() and not is_json_list(path):
        return _pairs_of(read_llama_index_json(path, ""))
    pairs = [
        replace(pair, split="dev" if split.lower() in DEV_NAMES else split)
        for split, table in (saved_splits(path) or {"": path}).items()
        for pair in _read_rows(table, fields or {})
    ]
    if not pairs:
        raise InputError(f"{path} contains no questions")
    return pairs


def _pairs_of(dataset: QADataset) -> list[LabelledPair]:
    def texts(ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(dataset.passages[key].text or dataset.passages[key].title for key in ids)

    return [
        LabelledPair(
            query=dataset.queries[query].text,
            positives=texts(relevant),
            negatives=texts(dataset.negatives.get(query, ())),
            documents=tuple(dataset.passages[key].document for key in relevant),
            evidence=dataset.queries[query].evidence,
            id=query,
            answer=dataset.queries[query].answer,
            split=split,
        )
        for split, qrels in dataset.qrels.items()
        for query, relevant in qrels.items()
    ]


def _read_rows(path: Path, fields: Mapping[str, str]) -> list[LabelledPair]:
    bad_rows = BadRows(path)
    table = read_table(path, bad_rows)
    rows = iter(table.rows)
    head = list(islice(rows, SNIFFED_ROWS))
    if not head:
        bad_rows.report(valid=0)
        return []
    if {row.get("event") for _, row in head} & {"shown", "passage", "pick"}:
        raise InputError(f"{path} is a vote log: use rag-ft generate SOURCE --from-feedback {path}")
    columns = find_columns(path, table.columns, [row for _, row in head], fields)
    pairs = []
    question_of: dict[str, str] = {}
    for location, row in chain(head, rows):
        try:
            pair = _read_pair(location, row, columns)
            if pair.id and question_of.setdefault(pair.id, one_line(pair.query)) != one_line(pair.query):
                raise InputError(f"{location}: the id {pair.id!r} is used by two questions: ids must be unique")
        except InputError as error:
            bad_rows.add(error)
            continue
        pairs.append(pair)
    bad_rows.report(valid=len(pairs))
    if "score" in columns:
        pairs = _scaled(pairs, plain_name(columns["score"][0]) in UNBOUNDED_SCORES)
    return _merged(pairs)


def _read_pair(location: str, row: Mapping[str, Any], columns: Mapping[str, Sequence[str]]) -> LabelledPair:
    def cells(role: str) -> tuple[str, ...]:
        names = role in ("document", "id")
        return tuple(
            text for column in columns.get(role, ()) for text in _texts(location, column, row.get(column), names)
        )

    (query,) = (row.get(column) for column in columns["query"])
    if not isinstance(query, str) or not query.strip():
        raise InputError(f"{location}: the question under {columns['query'][0]!r} is {query!r:.40}, but must be a text")
    positives, documents = cells("positive"), cells("document")
    if not positives and not documents:
        empty = [column for role in ("positive", "document") for column in columns.get(role, ())]
        raise InputError(f"{location}: {' or '.join(map(repr, empty))} is empty: fill it in or remove the row")
    identifier = next(iter(cells("id")), "")
    if any(character in identifier for character in "\t\r\n"):
        raise InputError(f"{location}: the id {identifier!r:.40} has a tab or a line break: use another id")
    scores = [_score(location, column, row.get(column)) for column in columns.get("score", ())]
    answers = [row.get(column) for column in columns.get("answer", ())]
    return LabelledPair(
        query=query.strip(),
        positives=positives,
        negatives=cells("negative"),
        score=scores[0] if scores else None,
        documents=documents,
        evidence=next(iter(cells("evidence")), ""),
        id=identifier,
        answer=next((answer.strip() for answer in answers if isinstance(answer, str)), ""),
    )


def _texts(location: str, column: str, value: Any, names: bool) -> Iterator[str]:
    """Yield the texts of a cell: a text, a list, a list as JSON, or objects with a text. Names may be numbers."""
    if value is None or value == "":
        return
    if isinstance(value, str):
        items = _listed(location, column, value)
        yield from (item.strip() for item in ([value] if items is None else items) if item.strip())
    elif isinstance(value, list):
        for item in value:
            yield from _texts(location, column, item, names)
    elif isinstance(value, dict) and isinstance(value.get("text"), str):
        yield from _texts(location, column, value["text"], names)
    elif names and isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    else:
        raise InputError(f"{location}: {column!r} is {value!r:.40}, but must be a text or a list of texts")


def _listed(location: str, column: str, cell: str) -> list[str] | None:
    """Return the texts of a cell that is a JSON list of texts; None for any other cell ("[1] shows" is a text)."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        # This is a list as Python prints it. Reading it as one long text would be a silent mistake.
        if text.startswith("['"):
            raise InputError(
                f'{location}: {column!r} is a list, but not valid JSON ({text[:30]!r}): write ["…", "…"]'
            ) from None
        return None
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


def _score(location: str, column: str, value: Any) -> float:
    number = value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in WORD_SCORES:
            return WORD_SCORES[word]
        # Many countries write a decimal comma.
        number = word.replace(",", ".") if re.fullmatch(r"\d+,\d+", word) else word
    try:
        score = float(number)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score) or score < 0:
        raise InputError(f"{location}: the score under {column!r} is {value!r:.40}, but must be a number of at least 0")
    return score


def _scaled(pairs: Sequence[LabelledPair], by_question: bool) -> list[LabelledPair]:
    """Scale scores to 0 to 1. The passages of a row with score 0 become negatives."""
    largest: dict[str, float] = {}
    keys = [one_line(pair.query) if by_question else "" for pair in pairs]
    scores = [pair.score or 0.0 for pair in pairs]
    for key, score in zip(keys, scores, strict=True):
        largest[key] = max(largest.get(key, 0.0), score)
    above_one = max(largest.values(), default=0.0) > 1
    scaled = []
    for pair, key, score in zip(pairs, keys, scores, strict=True):
        if score == 0:
            pair = replace(pair, positives=(), negatives=(*pair.positives, *pair.negatives))
        scaled.append(replace(pair, score=score / largest[key] if above_one and largest[key] else score))
    return scaled


def _merged(pairs: Iterable[LabelledPair]) -> list[LabelledPair]:
    """Merge the rows of one question that have the same score, evidence and documents."""
    merged: dict[tuple[object, ...], LabelledPair] = {}
    for pair in pairs:
        only_names = not (pair.positives or pair.negatives or pair.evidence)
        key = (one_line(pair.query), pair.score, pair.evidence, only_names or pair.documents)
        if (earlier := merged.get(key)) is not None:
            pair = replace(
                earlier,
                positives=tuple(dict.fromkeys(earlier.positives + pair.positives)),
                negatives=tuple(dict.fromkeys(earlier.negatives + pair.negatives)),
                documents=tuple(dict.fromkeys(earlier.documents + pair.documents)) if only_names else pair.documents,
                id=earlier.id or pair.id,
                answer=earlier.answer or pair.answer,
            )
        merged[key] = pair
    return list(merged.values())
