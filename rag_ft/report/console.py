"""A comparison for the terminal: figures of each model, the verdict, and its reason."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rag_ft.evaluation.comparison import BASELINE, Comparison
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.significance import Difference
from rag_ft.evaluation.slices import Slice
from rag_ft.evaluation.verdict import KINDS

WIDTH = 110
COLOURS = {"ship": "bold green", "inconclusive": "bold yellow", "keep-baseline": "bold red"}


def comparison_table(comparison: Comparison) -> Table:
    """The metrics of each model, the best of a column bold, with the headline difference and its interval."""
    # Names come from data: `Text` takes them as they are, where a plain string would be read as markup.
    # They stand above the table: in a column of it they would break into pieces at 80 columns.
    names = [label(comparison, role) for role in roles(comparison) if comparison.names.get(role, role) != role]
    table = _table(
        title=Text("\n".join([subject(comparison), *names, ""]), overflow="fold"), title_justify="left", title_style=""
    )
    table.add_column("model", vertical="bottom", overflow="fold")
    metrics = metric_names(comparison)
    for metric in metrics:
        # In two lines, so that six metrics fit into 80 columns.
        table.add_column(metric.replace("_rate", "").replace("@", "\n@"), justify="right", no_wrap=True)
    table.add_column(f"{HEADLINE} difference\n[95 % interval]", no_wrap=True)
    best = {metric: best_score(comparison, metric) for metric in metrics}
    for role in roles(comparison):
        figures = comparison.models[role]
        scores = [f"{figures[metric]:.3f}" for metric in metrics]
        difference = comparison.differences.get(role, {}).get(HEADLINE)
        table.add_row(
            Text(role.replace("hybrid-", "hybrid-\n")),  # in two lines, as 80 columns need it
            *(
                Text(score, "bold" if score == best[metric] else "")
                for metric, score in zip(metrics, scores, strict=True)
            ),
            Text(difference_text(difference)) if difference else "",
        )
    return table


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the table, the verdict on each candidate, what to use, the kinds of held-out question, and the notes."""
    console.print(comparison_table(comparison))
    console.print()
    for role, verdict in comparison.verdicts.items():
        # A candidate is named here too where there are several to tell apart.
        who = f"{role}: " if len(comparison.verdicts) > 1 else ""
        console.print(Text.assemble(who, (verdict, COLOURS[verdict]), f": {comparison.reasons[role]}"))
    if (best := comparison.recommendation) and comparison.verdicts.get(best.role, "ship") == "ship":
        console.print(Text.assemble("to use: ", (best.role, "bold"), f": {best.reason}"))
    if any(part.queries for part in comparison.slices.values()):
        console.print()
        console.print(_slice_table(comparison, comparison.slices, KINDS))
    if comparison.aspects:
        console.print()
        console.print(_slice_table(comparison, comparison.aspects, {name: name for name in comparison.aspects}))
    if comparison.notes:
        console.print()
    for note in comparison.notes:
        console.print(Text(f"Note: {note}"))


def comparison_text(comparison: Comparison) -> str:
    """What `print_comparison` prints, as plain text."""
    text = io.StringIO()
    # Without force_jupyter a notebook would show the table instead of writing it into the text.
    print_comparison(comparison, Console(file=text, width=WIDTH, color_system=None, force_jupyter=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def subject(comparison: Comparison) -> str:
    """What was asked and searched, in one line."""
    counts = [
        f"{count:,} {thing if count == 1 else thing + 's'}"
        for count, thing in (
            (comparison.queries, f"{comparison.split} question"),
            (comparison.passages, "passage"),
            (comparison.documents, "document"),
        )
    ]
    asked = f"{counts[0]}, {counts[1]} of {counts[2]}"
    return f"{comparison.dataset}: {asked}" if comparison.dataset else asked


def roles(comparison: Comparison) -> list[str]:
    """The roles in the order in which they are shown: baseline, candidates, then BM25 as the yardstick."""
    first = [BASELINE, *comparison.candidates]
    return [*first, *(role for role in comparison.models if role not in first)]


def label(comparison: Comparison, role: str) -> str:
    """The role and the model's name; the name once where both are the same."""
    name = comparison.names.get(role, role)
    return role if name == role else f"{role}: {name}"


def metric_names(comparison: Comparison) -> list[str]:
    """The metrics that were measured, in their order."""
    return list(comparison.models[BASELINE])


def best_score(comparison: Comparison, metric: str) -> str:
    """The best figure as it is shown: models that look equal are equally good."""
    return f"{max(figures[metric] for figures in comparison.models.values()):.3f}"


def difference_text(difference: Difference) -> str:
    """The mean and its interval; an interval that knows no bound is said in words."""
    low, high = difference.ci95
    known = math.isfinite(low) and math.isfinite(high)
    return f"{difference.mean:+z.3f} " + (f"[{low:+z.3f}, {high:+z.3f}]" if known else "[not known]")


def _table(**options: Any) -> Table:
    """An empty table in one style, with gaps that are narrow enough for 80 columns."""
    return Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False, **options)


def _slice_table(comparison: Comparison, slices: Mapping[str, Slice], named: Mapping[str, str]) -> Table:
    """The headline metric on parts of the questions."""
    table = _table()
    table.add_column(f"{HEADLINE} on", overflow="fold")
    for name in ("questions", "baseline", "candidate"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference\n[95 % interval]", no_wrap=True)
    for name, words in named.items():
        part = slices.get(name)
        if part is None or not part.queries:
            continue
        for role, difference in part.differences.items():
            table.add_row(
                Text(f"{words} ({role})" if len(part.differences) > 1 else words),
                f"{part.queries:,}",
                f"{part.models[BASELINE][HEADLINE]:.3f}",
                f"{part.models[role][HEADLINE]:.3f}",
                Text(difference_text(difference)),
            )
    return table
