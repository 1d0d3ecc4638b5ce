"""`rag-ft check` and `compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import Server, approve_vectors, candidate_of, cut_documents, named_fields, request_policy
from rag_ft.cli.options import (
    BaseModel,
    ChunkOverlap,
    ChunkSize,
    Dataset,
    Device,
    EmbedUrl,
    Fields,
    MaxCost,
    Quiet,
    RequireImprovement,
    Seed,
)
from rag_ft.cli.results import exit_by_verdict, show_comparison
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.evaluation.comparison import Comparison


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
    from rag_ft.dataset.formats.load import is_dataset, load_dataset
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
    baseline: Annotated[
        str, typer.Option(help="A model folder, a hub name, 'local', openai:NAME, bm25, or hybrid:MODEL.")
    ],
    candidate: Annotated[list[str], typer.Option(help="The same; may be given several times.")],
    split: Annotated[str, typer.Option(help="Whose questions are asked.")] = "test",
    earlier: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="What the baseline was tuned on: asked too, and told apart."),
    ] = None,
    field: Fields = None,
    max_length: Annotated[
        int | None,
        typer.Option(metavar="N", min=8, help="Tokens read of a passage on every side; else the longest candidate's."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report as Markdown, for a pull request.")] = None,
    single: Annotated[
        Path | None,
        typer.Option("--questions", help="Write the result of every question: .csv, .tsv, .parquet or .jsonl."),
    ] = None,
    losses: Annotated[
        Path | None,
        typer.Option(
            help="Write the worst losses as training pairs (.jsonl), or a dataset for the next round (folder)."
        ),
    ] = None,
    embed_url: EmbedUrl = None,
    max_cost: MaxCost = 5.0,
    require_improvement: RequireImprovement = False,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Hit rate, MRR and nDCG of several models on the same held-out questions, with a verdict on each."""
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.merging import REPLAY_ALL, merge_datasets
    from rag_ft.dataset.splitting import hold_out_dev
    from rag_ft.evaluation.compare import compare as compare_models
    from rag_ft.evaluation.runs.candidates import reach_of
    from rag_ft.files import write_text
    from rag_ft.report.html import to_markdown, write_report
    from rag_ft.report.query_table import write_questions

    for asked in (dataset, earlier):
        check_outputs(asked, single, losses, json, html, markdown)
    questions = load_dataset(dataset, split, fields=named_fields(field))
    questions.require(split)
    if earlier is not None:
        before_it = load_dataset(earlier, split, fields=named_fields(field))
        before_it.require(split)
        if split == "test":  # each brings its own dev, as in training, which the mix with BM25 is learned on
            before_it, questions = hold_out_dev(before_it, seed=seed), hold_out_dev(questions, seed=seed)
        questions = merge_datasets(before_it, questions, REPLAY_ALL)
    server = Server(embed_url, request_policy(max_cost))
    candidates = [candidate_of(name, device, max_length, server=server) for name in candidate]
    reach = max((reach_of(model) for model in candidates), default=0)
    before = candidate_of(baseline, device, max_length, reach, server)
    approve_vectors([before, *candidates], questions, {split, "dev"})
    comparison = compare_models(
        questions, before, candidates, split=split, name=dataset.name, seed=seed, show_progress=show_progress
    )
    show_comparison(comparison)
    if json is not None:
        comparison.save(json)
    record = record_of(candidate[0])
    told = [
        "compare",
        str(dataset),
        "--baseline",
        baseline,
        *(part for name in candidate for part in ("--candidate", name)),
    ]
    told += ["--earlier", str(earlier)] if earlier else []
    told += ["--split", split, "--seed", str(seed), *(["--max-length", str(max_length)] if max_length else [])]
    command = shlex.join(["rag-ft", *told])
    if html is not None:
        write_report(comparison, html, questions, record, command=command)
    if markdown is not None:
        write_text(markdown, to_markdown(comparison, questions, record, command=command))
    if single is not None:
        write_questions(comparison, questions, single)
    if losses is not None:
        export_regressions(comparison, questions, losses, dataset, seed)
    exit_by_verdict(comparison, require_improvement)


def check_outputs(dataset: Path | None, single: Path | None, losses: Path | None, *others: Path | None) -> None:
    """Refuse what cannot be written before anything is computed."""
    from rag_ft.evaluation.next_round import check_target
    from rag_ft.report.query_table import check_suffix

    for file in (single, *others):
        if file is not None and file.is_dir():
            raise InputError(f"{file} is a folder: give a file to write")
    if single is not None:
        check_suffix(single)
    if losses is not None:
        check_target(losses, dataset)


def record_of(candidate: str) -> dict[str, Any]:
    """What the folder of a tuned model says of its training; nothing for any other candidate."""
    from rag_ft.embedding.contract import read_model_record

    folder = Path(candidate.removeprefix("hybrid:"))
    return read_model_record(folder) if folder.is_dir() else {}


def export_regressions(comparison: Comparison, questions: QADataset, target: Path, dataset: Path, seed: int) -> None:
    """Write the worst losses, and say what may still be tested on."""
    from rag_ft.evaluation.next_round import prepare_next_round, write_regressions
    from rag_ft.evaluation.verdict import ENOUGH_QUESTIONS

    found = prepare_next_round(comparison, questions, seed=seed)
    if not found.losses:
        out.print("no question of the half of the documents that was looked at was lost: nothing is exported")
        return
    write_regressions(found, target, dataset)
    out.print(f"{found}\n{escape(str(target))}", highlight=False)
    if target.suffix:
        out.print(
            "[yellow]these questions are no longer held out: test the model that is trained on them on the dataset of "
            "the next round (--losses FOLDER writes it), and not on this one[/]"
        )
    elif found.left < ENOUGH_QUESTIONS:
        out.print(f"[yellow]{found.left} questions are too few for a verdict: add some before the next round[/]")
