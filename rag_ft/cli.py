"""The command line: one thin function for each command."""

from __future__ import annotations

import errno
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from rag_ft.errors import InputError, OutsideError, RagFtError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode, TextNode

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

Dataset = Annotated[
    Path, typer.Argument(help="A dataset folder, LlamaIndex's JSON, or a table of pairs (CSV, JSONL, Parquet).")
]
BaseModel = Annotated[str, typer.Option(help="A hub name, a model folder, or 'local' (all-MiniLM-L6-v2 from pip).")]
Llm = Annotated[str, typer.Option(help="Who writes questions: 'none', 'local', or PROVIDER:MODEL.")]
LlmUrl = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, for openai-like:MODEL.")]
QueryPrefix = Annotated[str | None, typer.Option(help="Put before a query; the base model's own when not given.")]
PassagePrefix = Annotated[str | None, typer.Option(help="Put before a passage; the base model's own when not given.")]
MaxLength = Annotated[
    int | None, typer.Option(metavar="N", min=8, help="Tokens read of a passage; chosen by the passages.")
]
MaxPairs = Annotated[int | None, typer.Option(metavar="N", min=2, help="Train on so many pairs at most.")]
MaxMinutes = Annotated[float | None, typer.Option(metavar="N", min=0.1, help="Make training fit this time.")]
MaxPassages = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Ask the LLM about so many passages at most.")
]
Questions = Annotated[
    Path | None, typer.Option(help="Real questions with their documents or passages; they become the test.")
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", help="Which column holds what, like query=frage; may be given several times."),
]
NewDocuments = Annotated[
    float,
    typer.Option(
        metavar="SHARE", min=0, max=0.9, help="Of the documents, held out as new ones; 0 where all documents are known."
    ),
]
MaxCost = Annotated[
    float,
    typer.Option(metavar="N", min=0, help="Dollars for the LLM, by the estimate, above which a person is asked first."),
]
ChunkSize = Annotated[int, typer.Option(metavar="N", min=16, help="Tokens in a passage at most.")]
ChunkOverlap = Annotated[int, typer.Option(metavar="N", min=0, help="Tokens that neighbouring passages share.")]
Device = Annotated[str | None, typer.Option(help="A torch device; the best there is when not given.")]
Seed = Annotated[int, typer.Option(help="Of every draw.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results and errors.")]
RequireImprovement = Annotated[bool, typer.Option(help="Exit with 3 when the verdict is not 'ship'.")]


class RoundTripBy(StrEnum):
    """Which retriever a generated question must pass."""

    BM25 = "bm25"
    DENSE = "dense"
    BOTH = "both"
    EITHER = "either"
    NONE = "none"


class Loss(StrEnum):
    """What teaches a model (`rag_ft.training.losses`)."""

    MNR = "mnr"
    GIST = "gist"
    TRIPLET = "triplet"
    COSENT = "cosent"
    COSINE = "cosine"
    ONLINE_CONTRASTIVE = "online-contrastive"
    CONTRASTIVE = "contrastive"
    MSE = "mse"
    MARGIN_MSE = "margin-mse"
    KL = "kl"


class Miner(StrEnum):
    """Who finds hard negatives."""

    DENSE = "dense"
    BM25 = "bm25"
    BOTH = "both"


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
    from rag_ft.dataset.formats.documents import cut_into_nodes, read_documents

    return cut_into_nodes(read_documents(documents), chunk_size, chunk_overlap)


def _real_questions(file: Path | None, field: list[str] | None) -> list[Any]:
    from rag_ft.generation.real_questions import read_questions

    return read_questions(file, fields=_fields(field)) if file is not None else []


