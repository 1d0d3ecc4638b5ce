"""The result of every question as a table: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rag_ft.dataset.formats.tables import DELIMITERS, JSON_LINES
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.review import as_cell
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.rank_changes import compute_rank_changes
from rag_ft.evaluation.roles import BASELINE
from rag_ft.files import write_jsonl, written_beside

COLUMNS = (
    "question_id", "question", "style", "candidate", "move", "rank_before", "rank_after",
    f"{HEADLINE}_before", f"{HEADLINE}_after", "causes", "slices", "passage_id", "document", "instead",
)  # fmt: skip
LIST_COLUMNS = ("causes", "slices", "instead")


def question_rows(comparison: Comparison, dataset: QADataset) -> Iterator[dict[str, Any]]:
    """Yield one row for each question under each candidate, with the columns of `COLUMNS`.

    Ranks are those of the first relevant passage, None if it is not among the first 100. `passage_id` and `document`
    name this passage; `instead` has the ids of the passages ranked above it.

    Raises:
        InputError: if the comparison has no rankings, or was made on another dataset.
    """
    for role in comparison.candidates:
        scores = [comparison.per_query[each][HEADLINE] for each in (BASELINE, role)]
        for position, change in enumerate(compute_rank_changes(comparison, dataset, role)):
            query = dataset.queries[change.query]
            yield {
                "question_id": query.id,
                "question": query.text,
                "style": query.source,
                "candidate": role,
                "move": change.kind,
                "rank_before": change.before,
                "rank_after": change.after,
                f"{HEADLINE}_before": round(float(scores[0][position]), 6),
                f"{HEADLINE}_after": round(float(scores[1][position]), 6),
                "causes": list(change.failure_causes),
                "slices": list(change.slices),
                "passage_id": change.relevant,
                "document": dataset.passages[change.relevant].document,
                "instead": list(change.ranked_above),
            }


def write_questions(comparison: Comparison, dataset: QADataset, file: str | Path) -> Path:
    """Write the result of every question.

    Args:
        comparison: a comparison that has its rankings.
        dataset: the dataset of the comparison.
        file: `.csv` or `.tsv` (semicolons separate the items of a list; an apostrophe precedes a cell that a
            spreadsheet would run as a formula), `.parquet`, or `.jsonl`.

    Returns:
        The file.

    Raises:
        InputError: if the file has another suffix, or if the comparison has no rankings.

    Example:
        >>> import tempfile
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import Run, score_runs
        >>> from rag_ft.report import write_questions
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "=holidays?")}, {"test": {"q": {"a": 1}}})
        >>> comparison = score_runs(dataset, "test", {"baseline": Run([["b", "a"]]), "candidate": Run([["a", "b"]])})
        >>> file = write_questions(comparison, dataset, Path(tempfile.mkdtemp()) / "questions.csv")
        >>> print(file.read_text(encoding="utf-8-sig").splitlines()[1])
        q,'=holidays?,,candidate,win,2,1,0.63093,1.0,,unseen documents,a,a,b
    """
    file = Path(file)
    check_suffix(file)
    suffix = file.suffix.lower()
    # A document may have a lone surrogate, which cannot be encoded as UTF-8: it must not make the export fail.
    rows = _encodable(list(question_rows(comparison, dataset)))
    if suffix in JSON_LINES:
        write_jsonl(file, rows)
    elif suffix == ".parquet":
        _write_parquet(file, rows)
    else:
        # The byte-order mark tells a spreadsheet that the file is UTF-8.
        with written_beside(file) as target, target.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, delimiter=DELIMITERS[suffix][0])
            writer.writerow(COLUMNS)
            writer.writerows([_cell(row[column]) for column in COLUMNS] for row in rows)
    return file


def check_suffix(file: str | Path) -> None:
    """Check the suffix of a file, before anything is computed.

    Raises:
        InputError: if it is not .csv, .tsv, .parquet or .jsonl.
    """
    if Path(file).suffix.lower() not in {*DELIMITERS, *JSON_LINES, ".parquet"}:
        raise InputError(f"{file}: write questions to a .csv, .tsv, .parquet or .jsonl file")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = ";".join(value)
    return as_cell(value) if isinstance(value, str) else "" if value is None else str(value)


def _write_parquet(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    def type_of(name: str) -> pyarrow.DataType:
        if name in LIST_COLUMNS:
            return pyarrow.list_(pyarrow.string())
        if name.startswith("rank_"):
            return pyarrow.int64()
        return pyarrow.float64() if name.startswith(HEADLINE) else pyarrow.string()

    schema = pyarrow.schema([(name, type_of(name)) for name in COLUMNS])
    with written_beside(file) as target:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), target)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _encodable(each) for key, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, list | tuple) else value
