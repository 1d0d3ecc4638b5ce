"""`rag-ft check`."""

from __future__ import annotations

from typing import Any

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import cut_documents, named_fields, real_questions
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL


def check(
    source: options.DocumentsOrDataset,
    base_model: options.BaseModel = DEFAULT_BASE_MODEL,
    questions: options.Questions = None,
    split: options.CheckSplit = None,
    json: options.Json = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
    chunk_size: options.ChunkSize = 256,
    chunk_overlap: options.ChunkOverlap = 0,
) -> None:
    """Measure the base model, BM25 and both combined, to find out whether fine-tuning is worth it."""
    show_progress = begin(quiet)
    from rag_ft.checkup import check as run_check
    from rag_ft.dataset.formats.load import is_dataset, load_dataset
    from rag_ft.files import write_json

    content: Any = (
        load_dataset(source, split or "test", fields=named_fields(field))
        if is_dataset(source) or source.is_file()
        else cut_documents(source, chunk_size, chunk_overlap)
    )
    checkup = run_check(
        content, base_model, questions=real_questions(questions, field), split=split, device=device, seed=seed,
        show_progress=show_progress,
    )  # fmt: skip
    say(checkup)
    if json is not None:
        write_json(json, checkup.to_dict())
