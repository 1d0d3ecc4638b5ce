"""`rag-ft inspect`."""

from __future__ import annotations

from rag_ft.cli import options
from rag_ft.cli.console import begin, out
from rag_ft.cli.inputs import named_fields


def inspect(
    dataset: options.Dataset,
    split: options.InspectSplit = None,
    samples: options.Samples = 3,
    json: options.Json = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
) -> None:
    """Show the counts, lengths, styles, overlap, samples and problems of a dataset before training."""
    begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.inspection import inspect_dataset
    from rag_ft.files import write_json
    from rag_ft.report.inspection_table import print_inspection

    questions = load_dataset(dataset, split or "train", fields=named_fields(field))
    inspection = inspect_dataset(questions, split, samples=samples, seed=seed)
    print_inspection(inspection, out)
    if json is not None:
        write_json(json, inspection.to_dict())
