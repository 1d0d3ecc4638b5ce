"""`rag-ft check` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import cut_documents, embedding_of, named_fields
from rag_ft.cli.options import (
    BaseModel,
    ChunkOverlap,
    ChunkSize,
    Dataset,
    Device,
    Fields,
    Quiet,
    RequireImprovement,
    Seed,
)
from rag_ft.cli.results import exit_by_verdict, show_comparison
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL


@app.command()
def check(
    source: Annotated[Path, typer.Argument(help="A folder of documents, or a dataset.")],
    base_model: BaseModel = DEFAULT_BASE_MODEL,
    split: Annotated[str | None, typer.Option(help="Whose questions are asked; test where there is one.")] = None,
    field: Fields = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    chunk_size: ChunkSize = 256,
    chunk_overlap: ChunkOverlap = 0,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Should I fine-tune at all: the base model, BM25 and both together, before any training."""
    show_progress = begin(quiet)
    from rag_ft.checkup import check as check_up
    from rag_ft.dataset.formats.reading import is_dataset, load_dataset
    from rag_ft.files import write_json

    asked: Any = (
        load_dataset(source, split or "test", fields=named_fields(field))
        if is_dataset(source) or source.is_file()
        else cut_documents(source, chunk_size, chunk_overlap)
    )
    found = check_up(asked, base_model, split=split, device=device, seed=seed, show_progress=show_progress)
    out.print(escape(str(found)), highlight=False, soft_wrap=True)
    if json is not None:
        write_json(json, found.to_dict())


@app.command()
def compare(
    dataset: Dataset,
    baseline: Annotated[str, typer.Option(help="A model folder, a hub name, 'local', or openai:NAME.")],
    candidate: Annotated[list[str], typer.Option(help="The same; may be given several times.")],
    split: Annotated[str, typer.Option(help="Whose questions are asked.")] = "test",
    field: Fields = None,
    max_length: Annotated[
        int | None,
        typer.Option(metavar="N", min=8, help="Tokens read of a passage on every side; else the longest candidate's."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    require_improvement: RequireImprovement = False,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Hit rate, MRR and nDCG of several models on the same held-out questions, with a verdict on each."""
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.evaluation.comparing import compare as compare_models
    from rag_ft.evaluation.report import write_report

    questions = load_dataset(dataset, split, fields=named_fields(field))
    questions.require(split)
    candidates = [embedding_of(name, device, max_length) for name in candidate]
    reach = max((getattr(model, "max_length", None) or 0 for model in candidates), default=0)
    before = embedding_of(baseline, device, max_length, at_least=reach)
    comparison = compare_models(
        questions, before, candidates, split=split, name=dataset.name, seed=seed, show_progress=show_progress
    )
    show_comparison(comparison)
    if json is not None:
        comparison.save(json)
    if html is not None:
        write_report(comparison, html, questions)
    exit_by_verdict(comparison, require_improvement)
