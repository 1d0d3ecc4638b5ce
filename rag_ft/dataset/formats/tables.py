"""Read tables: CSV, TSV, JSONL, JSON, Parquet, or a folder of the `datasets` library."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_ft.errors import InputError, first_line
from rag_ft.files import MAX_LINE_BYTES, read_json, read_lines

logger = logging.getLogger(__name__)

DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = {*DELIMITERS, *JSON_LINES, ".parquet"}
BATCH_SIZE = 1000

MAX_BAD_ROWS = 0.05
"""Maximum fraction of invalid rows that are left out. Above it, the file is not what it is taken for."""

MAX_REPORTED = 5
"""Maximum number of invalid rows that are reported one by one."""

SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)
"""The first line of a CSV file that tells Excel which character separates the cells."""


@dataclass(frozen=True)
class Table:
    """The columns of a table, and its rows, which may be read lazily.

    Attributes:
        columns: their names as in the file.
        rows: (location, column -> cell). Error messages begin with the location, such as `log.csv:7`.
    """

    columns: list[str]
    rows: Iterable[tuple[str, dict[str, Any]]]


class BadRows:
    """Invalid rows of a file, which are left out and reported if they are few.

    Args:
        path: the file.

    Example:
        >>> from rag_ft.dataset.formats.tables import BadRows
        >>> from rag_ft.errors import InputError
        >>> bad_rows = BadRows("asked.csv")
        >>> bad_rows.add(InputError("asked.csv:7: the question is empty"))
        >>> bad_rows.report(valid=99)  # logs the row
        >>> bad_rows.report(valid=9)
        Traceback (most recent call last):
            ...
        rag_ft.errors.InputError: asked.csv:7: the question is empty
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._errors: list[InputError] = []
        self._count = 0

    def add(self, error: InputError) -> None:
        """Leave out a row because of an error, whose message begins with its location."""
        self._count += 1
        if len(self._errors) < MAX_REPORTED:
            self._errors.append(error)

    def report(self, valid: int) -> None:
        """Log the rows that are left out.

        Args:
            valid: number of the other rows.

        Raises:
            InputError: if more than 5 % of all rows are left out. It is the first error, with the number of all.
        """
        rows = valid + self._count
        if self._count > MAX_BAD_ROWS * rows:
            more = f" (the first of {self._count} such errors in {rows} rows)" if self._count > 1 else ""
            raise InputError(f"{self._errors[0]}{more}")
        for error in self._errors:
            logger.warning("a row is left out: %s", error)
        if self._count > MAX_REPORTED:
            logger.warning("%s: %d of %d rows are left out", self._path, self._count, rows)


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder was written by `datasets.save_to_disk`."""
    return (path / "state.json").is_file() or bool(saved_splits(path))


def saved_splits(path: Path) -> dict[str, Path]:
    """Return split -> folder for a folder that `DatasetDict.save_to_disk` wrote; empty for any other."""
    if not (path / "dataset_dict.json").is_file():
        return {}
    return {child.name: child for child in sorted(path.iterdir()) if (child / "state.json").is_file()}


def is_json_list(file: Path) -> bool:
    """Return whether a JSON file begins as a list."""
    return next((line for _, line in read_lines(file) if line.strip()), "").lstrip().startswith("[")


def read_table(path: str | Path, bad_rows: BadRows | None = None) -> Table:
    """Open a table in any supported format.

    Args:
        path: a `.csv` (comma, semicolon or tab), `.tsv`, `.jsonl`, `.json` (a list of objects) or `.parquet` file,
            or a folder of `Dataset.save_to_disk`. No code of the file is run and nothing is downloaded.
        bad_rows: collects invalid rows. If None, the first one is an error.

    Raises:
        InputError: if it has another format or is invalid. The message names the file and the line. The error for an
            invalid row may be raised when that row is read.
    """
    path = Path(path)
    if path.is_dir():
        return _saved_dataset(path)
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        return _csv(path, DELIMITERS[suffix], bad_rows)
    if suffix in JSON_LINES:
        return _of_objects(list(json_lines(path, bad_rows)))
    if suffix == ".json":
        return _of_objects(list(_json(path, bad_rows)))
    if suffix == ".parquet":
        return _parquet(path)
    raise InputError(f"{path} is not a table: .csv, .tsv, .jsonl, .json, .parquet and `datasets` folders are supported")


def json_lines(file: Path, bad_rows: BadRows | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, object) for each line of a JSONL file that is not empty.

    Args:
        file: the file.
        bad_rows: collects lines that are not a JSON object. If None, the first one is an error.
    """
    for number, line in read_lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\ud" in line.lower():
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            reason = "half of a surrogate pair" if isinstance(error, UnicodeEncodeError) else first_line(error)
            _leave_out(InputError(f"{file}:{number}: not valid JSON ({reason}): fix or remove the line"), bad_rows)
            continue
        if isinstance(row, dict):
            yield f"{file}:{number}", row
        else:
            _leave_out(InputError(f"{file}:{number}: {line[:60]!r} is not a JSON object like {{…}}"), bad_rows)


