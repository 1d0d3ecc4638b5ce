"""An inspection for the terminal: counts, lengths, styles, overlap, samples and warnings."""

from __future__ import annotations

import re
import unicodedata

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from rag_ft.dataset.inspection import Inspection

BARS = " ▁▂▃▄▅▆▇█"
SHOWN = 200
"""Characters of a sample's passage."""

UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Kinds of characters that steer a terminal or turn the direction of writing around."""

NO_TAG = re.compile(r"\\\[(?![a-z#/@][^[]*?])")
"""A backslash and a bracket with which no tag of Rich begins."""


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print an inspection; it fits into 80 columns."""
    console.print(_counts(inspection), highlight=False)
    for table in (_styles(inspection), _lengths(inspection), _overlap(inspection)):
        if table.row_count:
            console.print()
            console.print(table)
    style = ""
    for sample in inspection.samples:
        if sample.source != style:
            style = sample.source
            console.print(f"\n[bold]{shown(style)}[/]", highlight=False)
        known = "" if sample.overlap is None else f", overlap {sample.overlap:.2f}"
        console.print(Padding(shown(sample.question), (0, 0, 0, 2)), highlight=False)
        told = f"{shown(sample.split)}, {shown(sample.document)}{known}: {shown(sample.passage, SHOWN)}"
        console.print(Padding(f"[dim]{told}[/]", (0, 0, 0, 4)), highlight=False)
    if inspection.warnings:
        warnings = Table.grid(padding=(0, 1))
        for warning in inspection.warnings:
            warnings.add_row("!", shown(warning), style="yellow")
        console.print()
        console.print(warnings)


def shown(text: str, length: int | None = None) -> str:
    """A text from a document in one line, with nothing in it that a terminal or Rich would obey.

    Example:
        >>> from rag_ft.report.inspection_table import shown
        >>> shown("[bold]\\x1b[2J two\\nlines")
        '\\\\[bold][2J two lines'
    """
    plain = "".join(sign for sign in " ".join(text.split()) if unicodedata.category(sign) not in UNSAFE)
    plain = plain if length is None or len(plain) <= length else plain[: length - 1].rstrip() + "…"
    # Rich doubles a backslash at the end, for markup that might follow, and shows both where none does; and it
    # takes one away before a bracket that opens no tag, which it does not escape.
    return NO_TAG.sub(r"\\\\[", escape(plain + " " if plain.endswith("\\") else plain))


def bars(counts: list[int]) -> str:
    """One character for each count, as high as its share of the largest.

    Example:
        >>> from rag_ft.report.inspection_table import bars
        >>> bars([0, 1, 5, 10])
        ' ▁▄█'
    """
    top = max(counts, default=0) or 1
    return "".join(BARS[-(-count * (len(BARS) - 1) // top)] for count in counts)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _counts(inspection: Inspection) -> str:
    lines = [f"[bold]{inspection.passages:,} passages[/] of {inspection.documents:,} documents"]
    if inspection.repeated:
        lines[0] += f"; {inspection.repeated:,} groups of them nearly repeat each other"
    splits = ", ".join(f"{shown(split)} {count:,}" for split, count in inspection.questions.items()) or "none"
    lines.append(f"[bold]{sum(inspection.questions.values()):,} questions[/]: {splits}")
    if inspection.seen or inspection.unseen:
        lines.append(
            f"of the test, {inspection.seen:,} on documents that training sees, {inspection.unseen:,} on new ones"
        )
    for count, thing in ((inspection.negatives, "negatives"), (inspection.scored_pairs, "scored pairs")):
        if count:
            lines.append(f"{count:,} {thing}")
    return "\n".join(lines)


def _styles(inspection: Inspection) -> Table:
    splits = list(inspection.sources)
    table = _table("questions by style", *map(shown, splits))
    for style in dict.fromkeys(style for counts in inspection.sources.values() for style in counts):
        table.add_row(shown(style), *(f"{inspection.sources[split].get(style, 0):,}" for split in splits))
    return table


def _lengths(inspection: Inspection) -> Table:
    table = _table("length", "least", "10 %", "median", "90 %", "most")
    for name, found in inspection.lengths.items():
        values = (found.minimum, found.p10, found.median, found.p90, found.maximum)
        table.add_row(name, *(f"{value:,.0f}" for value in values))
    return table


def _overlap(inspection: Inspection) -> Table:
    table = _table("question's words in its passage", "10 %", "median", "90 %", "0 … 1")
    for style, found in inspection.overlap.items():
        values = (found.p10, found.median, found.p90)
        table.add_row(shown(style), *(f"{value:.2f}" for value in values), bars(inspection.histograms[style]))
    return table
