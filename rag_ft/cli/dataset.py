"""`rag-ft generate`, `inspect` and `review`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import approval, embedding_of, named_fields, real_questions, source_nodes
from rag_ft.cli.options import (
    BaseModel,
    ChunkOverlap,
    ChunkSize,
    Fields,
    Llm,
    LlmUrl,
    MaxCost,
    MaxPassages,
    NewDocuments,
    Questions,
    Quiet,
    Seed,
)
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.errors import InputError


class RoundTripBy(StrEnum):
    """Which retriever a generated question must pass."""

    BM25 = "bm25"
    DENSE = "dense"
    BOTH = "both"
    EITHER = "either"
    NONE = "none"


class Format(StrEnum):
    """How a dataset is written."""

    BEIR = "beir"
    LLAMA_INDEX = "llama-index"


@app.command()
def generate(
    source: Annotated[str, typer.Argument(help="A folder of documents, a dataset, or chroma:PATH_OR_URL:COLLECTION.")],
    output: Annotated[Path, typer.Option(help="The dataset folder (or file, with --format llama-index).")],
    llm: Llm = "none",
    llm_url: LlmUrl = None,
    questions: Questions = None,
    field: Fields = None,
    from_feedback: Annotated[
        Path | None,
        typer.Option(
            metavar="VOTES",
            help="What people picked (rag-ft ab, ABRetriever): it trains, and tests only without --questions.",
        ),
    ] = None,
    questions_per_passage: Annotated[int, typer.Option(metavar="N", min=1, help="Asked of the LLM, in one call.")] = 2,
    style: Annotated[
        list[str] | None,
        typer.Option(help="question, keywords, situation, reworded, or words of your own; may be given several times."),
    ] = None,
    answers: Annotated[bool, typer.Option(help="Ask for an answer and its evidence with each question.")] = False,
    prompt: Annotated[
        Path | None, typer.Option(help="A file with a prompt: {passage}, {count}, {styles}, {language}.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="An LLM that may drop questions, named as --llm is.")] = None,
    judge_url: Annotated[str | None, typer.Option(help="Address of the judge's server, as --llm-url.")] = None,
    round_trip: Annotated[
        RoundTripBy, typer.Option(help="Who must find a question's passage for the question to stay.")
    ] = RoundTripBy.BM25,
    round_trip_depth: Annotated[int, typer.Option(metavar="N", min=1, help="Among so many first passages.")] = 20,
    base_model: BaseModel = DEFAULT_BASE_MODEL,
    new_documents: NewDocuments = 0.2,
    max_passages: MaxPassages = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="LLM calls in flight.")] = 8,
    requests_per_minute: Annotated[
        float | None, typer.Option(metavar="N", min=1, help="Never send more to the LLM.")
    ] = None,
    max_cost: MaxCost = 5.0,
    batch: Annotated[bool, typer.Option("--batch", help="Go through the OpenAI Batch API: half the price.")] = False,
    chunk_size: ChunkSize = 256,
    chunk_overlap: ChunkOverlap = 0,
    format: Annotated[
        Format, typer.Option(help="beir, or llama-index (EmbeddingQAFinetuneDataset JSON).")
    ] = Format.BEIR,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Documents -> dataset: questions, filtered, and split honestly."""
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.beir import check_output, write_beir
    from rag_ft.dataset.formats.llama_index_json import write_llama_index_json
    from rag_ft.dataset.review import Review
    from rag_ft.generation.filters import Filters
    from rag_ft.generation.generate import generate_qa_dataset
    from rag_ft.generation.prompts import STYLES, read_prompt
    from rag_ft.generation.resolve_llm import resolve_llm

    # Before an LLM is paid for anything.
    if format is Format.BEIR:
        check_output(output)
    elif output.is_dir():
        raise InputError(f"{output} is a folder: --format llama-index writes a file, choose another --output")
    needs_llm = {"--style": style, "--answers": answers, "--prompt": prompt, "--batch": batch, "--llm-url": llm_url}
    if llm == "none" and (named := [option for option, value in needs_llm.items() if value]):
        raise InputError(f"{named[0]} needs an LLM: give --llm PROVIDER:MODEL, or leave it out")
    if field and questions is None:
        raise InputError(f"--field {field[0]!r} needs --questions: it says what the columns of that file hold")
    template = read_prompt(prompt) if prompt is not None else None
    model = resolve_llm(llm, llm_url)
    nodes = list(source_nodes(source, chunk_size, chunk_overlap))
    dense = round_trip not in (RoundTripBy.BM25, RoundTripBy.NONE)
    made = generate_qa_dataset(
        nodes,
        model,
        use_llm=model is not None,
        questions=real_questions(questions, field),
        feedback=from_feedback,
        filters=Filters(
            round_trip=round_trip.value,
            depth=round_trip_depth,
            embed_model=embedding_of(base_model, None, None) if dense else None,
        ),
        new_documents=new_documents,
        questions_per_passage=questions_per_passage,
        styles=style or tuple(STYLES),
        answers=answers,
        prompt=template,
        judge=resolve_llm(judge, judge_url, "--judge") if judge is not None else None,
        max_passages=max_passages,
        journal=Path(f"{output.resolve()}.journal.jsonl") if model is not None or judge is not None else None,
        workers=workers,
        requests_per_minute=requests_per_minute,
        approve=approval(max_cost),
        batch=batch,
        seed=seed,
        show_progress=show_progress,
    )
    if format is Format.LLAMA_INDEX:
        dataset, dropped = made.dataset, made.dropped
        # The form knows no splits: each has a file of its own.
        for split in dataset.splits:
            beside = output if split == "train" else output.with_suffix(f".{split}{output.suffix}")
            write_llama_index_json(dataset, beside, split)
            out.print(f"{escape(str(beside))}: {split}", highlight=False)
    else:
        # What a person has rejected stays rejected, also when questions are generated again.
        dataset, rejected = Review.load(output).apply(made.dataset)
        dropped = made.dropped + rejected
        write_beir(dataset, output, dropped)
    if dropped and not quiet:
        out.print(_dropped_table(dropped))
    out.print(f"{escape(str(output))}: {escape(repr(dataset))}, {len(dropped)} dropped", highlight=False)


