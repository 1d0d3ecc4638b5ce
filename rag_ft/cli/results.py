"""What a comparison leaves behind: a table, and an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from rag_ft.cli.app import out

if TYPE_CHECKING:
    from rag_ft.evaluation.comparison import Comparison


NOT_SHIPPED = 3


def show_comparison(comparison: Comparison) -> None:
    from rag_ft.report.console import print_comparison

    print_comparison(comparison, out)


def exit_by_verdict(comparison: Comparison, require_improvement: bool) -> None:
    if require_improvement and "ship" not in comparison.verdicts.values():
        raise typer.Exit(NOT_SHIPPED)
