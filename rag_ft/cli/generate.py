"""`rag-ft generate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from rag_ft.cli import options
from rag_ft.cli.console import begin, out, say
from rag_ft.cli.inputs import ModelOptions, approval, real_questions, source_nodes
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from rag_ft.dataset.dropped import DroppedRow
    from rag_ft.generation.generate import GeneratedDataset


def generate(
    source: options.Source,
    output: options.OutputDataset,
    llm: options.Llm = "none",
    questions: options.Questions = None,
    from_feedback: options.FromFeedback = None,
    unseen_documents: options.UnseenDocuments = 0.2,
    format: options.Format = "beir",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
    chunk_size: options.ChunkSize = 256,
    chunk_overlap: options.ChunkOverlap = 0,
    max_passages: options.MaxPassages = None,
    questions_per_passage: options.QuestionsPerPassage = 2,
    style: options.Style = None,
    answers: options.Answers = False,
    prompt: options.Prompt = None,
    llm_url: options.LlmUrl = None,
    judge_url: options.JudgeUrl = None,
    max_cost: options.MaxCost = 5.0,
    requests_per_minute: options.RequestsPerMinute = None,
    workers: options.Workers = 8,
    batch: options.Batch = False,
    judge: options.Judge = None,
    round_trip: options.RoundTrip = "bm25",
    round_trip_depth: options.RoundTripDepth = 20,
    base_model: options.RoundTripModel = DEFAULT_BASE_MODEL,
) -> None:
    """Generate questions about documents, filter them, and split them into train, dev and test."""
    show_progress = begin(quiet)
    from rag_ft.generation.filters import Filters
    from rag_ft.generation.generate import generate_qa_dataset
    from rag_ft.generation.prompts import STYLES, read_prompt
    from rag_ft.generation.question_options import QuestionOptions
    from rag_ft.generation.resolve_llm import resolve_llm

    check_dataset_output(output, format)
    if llm == "none":
        require_no_llm_options({
            "--style": style, "--answers": answers, "--prompt": prompt, "--batch": batch, "--llm-url": llm_url,
        })  # fmt: skip
    if field and questions is None:
        raise InputError(f"--field {field[0]!r} needs --questions: it names the columns of that file")
    template = read_prompt(prompt) if prompt is not None else None
    model = resolve_llm(llm, llm_url)
    nodes = list(source_nodes(source, chunk_size, chunk_overlap))
    dense = ModelOptions().embedding(base_model) if round_trip not in ("bm25", "none") else None
    generated = generate_qa_dataset(
        nodes, model, use_llm=model is not None, questions=real_questions(questions, field),
        unseen_documents=unseen_documents, seed=seed,
        question_options=QuestionOptions(
            questions_per_passage=questions_per_passage, styles=style or tuple(STYLES), answers=answers,
            prompt=template, max_passages=max_passages, workers=workers, requests_per_minute=requests_per_minute,
            batch=batch, judge=resolve_llm(judge, judge_url, "--judge") if judge is not None else None,
            journal=None if model is None and judge is None else Path(f"{output.resolve()}.journal.jsonl"),
            approve=approval(max_cost), feedback=from_feedback, show_progress=show_progress,
            filters=Filters(round_trip=round_trip, depth=round_trip_depth, embed_model=dense),
        ),
    )  # fmt: skip
    write_generated(generated, output, format, quiet)


def check_dataset_output(output: Path, format: str) -> None:
    """Raise an `InputError` if the output cannot be written, before an LLM costs anything."""
    from rag_ft.dataset.formats.beir import check_output

    if format == "beir":
        check_output(output)
    elif output.is_dir():
        raise InputError(f"{output} is a folder: --format llama-index writes a file, choose another --output")


def require_no_llm_options(options_given: Mapping[str, object]) -> None:
    """Raise an `InputError` if an option was given that needs an LLM."""
    for option, value in options_given.items():
        if value:
            raise InputError(f"{option} needs an LLM: add --llm PROVIDER:MODEL, or omit {option}")


def write_generated(generated: GeneratedDataset, output: Path, format: str, quiet: bool) -> None:
    """Write a dataset, and print its size and the dropped questions."""
    from rag_ft.dataset.formats.beir import write_beir
    from rag_ft.dataset.formats.llama_index_json import write_llama_index_json
    from rag_ft.dataset.review import Review

    dataset, dropped = generated.dataset, generated.dropped
    if format == "llama-index":
        # This format has no splits, so each split is written to its own file.
        for split in dataset.splits:
            file = output if split == "train" else output.with_suffix(f".{split}{output.suffix}")
            write_llama_index_json(dataset, file, split)
            say(f"{file}: {split}")
    else:
        # Questions that a person has rejected stay rejected if they are generated again.
        dataset, rejected = Review.load(output).apply(dataset)
        dropped = dropped + rejected
        write_beir(dataset, output, dropped)
    if dropped and not quiet:
        out.print(dropped_table(dropped))
    say(f"{output}: {dataset!r}, {len(dropped)} dropped")


def dropped_table(dropped: Sequence[DroppedRow]) -> Table:
    """Return a table of the number of dropped questions by reason, with their styles."""
    from rag_ft.generation.filters import count_by_reason

    table = Table(title="dropped questions", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("reason")
    table.add_column("questions", justify="right")
    table.add_column("styles", style="dim")
    for reason, count in count_by_reason(dropped).most_common():
        styles = Counter(row["style"] for row in dropped if row["reason"].startswith(reason) and row["style"])
        style_counts = ", ".join(f"{number} {name}" for name, number in styles.most_common())
        table.add_row(escape(reason), f"{count:,}", escape(style_counts))
    return table
