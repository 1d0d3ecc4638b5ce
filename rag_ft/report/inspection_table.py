"""Print an inspection on the terminal: counts, lengths, sources, overlap, samples and warnings."""

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
MAX_PASSAGE_CHARACTERS = 200

UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of characters that control a terminal or reverse the writing direction."""

NO_TAG = re.compile(r"\\\[(?![a-z#/@][^[]*?])")
"""A backslash and a bracket that opens no tag of Rich."""


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print an inspection, within 80 columns."""
    console.print(_counts(inspection), highlight=False)
    for table in (_sources(inspection), _lengths(inspection), _overlap(inspection)):
        if table.row_count:
            console.print()
            console.print(table)
    source = ""
    for sample in inspection.samples:
        if sample.source != source:
            source = sample.source
            console.print(f"\n[bold]{terminal_text(source)}[/]", highlight=False)
        overlap = "" if sample.overlap is None else f", overlap {sample.overlap:.2f}"
        console.print(Padding(terminal_text(sample.question), (0, 0, 0, 2)), highlight=False)
        about = f"{terminal_text(sample.split)}, {terminal_text(sample.document)}{overlap}"
        passage = terminal_text(sample.passage, MAX_PASSAGE_CHARACTERS)
        console.print(Padding(f"[dim]{about}: {passage}[/]", (0, 0, 0, 4)), highlight=False)
    if inspection.warnings:
        warnings = Table.grid(padding=(0, 1))
        for warning in inspection.warnings:
            warnings.add_row("!", terminal_text(warning), style="yellow")
        console.print()
        console.print(warnings)


def terminal_text(text: str, length: int | None = None) -> str:
    """Return a text from a document on one line, without anything that a terminal or Rich would interpret.

    Args:
        text: any text.
        length: maximum number of characters; all if None.

    Example:
        >>> from rag_ft.report.inspection_table import terminal_text
        >>> terminal_text("[bold]\\x1b[2J two\\nlines")
        '\\\\[bold][2J two lines'
    """
    plain = "".join(char for char in " ".join(text.split()) if unicodedata.category(char) not in UNSAFE_CATEGORIES)
    plain = plain if length is None or len(plain) <= length else plain[: length - 1].rstrip() + "…"
    # Rich doubles a backslash at the end in case markup follows, and shows both if none does. It also removes a
    # backslash before a bracket that opens no tag, which `escape` leaves alone.
    return NO_TAG.sub(r"\\\\[", escape(plain + " " if plain.endswith("\\") else plain))


def sparkline(counts: list[int]) -> str:
    """Return a bar for each count, with a height relative to the largest.

    Example:
        >>> from rag_ft.report.inspection_table import sparkline
        >>> sparkline([0, 1, 5, 10])
        ' ▁▄█'
    """
    highest = max(counts, default=0) or 1
    return "".join(BARS[-(-count * (len(BARS) - 1) // highest)] for count in counts)


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
    if inspection.overlapping or inspection.contained:
        lines.append(
            f"{inspection.overlapping:.0%} of their words repeat the passage before; {inspection.contained:.0%} of the "
            "passages are a part of a larger one"
        )
    splits = ", ".join(f"{terminal_text(split)} {count:,}" for split, count in inspection.questions.items()) or "none"
    lines.append(f"[bold]{sum(inspection.questions.values()):,} questions[/]: {splits}")
    if inspection.seen or inspection.unseen:
        lines.append(
            f"of the test questions, {inspection.seen:,} on seen documents, {inspection.unseen:,} on unseen ones"
        )
    for count, name in ((inspection.negatives, "negatives"), (inspection.scored_pairs, "scored pairs")):
        if count:
            lines.append(f"{count:,} {name}")
    return "\n".join(lines)


def _sources(inspection: Inspection) -> Table:
    splits = list(inspection.sources)
    table = _table("questions by source", *map(terminal_text, splits))
    for source in dict.fromkeys(source for counts in inspection.sources.values() for source in counts):
        table.add_row(terminal_text(source), *(f"{inspection.sources[split].get(source, 0):,}" for split in splits))
    return table


def _lengths(inspection: Inspection) -> Table:
    table = _table("length", "minimum", "10 %", "median", "90 %", "maximum")
    for name, lengths in inspection.lengths.items():
        values = (lengths.minimum, lengths.p10, lengths.median, lengths.p90, lengths.maximum)
        table.add_row(name, *(f"{value:,.0f}" for value in values))
    return table


def _overlap(inspection: Inspection) -> Table:
    table = _table("question's words in its passage", "10 %", "median", "90 %", "0 … 1")
    for source, overlap in inspection.overlap.items():
        values = (overlap.p10, overlap.median, overlap.p90)
        table.add_row(
            terminal_text(source), *(f"{value:.2f}" for value in values), sparkline(inspection.histograms[source])
        )
    return table