def _fields(field: list[str] | None) -> dict[str, str] | None:
    """What `--field` says: what a column holds -> its name."""
    for item in field or ():
        if "=" not in item:
            raise InputError(f"--field {item!r}: give what the column holds and its name, like --field query=frage")
    return dict(item.split("=", 1) for item in field) if field else None


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
        questions=_real_questions(questions, field),
        new_documents=new_documents,
        base_model=base_model,
        output_dir=output,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_length=max_length,
        max_pairs=max_pairs,
        max_minutes=max_minutes,
        max_passages=max_passages,
        approve=_approval(max_cost),
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
    field: Fields = None,
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
    show_progress = _begin(quiet)
    from rag_ft.dataset.formats.beir import check_output, write_beir
    from rag_ft.dataset.formats.llama_index_json import write_llama_index_json
    from rag_ft.dataset.review import Review
    from rag_ft.generation.filters import Filters
    from rag_ft.generation.generation import generate_qa_dataset
    from rag_ft.generation.llms import resolve_llm
    from rag_ft.generation.prompts import STYLES, read_prompt

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
    nodes = _nodes(documents, chunk_size, chunk_overlap)
    dense = round_trip not in (RoundTripBy.BM25, RoundTripBy.NONE)
    made = generate_qa_dataset(
        nodes,
        model,
        use_llm=model is not None,
        questions=_real_questions(questions, field),
        filters=Filters(
            round_trip=round_trip.value,
            depth=round_trip_depth,
            embed_model=_embedding(base_model, None, None) if dense else None,
        ),
        new_documents=new_documents,
        questions_per_passage=questions_per_passage,
        styles=style or tuple(STYLES),
        answers=answers,
        prompt=template,
        judge=resolve_llm(judge, judge_url) if judge is not None else None,
        max_passages=max_passages,
        journal=Path(f"{output.resolve()}.journal.jsonl") if model is not None or judge is not None else None,
        workers=workers,
        requests_per_minute=requests_per_minute,
        approve=_approval(max_cost),
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


def _approval(max_cost: float) -> Callable[[Any], bool]:
    """Whether an LLM may be asked: yes up to a cost, above it a person at the terminal says so."""

    def approve(estimate: Any) -> bool:
        if estimate.dollars is None or estimate.dollars <= max_cost:
            return True
        if not sys.stdin.isatty():
            raise InputError(f"{estimate} is above --max-cost {max_cost:g}: give a higher one, or fewer --max-passages")
        return typer.confirm(f"{estimate}: go on?", err=True)

    return approve


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
def train(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="The model folder.")],
    base_model: BaseModel = DEFAULT_BASE_MODEL,
    field: Fields = None,
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
    max_length: MaxLength = None,
    max_pairs: MaxPairs = None,
    max_minutes: MaxMinutes = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="M", help="A larger model to learn from (distillation).")
    ] = None,
    continue_from: Annotated[
        Path | None, typer.Option(metavar="M", help="A tuned model to go on from, in place of the base model.")
    ] = None,
    earlier: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="What that model was tuned on, so that it is not forgotten.")
    ] = None,
    replay: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the earlier questions among those trained on.")
    ] = 0.3,
    loss: Annotated[Loss | None, typer.Option(help="What teaches; the one that fits the data by default.")] = None,
    mine: Annotated[
        Miner | None, typer.Option(help="Who mines hard negatives; the dataset's own are taken by default.")
    ] = None,
    negatives: Annotated[int | None, typer.Option(metavar="N", min=0, help="Hard negatives of a question.")] = None,
    rounds: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of mining and training.")] = None,
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", min=1, help="Train low-rank updates, and merge them in the end.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Passes over the pairs.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Pairs in a batch; a large one is cached.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", min=0, help="The peak, after the warm-up.")
    ] = None,
    dimension: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, help="A length that vectors may be cut to; may be given several times."),
    ] = None,
    report_to: Annotated[
        list[str] | None, typer.Option(metavar="TRACKER", help="tensorboard, trackio, mlflow, wandb, ...")
    ] = None,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fine-tune on the train split and select on dev; test is never looked at.

    Killed, the same command goes on where it was. Ctrl-C ends the training and keeps the best weights so far.
    """
    show_progress = _begin(quiet)
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.training.fine_tuning import train_model

    settings: dict[str, Any] = {
        "loss": loss.value if loss is not None else None,
        "mine": mine.value if mine is not None else None,
        "negatives": negatives,
        "rounds": rounds,
        "lora": lora,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "dimensions": tuple(dimension) if dimension else None,
    }
    trained = train_model(
        load_dataset(dataset, fields=_fields(field)),
        output,
        base_model,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_length=max_length,
        max_pairs=max_pairs,
        max_minutes=max_minutes,
        teacher=teacher,
        continue_from=continue_from,
        earlier=load_dataset(earlier) if earlier is not None else None,
        replay=replay,
        seed=seed,
        device=device,
        show_progress=show_progress,
        report_to=report_to or (),
        **{name: value for name, value in settings.items() if value is not None},
    )
    figures = ", ".join(f"{name} {score:.3f}" for name, score in trained.dev.items())
    training = trained.record["training"]
    if figures:
        metric = next(name.removeprefix("dev_") for name in training if name.startswith(("dev_ndcg", "dev_spearman")))
        out.print(f"dev {metric}: {figures}", highlight=False)
    if teaching := training.get("teacher"):
        said = next(value for name, value in teaching.items() if name.startswith("dev_"))
        out.print(
            f"teacher {said:.3f}, student {teaching['student']:.3f}, {teaching['times_faster']:g} times as fast",
            highlight=False,
        )
    for name, reason in training["refused"].items():
        out.print(f"[yellow]{escape(name)} is not taken: {escape(reason)}[/]", highlight=False)
    if trained.is_base:
        out.print("[yellow]nothing beat the base model on dev: the model folder holds the base model[/]")
    out.print(f"model   {escape(str(output))}", highlight=False)


@app.command()
def mine(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="The dataset with its negatives; may be the same folder.")],
    by: Annotated[Miner, typer.Option(help="Who finds them.")] = Miner.BOTH,
    model: Annotated[str, typer.Option(metavar="M", help="Finds the dense ones: a folder, a hub name, or 'local'.")] = (
        DEFAULT_BASE_MODEL
    ),
    count: Annotated[int, typer.Option(metavar="N", min=1, help="For each question, at most.")] = 3,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the right passage's score that a negative may have.")
    ] = 0.95,
    cross_encoder: Annotated[
        str | None, typer.Option(metavar="M", help="A reranker that drops what it holds for an answer.")
    ] = None,
    field: Fields = None,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Find passages that look like answers and are none, among those that training sees.

    A dataset without a dev split gets one: what is looked for there must not be a negative.
    """
    show_progress = _begin(quiet)
    from rag_ft.dataset.formats.beir import check_output, write_beir
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.dataset.splitting import carve_dev
    from rag_ft.embedding.loading import load_sentence_transformer
    from rag_ft.training.hard_negatives import load_cross_encoder, mine_negatives

    check_output(output)
    mined = mine_negatives(
        carve_dev(load_dataset(dataset, fields=_fields(field)), seed=seed),
        load_sentence_transformer(model, device=device) if by is not Miner.BM25 else None,
        by=by.value,
        count=count,
        margin=margin,
        cross_encoder=load_cross_encoder(cross_encoder) if cross_encoder is not None else None,
        show_progress=show_progress,
    )
    write_beir(mined, output)
    found = Counter(source for sources in mined.negative_sources.values() for source in sources.values())
    named = ", ".join(f"{count} by {source}" for source, count in sorted(found.items())) or "none"
    out.print(f"negatives: {named}, of {len(mined.require('train'))} questions\n{escape(str(output))}", highlight=False)