def _of_objects(rows: list[tuple[str, dict[str, Any]]]) -> Table:
    return Table(list(dict.fromkeys(str(column) for _, row in rows for column in row)), rows)


def _json(file: Path, bad_rows: BadRows | None) -> Iterator[tuple[str, dict[str, Any]]]:
    content = read_json(file)
    if not isinstance(content, list):
        raise InputError(
            f"{file} is not a JSON list of objects: write [{{…}}, {{…}}], or one object per line as .jsonl"
        )
    for number, row in enumerate(content, 1):
        if isinstance(row, dict):
            yield f"{file}: item {number}", row
        else:
            _leave_out(InputError(f"{file}: item {number} is {row!r:.40}, but must be an object"), bad_rows)


def _leave_out(error: InputError, bad_rows: BadRows | None) -> None:
    if bad_rows is None:
        raise error
    bad_rows.add(error)


def _csv(file: Path, delimiters: str, bad_rows: BadRows | None) -> Table:
    # The limit is global to the process, so it is never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    delimiters = _separator(file) or delimiters
    headers = {delimiter: _header(file, delimiter) for delimiter in delimiters}
    delimiter = max(headers, key=lambda candidate: len(headers[candidate][1]))
    number, columns = headers[delimiter]
    if not columns:
        raise InputError(f"{file}:{number}: no header: the first line must name the columns")
    named = [column for column in columns if column]
    repeated = next((column for column in named if named.count(column) > 1), None)
    if repeated is not None:
        raise InputError(f"{file}:{number}: two columns are named {repeated!r}: rename one")
    return Table(named, _csv_rows(file, delimiter, columns, bad_rows))


def _separator(file: Path) -> str:
    """Return the separator that the first line names (`sep=;`); empty if it names none."""
    found = SEPARATOR.fullmatch(next((line for _, line in read_lines(file)), ""))
    return found[1] if found else ""


def _header(file: Path, delimiter: str) -> tuple[int, list[str]]:
    for number, cells in _records(file, delimiter, None):
        return number, [cell.strip() for cell in cells]
    return 1, []


def _csv_rows(
    file: Path, delimiter: str, columns: list[str], bad_rows: BadRows | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    records = _records(file, delimiter, bad_rows)
    next(records)
    for number, cells in records:
        if len(cells) == len(columns):
            yield f"{file}:{number}", {column: cell for column, cell in zip(columns, cells, strict=True) if column}
            continue
        error = InputError(
            f"{file}:{number}: {len(cells)} cells, but {len(columns)} columns: put a cell with {delimiter!r} or a "
            'line break in quotes, and double the quotes in it ("")'
        )
        _leave_out(error, bad_rows)


def _records(file: Path, delimiter: str, bad_rows: BadRows | None) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, cells) for each record that is not empty."""
    lines = (
        "" if number == 1 and SEPARATOR.fullmatch(line) else line for number, line in read_lines(file, keep_ends=True)
    )
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = InputError(f"{file}:{number}: not valid CSV ({error}): fix the quotes of the row")
            # An open quote may swallow any number of rows.
            _leave_out(problem, bad_rows if reader.line_num == number else None)
            continue
        if any(cell.strip() for cell in cells):
            yield number, cells


def _parquet(file: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    if not file.exists():
        raise InputError(f"{file} does not exist: check the path")

    def broken(error: Exception) -> InputError:
        return InputError(f"{file} cannot be read as Parquet ({first_line(error)}): write it again")

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            yield from _arrow_rows(file, content.iter_batches(batch_size=BATCH_SIZE))
        except (pyarrow.ArrowException, OSError) as error:
            raise broken(error) from None

    try:
        content = pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(error) from None
    return Table(list(content.schema_arrow.names), rows())


def _saved_dataset(folder: Path) -> Table:
    if not (folder / "state.json").is_file():
        raise InputError(f"{folder} is not a folder of `Dataset.save_to_disk` (it needs state.json)")
    import datasets

    try:
        # With Arrow, images and audio in other columns are not decoded.
        content = datasets.load_from_disk(str(folder)).with_format("arrow")
    except Exception as error:
        raise InputError(f"{folder} cannot be read as a saved dataset ({first_line(error)}): save it again") from None
    return Table(list(content.column_names), _arrow_rows(folder, content.iter(batch_size=BATCH_SIZE)))


def _arrow_rows(path: Path, batches: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = (row for batch in batches for row in batch.to_pylist())
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", row
