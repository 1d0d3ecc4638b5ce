"""Every argument and option of the command line. A name has one meaning in all commands.

A command names them as the types of its parameters. `rich_help_panel` says under which heading the help shows an
option; those without one open the help.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from rag_ft.training.recipe import Loss, Miner

_input = partial(typer.Option, rich_help_panel="Reading documents and tables")
_server = partial(typer.Option, rich_help_panel="Servers and cost")
_llm = partial(typer.Option, rich_help_panel="Questions by an LLM")
_filter = partial(typer.Option, rich_help_panel="Filters")
_text = partial(typer.Option, rich_help_panel="Prefixes and length")
_recipe = partial(typer.Option, rich_help_panel="Recipe")
_negatives = partial(typer.Option, rich_help_panel="Negatives")
_continuing = partial(typer.Option, rich_help_panel="Going on from a tuned model")
_tracking = partial(typer.Option, rich_help_panel="Tracking and hub")
_index = partial(typer.Option, rich_help_panel="Index")
_update = partial(typer.Option, rich_help_panel="Updating and going back")
_report = partial(typer.Option, rich_help_panel="Files to write")
_network = partial(typer.Option, rich_help_panel="Network")
_model = partial(typer.Option, rich_help_panel="Model")
_verdict = partial(typer.Option, rich_help_panel="Verdict")
_hidden = partial(typer.Option, hidden=True)

# --- Arguments

Dataset = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET", help="A dataset folder, LlamaIndex's JSON, or a table of pairs (CSV, JSONL, Parquet)."
    ),
]
DatasetFolder = Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.")]
Documents = Annotated[Path, typer.Argument(metavar="DOCS", help="A folder of documents.")]
DocumentsOrDataset = Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of documents, or a dataset.")]
Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A folder of documents, a dataset, or chroma:PATH_OR_URL:COLLECTION.")
]
OptionalSource = Annotated[
    str | None,
    typer.Argument(metavar="SOURCE", help="A folder of documents, a dataset, or chroma:PATH_OR_URL:COLLECTION."),
]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder of your own.")]
ServedModel = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model folder, an adapter's folder, a hub name, or 'local'.")
]

# --- Options of most commands

Device = Annotated[str | None, typer.Option(metavar="NAME", help="A torch device; by default the best available.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seeds every random choice.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only results and errors.")]
Fields = Annotated[
    list[str] | None, _input("--field", metavar="X=NAME", help="Which column holds what, like query=frage; repeatable.")
]
ChunkSize = Annotated[int, _input(metavar="N", min=16, help="Maximum number of tokens in a passage.")]
ChunkOverlap = Annotated[int, _input(metavar="N", min=0, help="Number of tokens that adjacent passages share.")]
BaseModel = Annotated[
    str, typer.Option(metavar="MODEL", help="A hub name, a model folder, or 'local' (all-MiniLM-L6-v2, from pip).")
]

# --- Output

RunFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="The run folder; a stopped run goes on there.")
]
OutputDataset = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="The dataset folder; a file with --format llama-index.")
]
MinedDataset = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="The dataset with negatives; may be the same folder.")
]
OutputModel = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The model folder.")]
OutputAdapter = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The adapter's folder.")]
Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures to this file.")]

# --- Servers, and what they cost

LlmUrl = Annotated[
    str | None, _server(metavar="URL", help="Address of an OpenAI-compatible server, for openai-like:MODEL.")
]
JudgeUrl = Annotated[str | None, _server(metavar="URL", help="Address of the judge's server, as --llm-url.")]
EmbedUrl = Annotated[
    str | None,
    _server(metavar="URL", help="Address of an OpenAI-compatible server, for openai:MODEL; else OPENAI_BASE_URL."),
]
MaxCost = Annotated[float, _server(metavar="N", min=0, help="Ask before an API is paid more dollars, as estimated.")]
RequestsPerMinute = Annotated[
    float | None, _server(metavar="N", min=1, help="Maximum number of requests sent in a minute.")
]
Batch = Annotated[bool, _server("--batch", help="Use the OpenAI Batch API, at half the price.")]
Workers = Annotated[int, _server(metavar="N", min=1, help="Number of LLM calls at the same time.")]

# --- Questions

Llm = Annotated[
    str, typer.Option(metavar="NAME", help="The LLM that writes questions: 'none', 'local', PROVIDER:MODEL.")
]
Questions = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Real questions with their documents or passages; they become the test."),
]
FromFeedback = Annotated[
    Path | None,
    typer.Option(
        metavar="VOTES", help="What people picked (rag-ft ab): to train on, and to test on only without --questions."
    ),
]
UnseenDocuments = Annotated[
    float,
    typer.Option(
        metavar="X", min=0, max=0.9, help="Fraction of the documents held out as unseen; 0 trains on all of them."
    ),
]
Format = Annotated[
    Literal["beir", "llama-index"],
    typer.Option(metavar="NAME", help="'beir', or 'llama-index': the JSON of EmbeddingQAFinetuneDataset."),
]
MaxPassages = Annotated[int | None, _llm(metavar="N", min=1, help="Maximum number of passages the LLM is asked about.")]
QuestionsPerPassage = Annotated[int, _llm(metavar="N", min=1, help="Number of questions asked for in a call.")]
Style = Annotated[
    list[str] | None,
    _llm(metavar="STYLE", help="question, keywords, situation, reworded, or words of your own; repeatable."),
]
Answers = Annotated[bool, _llm(show_default=False, help="Ask for an answer and its evidence with each question.")]
Prompt = Annotated[Path | None, _llm(metavar="FILE", help="A prompt with {passage}, {count}, {styles} and {language}.")]
Judge = Annotated[str | None, _filter(metavar="NAME", help="An LLM that may drop questions, named as --llm is.")]
RoundTrip = Annotated[
    Literal["bm25", "dense", "both", "either", "none"],
    _filter(metavar="NAME", help="What must find a question's passage again: bm25, dense, both, either, none."),
]
RoundTripDepth = Annotated[int, _filter(metavar="N", min=1, help="The passage must be among this many.")]
RoundTripModel = Annotated[str, _filter(metavar="MODEL", help="The embedding of the dense round trip.")]

# --- Training

AdaptedModel = Annotated[
    str, typer.Option(metavar="MODEL", help="openai:NAME, azure:NAME, a hub name, a model folder, or 'local'.")
]
MaxMinutes = Annotated[float | None, typer.Option(metavar="N", min=0.1, help="Make training fit into this time.")]
Teacher = Annotated[str | None, typer.Option(metavar="MODEL", help="A larger model to learn from (distillation).")]
ContinueFrom = Annotated[
    Path | None, typer.Option(metavar="MODEL", help="A tuned model to go on from, instead of the base model.")
]
QueryPrefix = Annotated[
    str | None, _text(metavar="TEXT", help="Text put before a query; by default the base model's own.")
]
PassagePrefix = Annotated[
    str | None, _text(metavar="TEXT", help="Text put before a passage; by default the base model's own.")
]
MaxLength = Annotated[
    int | None, _text(metavar="N", min=8, help="Number of tokens read of a passage; by default the passages decide.")
]
MaxPairs = Annotated[int | None, _recipe(metavar="N", min=2, help="Maximum number of pairs to train on.")]
Epochs = Annotated[int | None, _recipe(metavar="N", min=1, help="Number of passes over the pairs.")]
BatchSize = Annotated[int | None, _recipe(metavar="N", min=2, help="Pairs in a batch; over 64 it is cached.")]
LearningRate = Annotated[float | None, _recipe(metavar="X", min=0, help="The peak, after the warm-up.")]
TrainingLoss = Annotated[
    Loss | None,
    _recipe(
        metavar="NAME",
        help="mnr, gist, triplet, cosent, cosine, online-contrastive, contrastive, mse, margin-mse or kl; by default "
        "the one that fits the data.",
    ),
]
Lora = Annotated[
    int | None, _recipe(metavar="RANK", min=1, help="Train low-rank updates, which are merged at the end.")
]
Dimensions = Annotated[
    list[int] | None,
    _recipe("--dimension", metavar="N", min=1, help="A length that vectors may be cut to; repeatable."),
]
Settings = Annotated[
    list[str] | None,
    _recipe(
        "--set", metavar="X=VALUE", help="A setting of the recipe: warmup, scale, patience, alphas, ...; repeatable."
    ),
]
RecipeSeed = Annotated[int, _recipe("--seed", metavar="N", help="Seeds every random choice.")]
Mine = Annotated[
    Miner | None,
    _negatives(metavar="NAME", help="What mines hard negatives: dense, bm25, both, mix; by default the dataset's own."),
]
Negatives = Annotated[int | None, _negatives(metavar="N", min=0, help="Number of hard negatives of a question.")]
Rounds = Annotated[int | None, _negatives(metavar="N", min=1, help="Number of times to mine and train.")]
Earlier = Annotated[
    Path | None,
    _continuing(metavar="DATASET", help="The dataset that model was tuned on, so that it is not forgotten."),
]
Replay = Annotated[
    float, _continuing(metavar="X", min=0, max=0.99, help="Fraction of earlier questions among those trained on.")
]
ReportTo = Annotated[
    list[str] | None, _tracking(metavar="TRACKER", help="tensorboard, trackio, mlflow, wandb, ...; repeatable.")
]
PushToHub = Annotated[
    str | None, _tracking(metavar="REPO", help="Upload the model as OWNER/NAME; a new repository is private.")
]
BothSides = Annotated[
    bool, typer.Option("--both-sides", help="Map passages too: the index must be rebuilt with the adapter.")
]
AdapterMaxPairs = Annotated[
    int | None, typer.Option("--max-pairs", metavar="N", min=2, help="Maximum number of pairs to train on.")
]

# --- Options of `train` from the time before `train-adapter`, and one that was removed

Adapter = Annotated[Literal["auto", "linear", "low-rank", "residual"] | None, _hidden()]
Focus = Annotated[Literal["bm25-misses"] | None, _hidden()]
HiddenBothSides = Annotated[bool, _hidden("--both-sides")]
HiddenBatch = Annotated[bool, _hidden("--batch")]
HiddenEmbedUrl = Annotated[str | None, _hidden("--embed-url")]
HiddenMaxCost = Annotated[float, _hidden("--max-cost", min=0)]
HiddenRequestsPerMinute = Annotated[float | None, _hidden("--requests-per-minute", min=1)]

# --- Mining

MineBy = Annotated[Miner, typer.Option(metavar="NAME", help="What finds negatives: dense, bm25, both, or mix.")]
MiningModel = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="Finds the dense ones: a folder, a hub name, or 'local'.")
]
NegativeCount = Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number for each question.")]
Margin = Annotated[
    float, typer.Option(metavar="X", min=0, max=1, help="A negative scores at most this fraction of the positive.")
]
CrossEncoder = Annotated[
    str | None, typer.Option(metavar="MODEL", help="A reranker that drops negatives it takes for an answer.")
]

# --- Exports, and the mix with BM25

ExportBackend = Annotated[
    Literal["onnx", "openvino"], typer.Option(metavar="NAME", help="What computes the vectors: 'onnx' or 'openvino'.")
]
Int8 = Annotated[bool, typer.Option("--int8", help="Store weights and activations in 8 bits.")]
QualityDataset = Annotated[
    Path | None, typer.Option("--dataset", metavar="DATASET", help="Measure the loss of quality on its dev questions.")
]
FusedModel = Annotated[
    Path, typer.Option("--model", metavar="FOLDER", help="A model folder of rag-ft; the mix is written into it.")
]

# --- Index

Chroma = Annotated[str, typer.Option(metavar="PATH", help="A folder, http://HOST:PORT, or cloud:TENANT/DATABASE.")]
RunChroma = Annotated[
    str | None, _index("--chroma", metavar="PATH", help="A folder or http://HOST:PORT; by default in the run folder.")
]
PageChroma = Annotated[
    str | None, typer.Option("--chroma", metavar="PATH", help="Keep the indexes here; by default they are in memory.")
]
Collection = Annotated[str, typer.Option(metavar="NAME", help="The name that the index is opened by.")]
RunCollection = Annotated[str, _index("--collection", metavar="NAME", help="The name that the index is opened by.")]
IndexModel = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="A model folder, a hub name, 'local', or an adapter's folder."),
]
Fresh = Annotated[bool, _update("--fresh", help="Embed everything again, also what did not change.")]
Update = Annotated[bool, _update("--update", help="Change the index in place; only what is new is embedded.")]
KeepOthers = Annotated[
    bool, _update("--keep-others", help="With --update: SOURCE holds only some of the documents; keep the others.")
]
Rollback = Annotated[bool, _update("--rollback", help="Go back to the index from before the last build.")]
Prune = Annotated[bool, _update("--prune", help="Remove the index from before the last build.")]

# --- Comparison and inspection

Baseline = Annotated[
    str, typer.Option(metavar="MODEL", help="A model folder, a hub name, 'local', openai:NAME, bm25, or hybrid:MODEL.")
]
Candidates = Annotated[
    list[str], typer.Option("--candidate", metavar="MODEL", help="Named like the baseline; repeatable.")
]
Split = Annotated[str, typer.Option(metavar="NAME", help="The split whose questions are asked.")]
CheckSplit = Annotated[
    str | None,
    typer.Option("--split", metavar="NAME", help="The split whose questions are asked; 'test' if there is one."),
]
InspectSplit = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="The split whose questions are shown; by default all.")
]
Samples = Annotated[int, typer.Option(metavar="N", min=0, help="Number of questions of each style to show.")]
ComparedEarlier = Annotated[
    Path | None,
    typer.Option("--earlier", metavar="DATASET", help="The dataset the baseline was tuned on; reported apart."),
]
ComparedLength = Annotated[
    int | None,
    typer.Option(
        "--max-length", metavar="N", min=8, help="Number of tokens read of a passage by all; else the longest's."
    ),
]
ReportJson = Annotated[Path | None, _report("--json", metavar="FILE", help="Write the figures to this file.")]
Html = Annotated[Path | None, _report(metavar="FILE", help="Write the report.")]
Markdown = Annotated[Path | None, _report(metavar="FILE", help="Write the report as Markdown, for a pull request.")]
QueryTable = Annotated[
    Path | None, _report(metavar="FILE", help="Write the result of every question: .csv, .tsv, .parquet, .jsonl.")
]
Regressions = Annotated[
    Path | None,
    _report(
        metavar="PATH",
        help="Write the questions that got worse: as training pairs (.jsonl), or the next dataset (folder).",
    ),
]
RequireImprovement = Annotated[bool, _verdict(show_default=False, help="Exit with 3 unless the verdict is 'ship'.")]

# --- Review

ExportFile = Annotated[
    Path | None,
    typer.Option("--export", metavar="FILE", help="Write the questions for a person: .csv, .tsv or .jsonl."),
]
ImportFile = Annotated[
    Path | None,
    typer.Option("--import", metavar="FILE", help="Read the file back: 'no' under keep rejects, another text edits."),
]

# --- Serving, and the A/B page

Port = Annotated[int, _network(metavar="N", min=0, max=65535, help="The port; 0 takes a free one.")]
ServeHost = Annotated[
    str,
    _network("--host", metavar="ADDRESS", help="0.0.0.0 opens the server to other machines; it needs RAG_FT_API_KEY."),
]
RateLimit = Annotated[
    int | None, _network(metavar="N", min=1, help="Maximum number of requests in a minute from one address.")
]
ServedName = Annotated[
    str | None, _model("--name", metavar="NAME", help="The name that clients ask for; by default the model's own.")
]
ServeBackend = Annotated[
    Literal["torch", "onnx", "openvino"],
    _model("--backend", metavar="NAME", help="What computes the vectors: torch, onnx, openvino (rag-ft export)."),
]
ServeInt8 = Annotated[bool, _model("--int8", help="Use the 8-bit export, with --backend onnx.")]
ServeDimension = Annotated[
    int | None, _model("--dimension", metavar="N", min=1, help="Cut vectors to this length (rag-ft train --dimension).")
]
VariantA = Annotated[
    str,
    typer.Option("--a", metavar="MODEL", help="A model folder, a hub name, 'local', openai:NAME, bm25, hybrid:MODEL."),
]
VariantB = Annotated[str, typer.Option("--b", metavar="MODEL", help="Another one.")]
Blind = Annotated[bool, typer.Option("--blind", help="Shuffle the variants, and name them only after the vote.")]
VoteFile = Annotated[Path, typer.Option("--votes", metavar="FILE", help="The file of votes and picks.")]
TopK = Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Number of passages in a ranking.")]
AnswerLlm = Annotated[
    str,
    typer.Option(
        "--llm", metavar="NAME", help="The LLM that answers for each variant: 'none', 'local', PROVIDER:MODEL."
    ),
]
PageHost = Annotated[str, _network("--host", metavar="ADDRESS", help="0.0.0.0 opens the page to other machines.")]
