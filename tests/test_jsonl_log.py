"""The durable log: a failed write, several threads, and a process that owns the file."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import Timeout

from rag_ft.jsonl_log import JsonlLog

FULL_DISK = """
import resource, sys
from pathlib import Path
from rag_ft.errors import OutsideError
from rag_ft.jsonl_log import JsonlLog

file = Path(sys.argv[1])
log = JsonlLog(file, file.with_suffix(".lock"), keep_whole_lines=sys.argv[2] == "keep")
log.append([{"number": 0}])
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
try:
    log.append({"number": number} for number in range(1, 100))
except OutsideError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
log.append([{"number": 100}])
"""


def log_of(file: Path) -> JsonlLog:
    return JsonlLog(file, file.with_suffix(".lock"))


@pytest.mark.parametrize(("mode", "kept"), [("keep", [0, 1, 2, 3, 4, 5, 6, 100]), ("drop", [0, 100])])
def test_a_full_disk_leaves_whole_lines_or_nothing(mode: str, kept: list[int], tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", FULL_DISK, str(file), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no space left on the disk" in done.stdout
    assert [row["number"] for row in log_of(file).rows()] == kept
    assert file.read_bytes().count(b"\n") == len(kept)


def test_threads_that_share_writes_lose_no_line(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log.jsonl")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: log.append([{"number": number}]), range(200)))
    assert sorted(row["number"] for row in log.rows()) == list(range(200))


def test_an_exclusive_log_belongs_to_one_owner_and_starts_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "log.jsonl"
    file.parent.mkdir()
    file.write_bytes(b'{"number": 1}\n{"numb')
    log = log_of(file)
    with log.exclusive():
        assert file.read_bytes() == b'{"number": 1}\n'
        with ThreadPoolExecutor(1) as pool:  # each thread may write while the block holds the lock
            pool.submit(log.append, [{"number": 2}]).result(timeout=20)
        with pytest.raises(Timeout), log_of(file).exclusive():
            pass
    assert [row["number"] for row in log_of(file).rows(containing=b"2")] == [2]


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"[1]\n{}\n\xff\xfe\n" + b"[" * 100_000 + b'\n{"number": 1}\n{"half')
    assert list(log_of(file).rows()) == [{}, {"number": 1}]
    log_of(file).append([{"number": 2}])
    assert list(log_of(file).rows()) == [{}, {"number": 1}, {"number": 2}]
