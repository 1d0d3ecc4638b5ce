"""A comparison as text tables: metrics of each retriever, verdicts, the conclusion, slices and notes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rag_ft.evaluation.conclusion import Conclusion
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.roles import BASELINE, HYBRID_PREFIX
from rag_ft.evaluation.significance import Difference
from rag_ft.evaluation.slices import SLICE_TITLES, Figures, Slice
from rag_ft.evaluation.verdict import Verdict

WIDTH = 110
COLOURS = {"ship": "bold green", "inconclusive": "bold yellow", "keep-baseline": "bold red"}


class TableSource(Protocol):
    """The attributes of a comparison that the tables show."""

    @property
    def subject(self) -> str: ...
    @property
    def roles(self) -> Sequence[str]: ...
    @property
    def metrics(self) -> Sequence[str]: ...
    @property
    def names(self) -> Mapping[str, str]: ...
    @property
    def models(self) -> Mapping[str, Figures]: ...
    @property
    def differences(self) -> Mapping[str, Mapping[str, Difference]]: ...
    @property
    def slices(self) -> Mapping[str, Slice]: ...
    @property
    def aspects(self) -> Mapping[str, Slice]: ...
    @property
    def verdicts(self) -> Mapping[str, Verdict]: ...
    @property
    def reasons(self) -> Mapping[str, str]: ...
    @property
    def conclusion(self) -> Conclusion | None: ...
    @property
    def notes(self) -> Sequence[str]: ...
    def label(self, role: str) -> str: ...


def comparison_table(comparison: TableSource) -> Table:
    """Make the table of each retriever's metrics, the best of a column in bold, and its difference to the baseline."""
    # `Text` shows names from data unchanged; a plain string would be parsed as markup. The names are above the table,
    # because in a column they would wrap at 80 columns.
    names = [comparison.label(role) for role in comparison.roles if comparison.names.get(role, role) != role]
    table = _empty_table(
        title=Text("\n".join([comparison.subject, *names, ""]), overflow="fold"), title_justify="left", title_style=""
    )
    table.add_column("model", vertical="bottom", overflow="fold")
    for metric in comparison.metrics:
        # Headers have two lines, so that six metrics fit into 80 columns.
        table.add_column(metric.replace("_rate", "").replace("@", "\n@"), justify="right", no_wrap=True)
    table.add_column(f"{HEADLINE} difference\n[95 % interval]", no_wrap=True)
    best = {metric: best_score(comparison.models, metric) for metric in comparison.metrics}
    for role in comparison.roles:
        scores = {metric: f"{comparison.models[role][metric]:.3f}" for metric in comparison.metrics}
        difference = comparison.differences.get(role, {}).get(HEADLINE)
        table.add_row(
            Text(role.replace(HYBRID_PREFIX, f"{HYBRID_PREFIX}\n")),
            *(Text(score, "bold" if score == best[metric] else "") for metric, score in scores.items()),
            Text(str(difference)) if difference else "",
        )
    return table


def print_comparison(comparison: TableSource, console: Console) -> None:
    """Print the table, the conclusion, the verdict on each candidate, the slices, and the notes."""
    console.print(comparison_table(comparison))
    console.print()
    if comparison.conclusion is not None:
        print_conclusion(comparison.conclusion, console)
        console.print()
    for role, verdict in comparison.verdicts.items():
        candidate = f"{role}: " if len(comparison.verdicts) > 1 else ""
        console.print(Text.assemble(candidate, (verdict, COLOURS[verdict]), f": {comparison.reasons[role]}"))
    for slices in (comparison.slices, comparison.aspects):
        if any(part.queries for part in slices.values()):
            console.print()
            console.print(_slice_table(slices))
    if comparison.notes:
        console.print()
    for note in comparison.notes:
        console.print(Text(f"Note: {note}"))


def print_conclusion(conclusion: Conclusion, console: Console) -> None:
    """Print what was decided and why, what each step up to it costs, and what to do next."""
    console.print(Text.assemble((conclusion.decision, "bold"), f": {conclusion.reason}."))
    for role, cost in conclusion.costs.items():
        console.print(Text(f"  cost of {role}: {cost}"))
    for step in conclusion.next_steps:
        console.print(Text(f"  next: {step}"))


def comparison_text(comparison: TableSource) -> str:
    """Return what `print_comparison` prints, as plain text."""
    text = io.StringIO()
    # With the default of force_jupyter, a notebook would display the table instead of writing it into the text.
    print_comparison(comparison, Console(file=text, width=WIDTH, color_system=None, force_jupyter=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def comparison_html(comparison: TableSource) -> str:
    """Return what `print_comparison` prints as an HTML fragment, for notebooks."""
    console = Console(file=io.StringIO(), width=WIDTH, record=True, force_jupyter=False)
    print_comparison(comparison, console)
    # rich escapes the text. Without a theme, the text has the colours of the notebook.
    return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.3">{code}</pre>')


def best_score(models: Mapping[str, Figures], metric: str) -> str:
    """Return the best value of a metric as it is displayed. Models with the same displayed value share it."""
    return f"{max(figures[metric] for figures in models.values()):.3f}"


def _empty_table(**options: Any) -> Table:
    """Make a table in the common style, with gaps narrow enough for 80 columns."""
    return Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False, **options)


def _slice_table(slices: Mapping[str, Slice]) -> Table:
    """Make the table of the headline metric on slices of the questions."""
    table = _empty_table()
    table.add_column(f"{HEADLINE} on", overflow="fold")
    for name in ("questions", "baseline", "candidate"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference\n[95 % interval]", no_wrap=True)
    for name, part in slices.items():
        title = SLICE_TITLES.get(name, name)
        for role, difference in part.differences.items():
            table.add_row(
                Text(f"{title} ({role})" if len(part.differences) > 1 else title),
                f"{part.queries:,}",
                f"{part.models[BASELINE][HEADLINE]:.3f}",
                f"{part.models[role][HEADLINE]:.3f}",
                Text(str(difference)),
            )
    return table
