"""`rag-ft demo` and `rag-ft run`."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from rag_ft.cli import options
from rag_ft.cli.console import begin, out, say
from rag_ft.cli.inputs import approval, cut_documents, real_questions, recipe_settings
from rag_ft.cli.results import exit_by_verdict, show_comparison
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL


def demo(output: options.RunFolder = Path("runs/acme"), seed: options.Seed = 0, quiet: options.Quiet = False) -> None:
    """Run the whole pipeline on the policies of a fictional company, without network or API key."""
    from rag_ft.demo import acme_folder

    folder = acme_folder()
    questions = folder / "questions.jsonl"
    run(folder / "documents", output, base_model="local", questions=questions, seed=seed, quiet=quiet)


def run(
    documents: options.Documents,
    output: options.RunFolder,
    base_model: options.BaseModel = DEFAULT_BASE_MODEL,
    llm: options.Llm = "none",
    questions: options.Questions = None,
    unseen_documents: options.UnseenDocuments = 0.2,
    max_minutes: options.MaxMinutes = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
    chunk_size: options.ChunkSize = 256,
    chunk_overlap: options.ChunkOverlap = 0,
    max_passages: options.MaxPassages = None,
    llm_url: options.LlmUrl = None,
    max_cost: options.MaxCost = 5.0,
    query_prefix: options.QueryPrefix = None,
    passage_prefix: options.PassagePrefix = None,
    max_length: options.MaxLength = None,
    max_pairs: options.MaxPairs = None,
    set_: options.Settings = None,
    select: options.Select = "safe",
    chroma: options.RunChroma = None,
    collection: options.RunCollection = "passages",
    require_improvement: options.RequireImprovement = False,
) -> None:
    """Run the whole pipeline on a folder of documents. Finished stages are skipped."""
    show_progress = begin(quiet)
    from rag_ft.cli.train_adapter import show_decision
    from rag_ft.embedding.training_summary import TrainingSummary
    from rag_ft.generation.question_options import QuestionOptions
    from rag_ft.generation.resolve_llm import resolve_llm
    from rag_ft.pipeline import fine_tune

    nodes = cut_documents(documents, chunk_size, chunk_overlap)
    if not quiet:
        out.print(f"[bold]{escape(str(documents))}[/]: {len(nodes)} passages")
    model = resolve_llm(llm, llm_url)
    result = fine_tune(
        nodes, model, use_llm=model is not None, questions=real_questions(questions, field),
        unseen_documents=unseen_documents, base_model=base_model, output_dir=output, query_prefix=query_prefix,
        passage_prefix=passage_prefix, max_length=max_length, max_pairs=max_pairs, max_minutes=max_minutes,
        settings=recipe_settings(set_), chroma=chroma, collection=collection, seed=seed, device=device,
        show_progress=show_progress, select=select,
        question_options=QuestionOptions(max_passages=max_passages, approve=approval(max_cost)),
    )  # fmt: skip
    show_decision(TrainingSummary.of(result.candidate.record))
    say("")
    show_comparison(result.comparison)
    say(f"\nreport  {output / 'report.html'}\nmodel   {output / 'model'}")
    exit_by_verdict(result.comparison, require_improvement)
