"""The result of every single question: as rows for a table, and as CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rag_ft.dataset.formats.tables import DELIMITERS, JSON_LINES
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.review import as_cell
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import BASELINE, Comparison
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.rank_changes import compute_rank_changes
from rag_ft.files import write_jsonl, written_beside

COLUMNS = (
    "question_id", "question", "style", "candidate", "move", "rank_before", "rank_after",
    f"{HEADLINE}_before", f"{HEADLINE}_after", "causes", "slices", "passage_id", "document", "instead",
)  # fmt: skip
LISTS = ("causes", "slices", "instead")


def question_rows(comparison: Comparison, dataset: QADataset) -> Iterator[dict[str, Any]]:
    """One row for each question under each candidate, with the columns of `COLUMNS`.

    Ranks are those of the first passage that answers the question, None where it is not among the first 100;
    `passage_id` and `document` are this passage's, `instead` the ids of what came before it.

    Raises:
        InputError: where the comparison has no rankings, or the dataset is another one.
    """
    for role in comparison.candidates:
        scores = [comparison.per_query[each][HEADLINE] for each in (BASELINE, role)]
        for place, move in enumerate(compute_rank_changes(comparison, dataset, role)):
            query = dataset.queries[move.query]
            yield {
                "question_id": query.id,
                "question": query.text,
                "style": query.source,
                "candidate": role,
                "move": move.kind,
                "rank_before": move.before,
                "rank_after": move.after,
                f"{HEADLINE}_before": round(float(scores[0][place]), 6),
                f"{HEADLINE}_after": round(float(scores[1][place]), 6),
                "causes": list(move.causes),
                "slices": list(move.slices),
                "passage_id": move.wanted,
                "document": dataset.passages[move.wanted].document,
                "instead": list(move.instead),
            }


def write_questions(comparison: Comparison, dataset: QADataset, file: str | Path) -> Path:
    """Write the result of every question.

    Args:
        comparison: with its rankings.
        dataset: that was compared on.
        file: `.csv` or `.tsv` (lists with semicolons between; a cell that a spreadsheet would run as a formula gets an
            apostrophe before it), `.parquet`, or `.jsonl`.

    Raises:
        InputError: where the file has another suffix, or there are no rankings.

    Example:
        >>> import tempfile
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation.comparison import judge
        >>> from rag_ft.report.query_table import write_questions
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "=holidays?")}, {"test": {"q": {"a": 1}}})
        >>> comparison = judge(dataset, "test", {"baseline": [["b", "a"]], "candidate": [["a", "b"]]}, {})
        >>> file = write_questions(comparison, dataset, Path(tempfile.mkdtemp()) / "questions.csv")
        >>> print(file.read_text(encoding="utf-8-sig").splitlines()[1])
        q,'=holidays?,,candidate,win,2,1,0.63093,1.0,,new documents,a,a,b
    """
    file = Path(file)
    check_suffix(file)
    suffix = file.suffix.lower()
    # A lone surrogate in some document is no UTF-8, and must not cost the file.
    rows = _encodable(list(question_rows(comparison, dataset)))
    if suffix in JSON_LINES:
        write_jsonl(file, rows)
    elif suffix == ".parquet":
        _write_parquet(file, rows)
    else:
        # With a byte-order mark a spreadsheet knows that it is UTF-8.
        with written_beside(file) as target, target.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, delimiter=DELIMITERS[suffix][0])
            writer.writerow(COLUMNS)
            writer.writerows([_cell(row[column]) for column in COLUMNS] for row in rows)
    return file


def check_suffix(file: str | Path) -> None:
    """Refuse a file of another form, before anything is computed.

    Raises:
        InputError: where it is none of .csv, .tsv, .parquet and .jsonl.
    """
    if Path(file).suffix.lower() not in {*DELIMITERS, *JSON_LINES, ".parquet"}:
        raise InputError(f"{file}: questions are written as .csv, .tsv, .parquet or .jsonl")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = ";".join(value)
    return as_cell(value) if isinstance(value, str) else "" if value is None else str(value)


def _write_parquet(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    of = {int: pyarrow.int64(), float: pyarrow.float64(), list: pyarrow.list_(pyarrow.string()), str: pyarrow.string()}
    kinds = [
        list if name in LISTS else int if name.startswith("rank_") else float if name.startswith(HEADLINE) else str
        for name in COLUMNS
    ]
    schema = pyarrow.schema([(name, of[kind]) for name, kind in zip(COLUMNS, kinds, strict=True)])
    with written_beside(file) as target:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), target)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _encodable(each) for key, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, list | tuple) else value
