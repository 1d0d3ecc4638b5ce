"""`rag-ft review`."""

from __future__ import annotations

from pathlib import Path

from rag_ft.cli import options
from rag_ft.cli.console import begin, out, say
from rag_ft.errors import InputError


def review(
    dataset: options.DatasetFolder,
    export_file: options.ExportFile = None,
    import_file: options.ImportFile = None,
    quiet: options.Quiet = False,
) -> None:
    """Export questions so that a person can reject and edit them, and import the decisions."""
    begin(quiet)
    if (export_file is None) == (import_file is None):
        raise InputError("pass either --export FILE or --import FILE")
    if export_file is not None:
        export_for_review(dataset, export_file)
    if import_file is not None:
        import_review(dataset, import_file, quiet)


def export_for_review(dataset: Path, file: Path) -> None:
    """Write the questions of a dataset to a file for review."""
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.review import export_questions

    if file.exists():
        raise InputError(f"{file} exists, and may hold a review: import it, remove it, or choose another file")
    questions = load_dataset(dataset)
    export_questions(questions, file)
    say(f"{file}: {sum(map(len, questions.qrels.values())):,} questions")


def import_review(dataset: Path, file: Path, quiet: bool) -> None:
    """Apply the decisions of a reviewed file to a dataset."""
    from rag_ft.dataset.review import review_folder
    from rag_ft.report.inspection_table import terminal_text

    decisions = review_folder(dataset, file)
    if not quiet:
        for question, *_ in decisions.rejected:
            out.print(f"[red]rejected[/]  {terminal_text(question)}", highlight=False)
        for (before, *_), after in decisions.edited.items():
            out.print(
                f"[yellow]edited[/]    {terminal_text(before)}\n       -> {terminal_text(after)}", highlight=False
            )
    say(f"{dataset}: {len(decisions.rejected)} rejected, {len(decisions.edited)} edited")