@app.command()
def index(
    chroma: Annotated[str, typer.Option(help="A folder, http://HOST:PORT, or cloud:TENANT/DATABASE.")],
    collection: Annotated[str, typer.Option(help="What the index is opened by.")],
    source: Annotated[
        str | None, typer.Argument(help="A folder of documents, a dataset, or chroma:PATH_OR_URL:COLLECTION.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model folder, a hub name, or 'local'.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Change what is read in place; only what is new is embedded.")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Back to what was read before the last build.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what was read before.")] = False,
    chunk_size: ChunkSize = 256,
    chunk_overlap: ChunkOverlap = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Build a Chroma-backed index beside the one that is read, and swap them when it is complete.

    A build that was killed goes on where it was. An app that has the index open finds the new one by itself.
    """
    show_progress = _begin(quiet)
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.index.build import prune_index, rebuild_index, rollback_index, update_index
    from rag_ft.index.chroma import check_collection_name, is_address, open_chroma

    check_collection_name(collection)
    if rollback or prune:
        if source is not None or update or (rollback and prune):
            raise InputError("--rollback and --prune stand alone: give no SOURCE, no --update, and one of the two")
        if rollback:
            out.print(f"{escape(collection)} is {escape(rollback_index(chroma, collection))} again", highlight=False)
            return
        gone = prune_index(chroma, collection)
        out.print(f"removed: {escape(', '.join(gone) or 'none')}", highlight=False)
        return
    if source is None or model is None:
        raise InputError(f"SOURCE is {source} and --model is {model}: an index is built from passages and a model")
    # A server that is down is found out before a model is loaded; a new folder is made only after that.
    client = open_chroma(chroma) if is_address(chroma) or Path(chroma).expanduser().exists() else chroma
    nodes = _source_nodes(source, chunk_size, chunk_overlap)
    embedding = FineTunedEmbedding.load(model, device=device)
    build = update_index if update else rebuild_index
    built = build(nodes, embedding, client, collection, show_progress=show_progress)
    there = built.vector_store.client
    out.print(f"{there.count()} passages in {escape(chroma)}, collection {escape(there.name)}", highlight=False)


def _source_nodes(source: str, chunk_size: int, chunk_overlap: int) -> Iterable[BaseNode]:
    """Nodes of a folder of documents, of a dataset, or of a Chroma collection that an app has."""
    from rag_ft.dataset.formats.reading import is_dataset, load_dataset
    from rag_ft.index.nodes import nodes_from_chroma, nodes_from_texts

    if source.startswith("chroma:"):
        return nodes_from_chroma(source)
    path = Path(source)
    if is_dataset(path):
        dataset = load_dataset(path)
        documents = {key: passage.document for key, passage in dataset.passages.items()}
        return nodes_from_texts(dataset.passage_texts, documents)
    return _nodes(path, chunk_size, chunk_overlap)


class Backend(StrEnum):
    """What computes vectors in place of torch."""

    ONNX = "onnx"
    OPENVINO = "openvino"


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model folder of your own.")],
    backend: Annotated[Backend, typer.Option(help="What computes the vectors afterwards.")] = Backend.ONNX,
    int8: Annotated[bool, typer.Option("--int8", help="Weights and activations in 8 bits.")] = False,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Its dev questions tell what it costs in quality.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a faster form of a model into its folder, and measure what it costs."""
    _begin(quiet)
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.dataset.splitting import carve_dev
    from rag_ft.embedding.backends import export_model
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.evaluation.fidelity import measure_fidelity

    questions = carve_dev(load_dataset(dataset)) if dataset is not None else None
    calibration = [] if questions is None else list(questions.passage_texts.values())
    file = export_model(model, backend.value, int8, calibration)
    out.print(f"{escape(str(file))} ({file.stat().st_size / 1e6:.0f} MB)", highlight=False)
    if questions is None:
        return
    exported = FineTunedEmbedding.load(model, backend=backend.value, int8=int8)
    found = measure_fidelity(FineTunedEmbedding.load(model, precision="fp32", device="cpu"), exported, questions, "dev")
    out.print(str(found), highlight=False)


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
    show_progress = _begin(quiet)
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.evaluation.comparison import compare as compare_models
    from rag_ft.evaluation.report import write_report

    questions = load_dataset(dataset, split, fields=_fields(field))
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
    _begin(quiet)
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.dataset.inspection import inspect_dataset
    from rag_ft.dataset.inspection_table import print_inspection
    from rag_ft.files import write_json

    found = inspect_dataset(
        load_dataset(dataset, split or "train", fields=_fields(field)), split, samples=samples, seed=seed
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
    _begin(quiet)
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.dataset.inspection_table import shown
    from rag_ft.dataset.review import export_questions, review_folder

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
            f"{escape(str(dataset))}: {len(decided.rejected)} rejected, {len(decided.edited)} edited", highlight=False
        )


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
        if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)) or any(
            sign in str(error) for sign in FULL
        ):
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
