"""The output of a comparison on the command line: a table and an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from rag_ft.cli.console import out
from rag_ft.cli.exit_codes import NOT_SHIPPED

if TYPE_CHECKING:
    from rag_ft.evaluation.comparison import Comparison


def show_comparison(comparison: Comparison) -> None:
    """Print the table of a comparison."""
    from rag_ft.evaluation.comparison_table import print_comparison

    print_comparison(comparison, out)


def exit_by_verdict(comparison: Comparison, require_improvement: bool) -> None:
    """Exit with 3 if an improvement is required and no candidate has the verdict `ship`."""
    if require_improvement and "ship" not in comparison.verdicts.values():
        raise typer.Exit(NOT_SHIPPED)
