"""Write files completely or not at all, and read them with errors that name the file and the line."""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rag_ft.errors import InputError, OutsideError

MAX_LINE_BYTES = 10_000_000
"""Maximum length of a line. A longer line is rejected before it fills the memory."""


def cache_folder() -> Path:
    """Return the folder for downloaded weights and vectors: `RAG_FT_CACHE`, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("RAG_FT_CACHE") or platformdirs.user_cache_path("rag_ft"))


@contextmanager
def outside_failures(path: Path) -> Iterator[None]:
    """Turn errors such as a full disk or a missing permission into an `OutsideError` or `InputError`."""
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutsideError(
                f"no space left on the disk while writing {path}: free some space and run again"
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            raise OutsideError(f"{path} cannot be written ({os.strerror(number)}): choose another path") from error
        if number in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise InputError(f"{path} is in the way ({os.strerror(number)}): choose another path") from error
        raise


def _error_number(error: Exception) -> int | None:
    """Return the errno of an error. Safetensors, which is written in Rust, only has it in the message."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(match[1]) if match else None


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` if the block succeeds and is removed if it fails.

    The block may create a file or a folder there. An older folder at `path` is only removed after the new one is
    complete.
    """
    path = Path(path)
    with outside_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        target = beside / path.name
        try:
            yield target
            previous = beside / f"{path.name}-before"
            if target.is_dir() and path.is_dir():
                path.rename(previous)
            try:
                target.replace(path)
            except BaseException:
                if previous.exists() and not path.exists():
                    previous.rename(path)
                raise
        finally:
            with suppress(OSError):
                shutil.rmtree(beside)


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    with written_beside(path) as target, target.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, completely or not at all."""
    with written_beside(path) as target, target.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """Read a UTF-8 file, or a UTF-16 file with a byte-order mark.

    Raises:
        InputError: if the file is missing, is not text (the message names the byte), or has a line over
            `MAX_LINE_BYTES`.
    """
    return "".join(line for _, line in read_lines(path, keep_ends=True))


def read_lines(path: Path, keep_ends: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) for each line of a UTF-8 file. It raises the errors of `read_text`.

    A file with a byte-order mark may also be UTF-16 or UTF-32. Lines end with a line feed, a carriage return, or both.
    """
    try:
        with path.open("rb") as file:
            start = file.peek(4)
            encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8-sig")
            # The handler keeps a wrong byte as a surrogate, so that the error can name its line.
            handler = "surrogateescape" if encoding == "utf-8-sig" else "surrogatepass"
            lines = io.TextIOWrapper(file, encoding, handler, newline="")
            number = 0
            try:
                while line := lines.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    _check_line(line, f"{path}:{number}", encoding)
                    yield number, line if keep_ends else line.rstrip("\r\n")
            except UnicodeDecodeError:
                raise InputError(_NOT_VALID.format(f"{path}:{number + 1}", encoding.upper())) from None
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, but a file is needed") from None


_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_NOT_VALID = "{}: not valid {}: save the file as UTF-8 or leave it out"


def _check_line(line: str, location: str, encoding: str) -> None:
    """Reject a line that is too long or contains bytes that are no text."""
    size = len(line)
    if not line.isascii():
        try:
            size = len(line.encode())
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00
            if encoding != "utf-8-sig":
                raise InputError(_NOT_VALID.format(location, encoding.upper())) from None
            raise InputError(
                f"{location}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8 or leave it out"
            ) from None
    if size > MAX_LINE_BYTES:
        raise InputError(
            f"{location}: a line of more than {MAX_LINE_BYTES // 1_000_000} MB: split it or leave the file out"
        )


def read_json(path: Path) -> Any:
    """Read a JSON file. If it is not valid JSON, the `InputError` names the line."""
    try:
        return _parsed(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg}): fix or remove the file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}): fix or remove the file") from None


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a file with one JSON object per line. Empty lines are skipped."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not valid JSON ({error}): fix or remove the line") from None
        if not isinstance(row, dict):
            raise InputError(f'{path}:{number}: {line[:60]!r} is not a JSON object like {{"_id": …, "text": …}}')
        yield number, row


def _parsed(text: str) -> Any:
    value = json.loads(text)
    # JSON can contain half of a surrogate pair (\ud800), which tokenizers and files reject.
    if re.search(r"\\ud[89a-f]", text, re.IGNORECASE):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = str(error.object)[error.start]
            raise ValueError(f"{half!r} is half of a surrogate pair") from None
    return value


def sha256_of(*parts: str | bytes) -> str:
    """Return the hexadecimal SHA-256 of parts. Each is preceded by its length, so "ab", "c" differs from "a", "bc"."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
