"""The command line: one thin function for each command."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from rag_ft.errors import InputError, OutsideError, RagFtError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import TextNode

    from rag_ft.evaluation.comparison import Comparison

DEFAULT_BASE_MODEL = "BAAI/bge-small-en-v1.5"
NOT_SHIPPED = 3
INTERRUPTED = 130
STOPPED = "stopped: what was done is kept, the same command goes on"
FULL = ("No space left on device", "disk is full")

app = typer.Typer(
    name="rag-ft",
    help="Fine-tune the embedding model of a LlamaIndex application, and prove that retrieval got better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console()

BaseModel = Annotated[str, typer.Option(help="A hub name, a model folder, or 'local' (all-MiniLM-L6-v2 from pip).")]
Llm = Annotated[str, typer.Option(help="Who writes questions: 'none', 'local', or PROVIDER:MODEL.")]
LlmUrl = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, for openai-like:MODEL.")]
QueryPrefix = Annotated[str | None, typer.Option(help="Put before a query; the base model's own when not given.")]
PassagePrefix = Annotated[str | None, typer.Option(help="Put before a passage; the base model's own when not given.")]
MaxLength = Annotated[int | None, typer.Option(min=8, help="Tokens read of a passage; chosen by the passages.")]
MaxPairs = Annotated[int | None, typer.Option(min=2, help="Train on so many pairs at most.")]
MaxMinutes = Annotated[float | None, typer.Option(min=0.1, help="Make training fit this time.")]
MaxPassages = Annotated[int | None, typer.Option(min=1, help="Ask the LLM about so many passages at most.")]
Questions = Annotated[
    Path | None, typer.Option(help="JSONL of real questions with their documents; they become the test.")
]
ChunkSize = Annotated[int, typer.Option(min=16, help="Tokens in a passage at most.")]
ChunkOverlap = Annotated[int, typer.Option(min=0, help="Tokens that neighbouring passages share.")]
Device = Annotated[str | None, typer.Option(help="A torch device; the best there is when not given.")]
Seed = Annotated[int, typer.Option(help="Of every draw.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results and errors.")]
RequireImprovement = Annotated[bool, typer.Option(help="Exit with 3 when the verdict is not 'ship'.")]


class Format(StrEnum):
    """How a dataset is written."""

    BEIR = "beir"
    LLAMA_INDEX = "llama-index"


def _begin(quiet: bool) -> bool:
    """Set logging up; whether progress is shown."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False, show_time=False)
    # Some libraries set their own loggers to DEBUG when they are imported.
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith("rag_ft"))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("rag_ft").setLevel(logging.WARNING if quiet else logging.INFO)
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    return not quiet


def _nodes(documents: Path, chunk_size: int, chunk_overlap: int) -> list[TextNode]:
    from rag_ft.dataset.documents import cut_into_nodes, read_documents

    return cut_into_nodes(read_documents(documents), chunk_size, chunk_overlap)


def _real_questions(file: Path | None) -> list[Any]:
    from rag_ft.generation.real_questions import read_questions

    return read_questions(file) if file is not None else []


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
    max_passages: MaxPassages = None,
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
    max_length: MaxLength = None,
    max_pairs: MaxPairs = None,
    max_minutes: MaxMinutes = None,
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
    show_progress = _begin(quiet)
    from rag_ft.generation.llms import resolve_llm
    from rag_ft.pipeline import fine_tune

    nodes = _nodes(documents, chunk_size, chunk_overlap)
    if not quiet:
        out.print(f"[bold]{escape(str(documents))}[/]: {len(nodes)} passages")
    model = resolve_llm(llm, llm_url)
    result = fine_tune(
        nodes,
        model,
        use_llm=model is not None,
        questions=_real_questions(questions),
        base_model=base_model,
        output_dir=output,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_length=max_length,
        max_pairs=max_pairs,
        max_minutes=max_minutes,
        max_passages=max_passages,
        chroma=chroma,
        collection=collection,
        seed=seed,
        device=device,
        show_progress=show_progress,
    )
    _show(result.comparison)
    out.print(
        f"\nreport  {escape(str(output / 'report.html'))}\nmodel   {escape(str(output / 'model'))}", highlight=False
    )
    _exit_by_verdict(result.comparison, require_improvement)


