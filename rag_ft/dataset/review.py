"""Review questions in a spreadsheet: export them, import the decisions, and apply them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.formats.beir import read_beir, write_beir
from rag_ft.dataset.formats.tables import DELIMITERS, JSON_LINES, read_table
from rag_ft.dataset.qa_dataset import QADataset, Query
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import InputError, UnknownIdError
from rag_ft.files import read_jsonl, write_jsonl, written_beside

REVIEWED = "reviewed.jsonl"
COLUMNS = ("id", "split", "style", "question", "passage_id", "document", "passage", "keep", "note")
REJECTED, EDITED = "rejected", "edited"
REASON = "rejected by a person"

NO = {"no", "n", "0", "false", "reject", "rejected", "x"}
YES = {"", "yes", "y", "1", "true", "keep", "kept", "ok"}

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""The start of a cell that a spreadsheet runs as a formula. It includes apostrophes before it, so that adding one and
removing it again is exact."""


@dataclass(frozen=True)
class Review:
    """The decisions of a reviewer: which questions are rejected, and which have a new text.

    A decision is stored with the original text of a question and its passage, so it still applies if the same question
    is generated again.

    Attributes:
        decisions: (original text, passage id) -> the new text; None if the question is rejected.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset.review import Review
        >>> dataset = QADataset({"p": Passage("p", "So.")}, {"q": Query("q", "How")}, {"test": {"q": {"p": 1}}})
        >>> changed, dropped = Review({("How", "p"): "How?"}).apply(dataset)
        >>> changed.queries["q"].text
        'How?'
    """

    decisions: dict[tuple[str, str], str | None] = field(default_factory=dict)

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """(text, passage id) of each rejected question."""
        return [key for key, text in self.decisions.items() if text is None]

    @property
    def edited(self) -> dict[tuple[str, str], str]:
        """(original text, passage id) -> new text."""
        return {key: text for key, text in self.decisions.items() if text is not None}

    def apply(self, dataset: QADataset) -> tuple[QADataset, list[DroppedRow]]:
        """Remove the rejected questions from a dataset and apply the edited texts.

        Returns:
            The dataset, in which edited questions keep their ids, and a row for `dropped.jsonl` for each rejected
            question.
        """
        passages_of: dict[str, dict[str, None]] = {}
        for qrels in dataset.qrels.values():
            for identifier, relevant in qrels.items():
                passages_of.setdefault(identifier, {}).update(dict.fromkeys(relevant))
        gone: dict[str, list[str]] = {}
        for text_before, passage in self.decisions:
            if passage not in dataset.passages:
                gone.setdefault(text_before, []).append(passage)
        queries: dict[str, Query] = {}
        dropped = []
        for query in dataset.queries.values():
            keys = [(query.text, passage) for passage in passages_of.get(query.id, ())]
            # Files that were read again have new random ids.
            keys += [(query.text, passage) for passage in gone.get(query.text, ())]
            decided_key = next((key for key in keys if key in self.decisions), None)
            text = query.text if decided_key is None else self.decisions[decided_key]
            if text is not None:
                queries[query.id] = replace(query, text=text)
            elif decided_key is not None:
                dropped.append(dropped_row(query, decided_key[1], REASON))
        changed = replace(
            dataset,
            queries=queries,
            qrels={split: _only(queries, qrels) for split, qrels in dataset.qrels.items()},
            negatives=_only(queries, dataset.negatives),
        )
        return changed, dropped

    def merged(self, later: Review) -> Review:
        """Merge these decisions with later ones, which are about the texts as edited here.

        A question that was edited and is now rejected is stored as rejected under its original text.
        """
        decisions = dict(self.decisions)
        original_key = {(text, key[1]): key for key, text in self.edited.items()}
        for key, text in later.decisions.items():
            original = original_key.get(key, key)
            if text == original[0]:
                decisions.pop(original, None)
            else:
                decisions[original] = text
        return Review(decisions)

    @classmethod
    def load(cls, folder: str | Path) -> Review:
        """Read `reviewed.jsonl` of a dataset folder. Without that file there are no decisions.

        Raises:
            InputError: if a line is invalid.
        """
        file = Path(folder) / REVIEWED
        decisions: dict[tuple[str, str], str | None] = {}
        for number, row in read_jsonl(file) if file.exists() else ():
            query, passage, decision, text = (row.get(key) for key in ("query", "passage", "decision", "text"))
            if not isinstance(query, str) or not isinstance(passage, str) or decision not in (REJECTED, EDITED):
                raise InputError(
                    f'{file}:{number}: not a decision: a line needs "query", "passage", and "{REJECTED}" or '
                    f'"{EDITED}" as "decision"; fix or remove it'
                )
            if decision == EDITED and (not isinstance(text, str) or not text.strip()):
                raise InputError(f'{file}:{number}: an edited question without "text": add it or remove the line')
            decisions[query, passage] = text if decision == EDITED else None
        return cls(decisions)

    def save(self, folder: str | Path) -> Path:
        """Merge the decisions into `reviewed.jsonl` of a dataset folder."""
        file = Path(folder) / REVIEWED
        decisions = Review.load(folder).merged(self).decisions
        write_jsonl(
            file,
            (
                {"query": query, "passage": passage, "decision": EDITED if text else REJECTED, "text": text or ""}
                for (query, passage), text in decisions.items()
            ),
        )
        return file


