"""`rag-ft demo` and `rag-ft run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import approval, cut_documents, real_questions, recipe_settings
from rag_ft.cli.options import (
    BaseModel,
    ChunkOverlap,
    ChunkSize,
    Device,
    Fields,
    Llm,
    LlmUrl,
    MaxCost,
    MaxLength,
    MaxMinutes,
    MaxPairs,
    MaxPassages,
    NewDocuments,
    PassagePrefix,
    QueryPrefix,
    Questions,
    Quiet,
    RequireImprovement,
    Seed,
    Set,
)
from rag_ft.cli.results import exit_by_verdict, show_comparison
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/acme"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The whole job on the policies of a fictional company: no key, no hub, no network."""
    from rag_ft.demo import acme_folder

    folder = acme_folder()
    run(
        folder / "documents",
        output,
        base_model="local",
        llm="none",
        questions=folder / "questions.jsonl",
        seed=seed,
        quiet=quiet,
    )


@app.command()
def run(
    documents: Annotated[Path, typer.Argument(help="A folder of documents.")],
    output: Annotated[Path, typer.Option(help="The run folder; a run that was stopped there goes on.")],
    base_model: BaseModel = DEFAULT_BASE_MODEL,
    llm: Llm = "none",
    llm_url: LlmUrl = None,
    questions: Questions = None,
    field: Fields = None,
    new_documents: NewDocuments = 0.2,
    max_passages: MaxPassages = None,
    max_cost: MaxCost = 5.0,
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
    max_length: MaxLength = None,
    max_pairs: MaxPairs = None,
    max_minutes: MaxMinutes = None,
    set_: Set = None,
    chunk_size: ChunkSize = 256,
    chunk_overlap: ChunkOverlap = 0,
    chroma: Annotated[str | None, typer.Option(help="A folder or http://HOST:PORT for the index.")] = None,
    collection: Annotated[str, typer.Option(help="Name of the index's collection.")] = "passages",
    require_improvement: RequireImprovement = False,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The whole job on a folder of documents; stages that are done are not done again."""
    show_progress = begin(quiet)
    from rag_ft.generation.question_options import QuestionOptions
    from rag_ft.generation.resolve_llm import resolve_llm
    from rag_ft.pipeline import fine_tune

    nodes = cut_documents(documents, chunk_size, chunk_overlap)
    if not quiet:
        out.print(f"[bold]{escape(str(documents))}[/]: {len(nodes)} passages")
    model = resolve_llm(llm, llm_url)
    result = fine_tune(
        nodes,
        model,
        use_llm=model is not None,
        questions=real_questions(questions, field),
        unseen_documents=new_documents,
        base_model=base_model,
        output_dir=output,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_length=max_length,
        max_pairs=max_pairs,
        max_minutes=max_minutes,
        settings=recipe_settings(set_),
        question_options=QuestionOptions(max_passages=max_passages, approve=approval(max_cost)),
        chroma=chroma,
        collection=collection,
        seed=seed,
        device=device,
        show_progress=show_progress,
    )
    show_comparison(result.comparison)
    out.print(
        f"\nreport  {escape(str(output / 'report.html'))}\nmodel   {escape(str(output / 'model'))}", highlight=False
    )
    exit_by_verdict(result.comparison, require_improvement)
