"""The quick tests, and the exports', on the lowest versions that pyproject.toml allows.

uv resolves them: each direct dependency as low as it may be, all others new. pip installs them, from wheels alone.
It takes a quarter of an hour and a gigabyte.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
OPENAI_LIKE = "llama-index-embeddings-openai-like>=0.2"
"""Cannot be installed beside the versions of constraints.txt. The lowest versions go with it."""


def succeed(*command: str | Path, **environment: str) -> None:
    """Run a command in the repository. It must succeed: the end of its output says why not."""
    # A run of pytest within a run of pytest must not take the outer one's settings for its own.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=REPOSITORY,
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quick_tests_pass_on_the_lowest_versions(tmp_path: Path) -> None:
    wanted, lowest = tmp_path / "wanted.in", tmp_path / "lowest.txt"
    # torch stays the tested version: older ones bring gigabytes of CUDA with them.
    torch = f"torch=={importlib.metadata.version('torch').split('+')[0]}"
    wanted.write_text(f"{OPENAI_LIKE}\n{torch}\n", encoding="utf-8")
    resolve = ["-m", "uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--no-build", "--extra", "dev"]
    succeed(sys.executable, *resolve, "--output-file", lowest, "pyproject.toml", wanted)

    succeed(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", lowest, "--only-binary", ":all:"]
    succeed(*install, torch)
    succeed(*install, OPENAI_LIKE, "--editable", f"{REPOSITORY}[dev]")
    test = [python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--maxfail=20"]
    succeed(*test)
    succeed(*test, "-n", "0", "-m", "slow", "tests/embedding/test_backends.py")
