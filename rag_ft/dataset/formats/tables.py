"""Read tables: CSV, TSV, JSONL, JSON, Parquet, or a folder of the `datasets` library."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_ft.errors import InputError, first_line
from rag_ft.files import MAX_LINE_BYTES, read_json, read_jsonl, read_lines

DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = {*DELIMITERS, *JSON_LINES, ".parquet"}
BATCH_SIZE = 1000


@dataclass(frozen=True)
class Table:
    """The columns of a table, and its rows, which may be read lazily.

    Attributes:
        columns: their names as in the file.
        rows: (location, column -> cell). Error messages begin with the location, such as `log.csv:7`.
    """

    columns: list[str]
    rows: Iterable[tuple[str, dict[str, Any]]]


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


def read_table(path: str | Path) -> Table:
    """Open a table in any supported format.

    Args:
        path: a `.csv` (comma, semicolon or tab), `.tsv`, `.jsonl`, `.json` (a list of objects) or `.parquet` file,
            or a folder of `Dataset.save_to_disk`. No code of the file is run and nothing is downloaded.

    Raises:
        InputError: if it has another format or is invalid. The message names the file and the line. The error for an
            invalid row may be raised when that row is read.
    """
    path = Path(path)
    if path.is_dir():
        return _saved_dataset(path)
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        return _csv(path, DELIMITERS[suffix])
    if suffix in JSON_LINES:
        return _of_objects([(f"{path}:{number}", row) for number, row in read_jsonl(path)])
    if suffix == ".json":
        return _of_objects(list(_json(path)))
    if suffix == ".parquet":
        return _parquet(path)
    raise InputError(f"{path} is not a table: .csv, .tsv, .jsonl, .json, .parquet and `datasets` folders are supported")


def _of_objects(rows: list[tuple[str, dict[str, Any]]]) -> Table:
    return Table(list(dict.fromkeys(str(column) for _, row in rows for column in row)), rows)


def _json(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    content = read_json(file)
    if not isinstance(content, list):
        raise InputError(
            f"{file} is not a JSON list of objects: write [{{…}}, {{…}}], or one object per line as .jsonl"
        )
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise InputError(f"{file}: item {number} is {row!r:.40}, but must be an object")
        yield f"{file}: item {number}", row


def _csv(file: Path, delimiters: str) -> Table:
    # The limit is global to the process, so it is never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    headers = {delimiter: _header(file, delimiter) for delimiter in delimiters}
    delimiter = max(headers, key=lambda candidate: len(headers[candidate]))
    columns = headers[delimiter]
    if not columns:
        raise InputError(f"{file}:1: no header: the first line must name the columns")
    named = [column for column in columns if column]
    repeated = next((column for column in named if named.count(column) > 1), None)
    if repeated is not None:
        raise InputError(f"{file}:1: two columns are named {repeated!r}: rename one")
    return Table(named, _csv_rows(file, delimiter, columns))


def _header(file: Path, delimiter: str) -> list[str]:
    for _, cells in _records(file, delimiter):
        return [cell.strip() for cell in cells]
    return []


def _csv_rows(file: Path, delimiter: str, columns: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    records = _records(file, delimiter)
    next(records)
    for number, cells in records:
        if len(cells) != len(columns):
            raise InputError(
                f"{file}:{number}: {len(cells)} cells, but {len(columns)} columns: put a cell with {delimiter!r} or a "
                'line break in quotes, and double the quotes in it ("")'
            )
        yield f"{file}:{number}", {column: cell for column, cell in zip(columns, cells, strict=True) if column}


def _records(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, cells) for each record that is not empty."""
    reader = csv.reader((line for _, line in read_lines(file, keep_ends=True)), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{file}:{number}: not valid CSV ({error}): fix the quotes of the row") from None
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