def export_questions(dataset: QADataset, file: str | Path) -> Path:
    """Write the questions of all splits for a review: one row for each, with its first passage.

    The reviewer writes "no" under `keep` to reject a question, or edits its text under `question`.

    Args:
        dataset: any dataset.
        file: `.csv` or `.tsv` for a spreadsheet (a cell that it would run as a formula is prefixed with an apostrophe),
            or `.jsonl`.

    Raises:
        InputError: if the file has another suffix.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset.review import export_questions, import_review
        >>> dataset = QADataset({"p": Passage("p", "So.")}, {"q": Query("q", "How?")}, {"test": {"q": {"p": 1}}})
        >>> file = export_questions(dataset, Path(tempfile.mkdtemp()) / "questions.jsonl")
        >>> _ = file.write_text(file.read_text().replace('"keep": ""', '"keep": "no"'))
        >>> import_review(dataset, file).rejected
        [('How?', 'p')]
    """
    file = Path(file)
    suffix = file.suffix.lower()
    if suffix in JSON_LINES:
        write_jsonl(file, _rows(dataset))
    elif suffix in DELIMITERS:
        # Spreadsheets need the byte-order mark to recognise UTF-8.
        with written_beside(file) as target, target.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, delimiter=DELIMITERS[suffix][0])
            writer.writerow(COLUMNS)
            writer.writerows([as_cell(row[column]) for column in COLUMNS] for row in _rows(dataset))
    else:
        raise InputError(f"{file} is not a supported format: choose a .csv, .tsv or .jsonl file")
    return file


def import_review(dataset: QADataset, file: str | Path, before: Review | None = None) -> Review:
    """Read the decisions of a reviewer from a file of `export_questions`.

    "no", "n", "0", "false", "reject" or "x" under `keep` rejects a question; another text under `question` edits it.
    All other questions are kept, including those whose row was removed. Changed white space is not an edit.

    Args:
        dataset: the dataset whose questions were exported.
        file: `.csv`, `.tsv` or `.jsonl`. Columns may be added and moved.
        before: earlier decisions. Rows that were exported before such a decision are skipped, so several reviewers can
            continue in the same file and import it again.

    Raises:
        UnknownIdError: if an id is not in the dataset.
        InputError: if a column is missing, an id appears twice, a question is empty, or `keep` has another value.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset import export_questions, import_review
        >>> dataset = QADataset({"p": Passage("p", "So.")}, {"q": Query("q", "How")}, {"test": {"q": {"p": 1}}})
        >>> file = export_questions(dataset, Path(tempfile.mkdtemp()) / "questions.jsonl")
        >>> _ = file.write_text(file.read_text().replace('"How"', '"How?"'))  # as a person does
        >>> import_review(dataset, file).edited
        {('How', 'p'): 'How?'}
    """
    file = Path(file)
    if file.suffix.lower() not in {*DELIMITERS, *JSON_LINES}:
        raise InputError(f"{file} is not a supported format: choose a .csv, .tsv or .jsonl file")
    table = read_table(file)
    for column in ("id", "question", "keep"):
        if column not in table.columns:
            raise InputError(f"{file} has no column {column!r}: export the questions again and edit that file")
    unescape = from_cell if file.suffix.lower() in DELIMITERS else str
    first_passage = {query: next(iter(relevant)) for _, query, relevant in _asked_queries(dataset)}
    before = before or Review()
    earlier = {(one_line(text), passage) for text, passage in before.decisions}
    passages_of_rejected = {passage for _, passage in before.rejected}
    decisions: dict[tuple[str, str], str | None] = {}
    seen: set[str] = set()
    for location, row in table.rows:
        identifier, text = (_cell(location, row, column, unescape) for column in ("id", "question"))
        keep = _read_keep(location, row)
        if identifier in seen:
            raise InputError(f"{location}: the id {identifier!r} appears twice: remove one of the rows")
        seen.add(identifier)
        if identifier not in first_passage:
            passage = _cell(location, row, "passage_id", unescape)
            if (one_line(text), passage) in earlier or (not keep and passage in passages_of_rejected):
                continue
            raise UnknownIdError(
                f"{location}: the dataset has no question with the id {identifier!r}: export the questions again"
            )
        if keep and not text.strip():
            raise InputError(f"{location}: the question {identifier!r} is empty: write no under keep to reject it")
        original = dataset.queries[identifier].text
        passage = first_passage[identifier]
        if not keep:
            decisions[original, passage] = None
        elif one_line(text) != one_line(original) and (one_line(text), passage) not in earlier:
            decisions[original, passage] = text.strip()
    return Review(decisions)


