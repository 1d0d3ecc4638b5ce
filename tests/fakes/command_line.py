"""The real command line in a process of its own, and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

WRONG, OUTSIDE = 2, 4


def rag_ft(
    *arguments: object, before: Callable[[], None] | None = None, modules: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100"}
    if modules is not None:
        environment |= {"PYTHONPATH": str(modules), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rag_ft.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=environment, preexec_fn=before, check=False,
    )  # fmt: skip