@app.command()
def generate(
    documents: Annotated[Path, typer.Argument(help="A folder of documents.")],
    output: Annotated[Path, typer.Option(help="The dataset folder (or file, with --format llama-index).")],
    llm: Llm = "none",
    llm_url: LlmUrl = None,
    questions: Questions = None,
    questions_per_passage: Annotated[int, typer.Option(min=1, help="Asked of the LLM.")] = 1,
    max_passages: MaxPassages = None,
    workers: Annotated[int, typer.Option(min=1, help="LLM calls in flight.")] = 8,
    chunk_size: ChunkSize = 256,
    chunk_overlap: ChunkOverlap = 0,
    format: Annotated[
        Format, typer.Option(help="beir, or llama-index (EmbeddingQAFinetuneDataset JSON).")
    ] = Format.BEIR,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Documents -> dataset: questions, filtered, and split honestly."""
    show_progress = _begin(quiet)
    from rag_ft.dataset.beir import check_output, write_beir
    from rag_ft.dataset.llama_index_json import write_llama_index_json
    from rag_ft.generation.generation import generate_qa_dataset
    from rag_ft.generation.llms import resolve_llm

    # Before an LLM is paid for anything.
    if format is Format.BEIR:
        check_output(output)
    elif output.is_dir():
        raise InputError(f"{output} is a folder: --format llama-index writes a file, choose another --output")
    nodes = _nodes(documents, chunk_size, chunk_overlap)
    model = resolve_llm(llm, llm_url)
    made = generate_qa_dataset(
        nodes,
        model,
        use_llm=model is not None,
        questions=_real_questions(questions),
        questions_per_passage=questions_per_passage,
        max_passages=max_passages,
        journal=Path(f"{output.resolve()}.journal.jsonl") if model is not None else None,
        workers=workers,
        seed=seed,
        show_progress=show_progress,
    )
    if format is Format.BEIR:
        write_beir(made.dataset, output, made.dropped)
    else:
        write_llama_index_json(made.dataset, output)
    out.print(f"{escape(str(output))}: {escape(repr(made.dataset))}, {len(made.dropped)} dropped", highlight=False)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or an EmbeddingQAFinetuneDataset JSON.")],
    output: Annotated[Path, typer.Option(help="The model folder.")],
    base_model: BaseModel = DEFAULT_BASE_MODEL,
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
    max_length: MaxLength = None,
    max_pairs: MaxPairs = None,
    max_minutes: MaxMinutes = None,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fine-tune on the train split and select on dev; test is never looked at."""
    show_progress = _begin(quiet)
    from rag_ft.dataset.reading import load_dataset
    from rag_ft.training.fine_tuning import train_model

    trained = train_model(
        load_dataset(dataset),
        output,
        base_model,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_length=max_length,
        max_pairs=max_pairs,
        max_minutes=max_minutes,
        seed=seed,
        device=device,
        show_progress=show_progress,
    )
    figures = ", ".join(f"{name} {score:.3f}" for name, score in trained.dev.items())
    if figures:
        out.print(f"dev nDCG@10: {figures}", highlight=False)
    if trained.is_base:
        out.print("[yellow]nothing beat the base model on dev: the model folder holds the base model[/]")
    out.print(f"model   {escape(str(output))}", highlight=False)


@app.command()
def index(
    source: Annotated[Path, typer.Argument(help="A folder of documents, or a dataset.")],
    model: Annotated[str, typer.Option(help="A model folder, a hub name, or 'local'.")],
    chroma: Annotated[str, typer.Option(help="A folder, or http://HOST:PORT.")],
    collection: Annotated[str, typer.Option(help="Name of the collection; the model's fingerprint is added.")],
    chunk_size: ChunkSize = 256,
    chunk_overlap: ChunkOverlap = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Build a Chroma-backed index under a model, beside those of other models."""
    show_progress = _begin(quiet)
    from rag_ft.dataset.reading import is_dataset, load_dataset
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.index.build import build_index
    from rag_ft.index.chroma import check_collection_name, open_chroma
    from rag_ft.index.nodes import nodes_from_texts

    check_collection_name(collection)
    if is_dataset(source):
        dataset = load_dataset(source)
        documents = {key: passage.document for key, passage in dataset.passages.items()}
        nodes = nodes_from_texts(dataset.passage_texts, documents)
    else:
        nodes = _nodes(source, chunk_size, chunk_overlap)
    # A server that is down is found out before a model is loaded; a new folder is made only after that.
    client = open_chroma(chroma) if "://" in chroma or Path(chroma).expanduser().exists() else chroma
    embedding = FineTunedEmbedding.load(model, device=device)
    built = build_index(nodes, embedding, client, collection, show_progress)
    name = built.vector_store.collection_name or built.vector_store._collection.name
    out.print(f"{len(nodes)} passages in {escape(chroma)}, collection {escape(str(name))}", highlight=False)


@app.command()
def compare(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or an EmbeddingQAFinetuneDataset JSON.")],
    baseline: Annotated[str, typer.Option(help="A model folder, a hub name, 'local', or openai:NAME.")],
    candidate: Annotated[list[str], typer.Option(help="The same; may be given several times.")],
    split: Annotated[str, typer.Option(help="Whose questions are asked.")] = "test",
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens read of a passage on every side; else the longest candidate's.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    require_improvement: RequireImprovement = False,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Hit rate, MRR and nDCG of several models on the same held-out questions, with a verdict on each."""
    show_progress = _begin(quiet)
    from rag_ft.dataset.reading import load_dataset
    from rag_ft.evaluation.comparison import compare as compare_models
    from rag_ft.evaluation.report import write_report

    questions = load_dataset(dataset, split)
    questions.require(split)
    candidates = [_embedding(name, device, max_length) for name in candidate]
    reach = max((getattr(model, "max_length", None) or 0 for model in candidates), default=0)
    before = _embedding(baseline, device, max_length, at_least=reach)
    comparison = compare_models(
        questions, before, candidates, split=split, name=dataset.name, seed=seed, show_progress=show_progress
    )
    _show(comparison)
    if json is not None:
        comparison.save(json)
    if html is not None:
        write_report(comparison, html, questions)
    _exit_by_verdict(comparison, require_improvement)


def _embedding(name: str, device: str | None, max_length: int | None, at_least: int = 0) -> BaseEmbedding:
    """The embedding of a name on the command line; one that may read further does so, to be compared fairly."""
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.loading import longest_input
    from rag_ft.errors import require_package

    if name == "bm25":
        raise InputError("bm25 stands in every comparison by itself: give an embedding model")
    if name.startswith("openai:"):
        require_package("llama_index.embeddings.openai", "openai", name)
        from llama_index.embeddings.openai import OpenAIEmbedding

        return OpenAIEmbedding(model=name.removeprefix("openai:"))
    embedding = FineTunedEmbedding.load(name, device=device, max_length=max_length)
    own = embedding.max_length or 0
    reach = min(at_least, longest_input(embedding.sentence_transformer) or own)
    if max_length is None and reach > own:
        logging.getLogger("rag_ft").info(
            "%s reads %d tokens here, as the candidate does (its own: %d)", name, reach, own
        )
        embedding = FineTunedEmbedding.load(name, device=device, max_length=reach)
    return embedding


def _show(comparison: Comparison) -> None:
    from rag_ft.evaluation.table import print_comparison

    print_comparison(comparison, out)


def _exit_by_verdict(comparison: Comparison, require_improvement: bool) -> None:
    if require_improvement and "ship" not in comparison.verdicts.values():
        raise typer.Exit(NOT_SHIPPED)


def main() -> None:
    """Run the command line; an error that a user can mend is one line on stderr."""
    sys.exit(_exit_code(app))


def _exit_code(command: Callable[[], Any]) -> int:
    try:
        command()
    except RagFtError as error:
        return _fail(error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(STOPPED, INTERRUPTED)
    except SystemExit as done:
        if done.code == INTERRUPTED:  # Typer turns Ctrl-C into this, without a word
            return _fail(STOPPED, INTERRUPTED)
        return done.code if isinstance(done.code, int) else 0
    except Exception as error:
        if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or any(sign in str(error) for sign in FULL):
            return _fail(
                "no space left on the disk: free some and run again, what was done is kept", OutsideError.exit_code
            )
        if isinstance(error, PermissionError):
            return _fail(f"{error.filename} cannot be used ({error.strerror})", InputError.exit_code)
        raise
    return 0


def _fail(message: object, code: int) -> int:
    line = " ".join(str(message).split())
    sys.stderr.write(f"rag-ft: {line}\n")
    return code


if __name__ == "__main__":
    main()