def _dropped_table(dropped: Sequence[dict[str, str]]) -> Table:
    """How many questions were dropped for which reason, of which style."""
    from rag_ft.generation.filters import summary

    table = Table(title="dropped questions", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("reason")
    table.add_column("questions", justify="right")
    table.add_column("styles", style="dim")
    for reason, count in summary(dropped).most_common():
        styles = Counter(row["style"] for row in dropped if row["reason"].startswith(reason) and row["style"])
        named = ", ".join(f"{number} {name}" for name, number in styles.most_common())
        table.add_row(escape(reason), f"{count:,}", escape(named))
    return table


@app.command()
def inspect(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a file of question-passage pairs.")],
    split: Annotated[str | None, typer.Option(help="Whose questions are shown; all when not given.")] = None,
    field: Fields = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    samples: Annotated[int, typer.Option(metavar="N", min=0, help="Questions of each style to show.")] = 3,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Look before you train: counts, lengths, styles, overlap, samples, and what is wrong with a dataset."""
    begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.inspection import inspect_dataset
    from rag_ft.files import write_json
    from rag_ft.report.inspection_table import print_inspection

    found = inspect_dataset(
        load_dataset(dataset, split or "train", fields=named_fields(field)), split, samples=samples, seed=seed
    )
    print_inspection(found, out)
    if json is not None:
        write_json(json, found.to_dict())


@app.command()
def review(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.")],
    export_file: Annotated[
        Path | None, typer.Option("--export", help="Write the questions here, for a person: .csv, .tsv or .jsonl.")
    ] = None,
    import_file: Annotated[
        Path | None, typer.Option("--import", help="Read the file back: 'no' under keep rejects, another text edits.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Questions go out to a person, and come back without the bad ones; what was decided is kept."""
    begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.review import export_questions, review_folder
    from rag_ft.report.inspection_table import shown

    if (export_file is None) == (import_file is None):
        raise InputError("give either --export FILE or --import FILE")
    if export_file is not None:
        if export_file.exists():
            raise InputError(f"{export_file} exists, and may hold a review: import it, remove it, or export elsewhere")
        questions = load_dataset(dataset)
        export_questions(questions, export_file)
        out.print(f"{escape(str(export_file))}: {sum(map(len, questions.qrels.values())):,} questions", highlight=False)
    if import_file is not None:
        decided = review_folder(dataset, import_file)
        for key in decided.rejected if not quiet else ():
            out.print(f"[red]rejected[/]  {shown(key[0])}", highlight=False)
        for (before, _), after in decided.edited.items() if not quiet else ():
            out.print(f"[yellow]edited[/]    {shown(before)}\n       -> {shown(after)}", highlight=False)
        out.print(
            f"{escape(str(dataset))}: {len(decided.rejected)} rejected, {len(decided.edited)} edited",
            highlight=False,
            soft_wrap=True,
        )
