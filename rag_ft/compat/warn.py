"""What an old program should know: said once, where it calls."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

_HERE = str(Path(__file__).parent)


class CompatibilityWarning(UserWarning):
    """An argument of llama-index-finetuning that means nothing any more, or means something else."""


def warn(message: str) -> None:
    """Warn at the line of the program that called into `rag_ft.compat`."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, CompatibilityWarning, stacklevel=depth)


def warn_of_changed(given: dict[str, tuple[Any, Any, str]]) -> None:
    """Warn of each argument that was given another value than its default.

    Args:
        given: name -> (value, default, what to do instead).
    """
    for name, (value, default, instead) in given.items():
        if value != default:
            warn(f"{name} is not used: {instead}")