def _read_keep(location: str, row: Mapping[str, Any]) -> bool:
    keep = str(row.get("keep") if row.get("keep") is not None else "").strip().lower()
    if keep not in NO | YES:
        raise InputError(f"{location}: keep is {row['keep']!r:.40}: write yes, no or nothing (no rejects the question)")
    return keep not in NO


def review_folder(folder: str | Path, file: str | Path) -> Review:
    """Apply a review to a dataset folder: update questions, qrels and `dropped.jsonl`, and extend `reviewed.jsonl`.

    Args:
        folder: a BEIR folder, which is rewritten in place.
        file: the file of the review (see `import_review`).

    Returns:
        The new decisions of this file.

    Raises:
        InputError: if the file is invalid (see `import_review`) or rejects every question. Then nothing is changed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset import export_questions, read_beir, review_folder, write_beir
        >>> queries = {"q1": Query("q1", "How?"), "q2": Query("q2", "When?")}
        >>> dataset = QADataset({"p": Passage("p", "So.")}, queries, {"test": {"q1": {"p": 1}, "q2": {"p": 1}}})
        >>> folder = write_beir(dataset, Path(tempfile.mkdtemp()) / "dataset")
        >>> file = export_questions(dataset, folder / "questions.jsonl")
        >>> _ = file.write_text(file.read_text().replace('"keep": ""', '"keep": "no"', 1))  # as a person does
        >>> review_folder(folder, file).rejected, list(read_beir(folder).queries)
        ([('How?', 'p')], ['q2'])
    """
    folder = Path(folder)
    dataset = read_beir(folder)
    review = import_review(dataset, file, Review.load(folder))
    changed, new_rows = review.apply(dataset)
    if not changed.splits:
        raise InputError(f"{file} rejects every question of {folder}: remove the dataset instead")
    dropped_file = folder / "dropped.jsonl"
    dropped = [row for _, row in read_jsonl(dropped_file)] if dropped_file.exists() else []
    # Decisions are written first, so that the import can be repeated after a kill in between.
    review.save(folder)
    write_beir(changed, folder, dropped + new_rows)
    return review


def as_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet runs as a formula.

    Example:
        >>> from rag_ft.dataset.review import as_cell, from_cell
        >>> as_cell("=1+1"), from_cell("'=1+1"), as_cell("it's")
        ("'=1+1", '=1+1', "it's")
    """
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """Return the text of a cell that `as_cell` wrote."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _cell(location: str, row: Mapping[str, Any], column: str, unescape: Callable[[str], str]) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str | int):
        raise InputError(f"{location}: {column} is {value!r:.40}, but must be a text")
    return unescape("" if value is None else str(value))


def _asked_queries(dataset: QADataset) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Yield (split, query id, relevant passages). A question in two splits is yielded for the first one."""
    seen: set[str] = set()
    for split in dataset.splits:
        for query, relevant in dataset.qrels[split].items():
            if query not in seen and relevant:
                seen.add(query)
                yield split, query, relevant


def _rows(dataset: QADataset) -> Iterator[dict[str, str]]:
    for split, identifier, relevant in _asked_queries(dataset):
        query, passage = dataset.queries[identifier], dataset.passages[next(iter(relevant))]
        text = dataset.own_texts[passage.id]
        cells = (query.id, split, query.source, query.text, passage.id, passage.document, text, "", "")
        yield dict(zip(COLUMNS, cells, strict=True))


def _only(queries: Container[str], by_query: Mapping[str, Any]) -> dict[str, Any]:
    return {query: value for query, value in by_query.items() if query in queries}
