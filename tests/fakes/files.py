"""Files that tests read."""

from __future__ import annotations

import json
from pathlib import Path


def write_lines(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
