"""In CI a skipped test fails the run, unless its reason is listed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MODULE = "import pytest\npytest.importorskip('no_such_package')\n"
UNLISTED = "import pytest\ndef test_it():\n    pytest.skip('no time')\n"
LISTED = "import pytest\n@pytest.mark.skipif(True, reason='there is a GPU')\ndef test_it(): ...\n"


def run(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Run pytest on the folder, with one test that passes beside those that are there. Return its status and output."""
    (folder / "test_passing.py").write_text("def test_it(): ...\n")
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "strict_skips", "-p", "no:cacheprovider", *options, str(folder)],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(TESTS), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("code", "reason"), [(MODULE, "could not import 'no_such_package'"), (UNLISTED, "no time")], ids=["module", "test"]
)
def test_a_skip_that_is_not_listed_fails_the_run_and_is_named(
    tmp_path: Path, code: str, reason: str, workers: str
) -> None:
    (tmp_path / "test_skipping.py").write_text(code)
    status, said = run(tmp_path, "--strict-skips", "-n", workers)
    assert status == 1
    (line,) = [line for line in said.splitlines() if line.startswith("test_skipping.py") and ": " in line]
    assert reason in line


def test_a_listed_reason_passes(tmp_path: Path) -> None:
    (tmp_path / "test_skipping.py").write_text(LISTED)
    assert run(tmp_path, "--strict-skips")[0] == 0


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("false", 0), ("", 0)])
def test_it_is_the_default_in_ci_alone(tmp_path: Path, ci: str, status: int) -> None:
    (tmp_path / "test_skipping.py").write_text(UNLISTED)
    assert run(tmp_path, CI=ci)[0] == status
