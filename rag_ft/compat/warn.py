"""Warnings about changed arguments that point at the line of the caller."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

_PACKAGE = str(Path(__file__).parent)


class CompatibilityWarning(UserWarning):
    """An argument of llama-index-finetuning has a different effect or none."""


def warn(message: str) -> None:
    """Warn at the line that called into `rag_ft.compat`."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, CompatibilityWarning, stacklevel=depth)


def warn_of_unused(arguments: dict[str, tuple[Any, Any, str]]) -> None:
    """Warn about each unused argument that does not have its default value.

    Args:
        arguments: name -> (value, default, what happens instead).
    """
    for name, (value, default, instead) in arguments.items():
        if value != default:
            warn(f"{name} is not used: {instead}")
