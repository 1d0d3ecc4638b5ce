"""All arguments and options of the command line. A name has the same meaning in all commands.

Commands use them as the types of their parameters. `rich_help_panel` is the heading of an option in the help; options
without one come first.
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
_continuing = partial(typer.Option, rich_help_panel="Continuing training")
_tracking = partial(typer.Option, rich_help_panel="Tracking and hub")
_index = partial(typer.Option, rich_help_panel="Index")
_update = partial(typer.Option, rich_help_panel="Updates and rollback")
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
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a tuned model.")]
ServedModel = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model folder, an adapter's folder, a hub name, or 'local'.")
]

# --- Options of most commands

Device = Annotated[str | None, typer.Option(metavar="NAME", help="A torch device; default: the best available.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seeds every random choice.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only results and errors, without progress.")]
Fields = Annotated[
    list[str] | None,
    _input("--field", metavar="X=NAME", help="The column of a field, such as query=frage; repeatable."),
]
ChunkSize = Annotated[int, _input(metavar="N", min=16, help="Maximum number of tokens in a passage.")]
ChunkOverlap = Annotated[int, _input(metavar="N", min=0, help="Number of tokens that adjacent passages share.")]
BaseModel = Annotated[
    str, typer.Option(metavar="MODEL", help="A hub name, a model folder, or 'local' (all-MiniLM-L6-v2, from pip).")
]

# --- Output

RunFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="The run folder; a stopped run resumes there.")
]
OutputDataset = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FOLDER", help="The dataset folder, or a file with --format llama-index."),
]
MinedDataset = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="The dataset with negatives; may be the input folder.")
]
OutputModel = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The model folder.")]
OutputAdapter = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The adapter's folder.")]
Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the metrics to this file.")]

# --- Servers, and what they cost

LlmUrl = Annotated[str | None, _server(metavar="URL", help="The OpenAI-compatible server for openai-like:MODEL.")]
JudgeUrl = Annotated[str | None, _server(metavar="URL", help="The server of the judge, as for --llm-url.")]
EmbedUrl = Annotated[
    str | None, _server(metavar="URL", help="The OpenAI-compatible server for openai:MODEL; default: OPENAI_BASE_URL.")
]
MaxCost = Annotated[
    float, _server(metavar="N", min=0, help="Ask for confirmation above this estimated cost in dollars.")
]
RequestsPerMinute = Annotated[float | None, _server(metavar="N", min=1, help="Maximum number of requests per minute.")]
Batch = Annotated[bool, _server("--batch", help="Use the OpenAI Batch API, at half the price.")]
Workers = Annotated[int, _server(metavar="N", min=1, help="Number of concurrent LLM calls.")]

# --- Questions

Llm = Annotated[
    str, typer.Option(metavar="NAME", help="The LLM that writes questions: 'none', 'local', PROVIDER:MODEL.")
]
Questions = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Real questions with their documents or passages; they become the test split."),
]
FromFeedback = Annotated[
    Path | None,
    typer.Option(
        metavar="VOTES", help="Picks from rag-ft ab: for training, and without --questions also for the test split."
    ),
]
UnseenDocuments = Annotated[
    float,
    typer.Option(metavar="X", min=0, max=0.9, help="Fraction of the documents to hold out as unseen; 0 trains on all."),
]
Format = Annotated[
    Literal["beir", "llama-index"],
    typer.Option(metavar="NAME", help="'beir', or 'llama-index': the JSON of EmbeddingQAFinetuneDataset."),
]
MaxPassages = Annotated[int | None, _llm(metavar="N", min=1, help="Maximum number of passages to send to the LLM.")]
QuestionsPerPassage = Annotated[int, _llm(metavar="N", min=1, help="Number of questions to generate per passage.")]
Style = Annotated[
    list[str] | None,
    _llm(metavar="STYLE", help="question, keywords, situation, reworded, or your own words; repeatable."),
]
Answers = Annotated[bool, _llm(show_default=False, help="Also generate an answer and its evidence for each question.")]
Prompt = Annotated[
    Path | None, _llm(metavar="FILE", help="A prompt template with {passage}, {count}, {styles}, {language}.")
]
Judge = Annotated[str | None, _filter(metavar="NAME", help="An LLM that rejects bad questions, named as for --llm.")]
RoundTrip = Annotated[
    Literal["bm25", "dense", "both", "either", "none"],
    _filter(metavar="NAME", help="Keep questions whose passage is found by bm25, dense, both, either; none keeps all."),
]
RoundTripDepth = Annotated[int, _filter(metavar="N", min=1, help="Number of results that must contain the passage.")]
RoundTripModel = Annotated[str, _filter(metavar="MODEL", help="The embedding of the dense round trip.")]

# --- Training

AdaptedModel = Annotated[
    str, typer.Option(metavar="MODEL", help="openai:NAME, azure:NAME, a hub name, a model folder, or 'local'.")
]
MaxMinutes = Annotated[float | None, typer.Option(metavar="N", min=0.1, help="Limit the training to this time.")]
Teacher = Annotated[str | None, typer.Option(metavar="MODEL", help="A larger model to learn from (distillation).")]
ContinueFrom = Annotated[
    Path | None, typer.Option(metavar="MODEL", help="Continue from this tuned model instead of the base model.")
]
QueryPrefix = Annotated[str | None, _text(metavar="TEXT", help="Text before each query; default: the base model's.")]
PassagePrefix = Annotated[
    str | None, _text(metavar="TEXT", help="Text before each passage; default: the base model's.")
]
MaxLength = Annotated[
    int | None,
    _text(metavar="N", min=8, help="Maximum number of tokens per text; default: derived from the passage lengths."),
]
MaxPairs = Annotated[int | None, _recipe(metavar="N", min=2, help="Maximum number of pairs to train on.")]
Epochs = Annotated[int | None, _recipe(metavar="N", min=1, help="Number of passes over the pairs.")]
BatchSize = Annotated[
    int | None, _recipe(metavar="N", min=2, help="Number of pairs in a batch; above 64 with gradient caching.")
]
LearningRate = Annotated[float | None, _recipe(metavar="X", min=0, help="The peak learning rate, after the warm-up.")]
TrainingLoss = Annotated[
    Loss | None,
    _recipe(
        metavar="NAME",
        help="mnr, gist, triplet, cosent, cosine, online-contrastive, contrastive, mse, margin-mse or kl; default: "
        "depends on the data.",
    ),
]
Lora = Annotated[
    int | None, _recipe(metavar="RANK", min=1, help="Train LoRA weights of this rank and merge them at the end.")
]
Dimensions = Annotated[
    list[int] | None,
    _recipe("--dimension", metavar="N", min=1, help="A dimension to which vectors can be truncated; repeatable."),
]
Settings = Annotated[
    list[str] | None,
    _recipe("--set", metavar="X=VALUE", help="Another setting: warmup, scale, patience, alphas, ...; repeatable."),
]
RecipeSeed = Annotated[int, _recipe("--seed", metavar="N", help="Seeds every random choice.")]
Select = Annotated[
    Literal["safe", "dev"],
    _recipe(metavar="NAME", help="safe: ship only what is proven better; dev: ship the best dev score."),
]
Mine = Annotated[
    Miner | None,
    _negatives(metavar="NAME", help="Mine hard negatives with dense, bm25, both or mix; default: use the dataset's."),
]
Negatives = Annotated[int | None, _negatives(metavar="N", min=0, help="Number of hard negatives per question.")]
Rounds = Annotated[int | None, _negatives(metavar="N", min=1, help="Number of rounds of mining and training.")]
Earlier = Annotated[
    Path | None, _continuing(metavar="DATASET", help="The dataset of the earlier training, to prevent forgetting.")
]
Replay = Annotated[
    float, _continuing(metavar="X", min=0, max=0.99, help="Fraction of earlier questions in the training set.")
]
ReportTo = Annotated[
    list[str] | None, _tracking(metavar="TRACKER", help="tensorboard, trackio, mlflow, wandb, ...; repeatable.")
]
PushToHub = Annotated[
    str | None, _tracking(metavar="REPO", help="Upload the model as OWNER/NAME; a new repository is private.")
]
BothSides = Annotated[
    bool, typer.Option("--both-sides", help="Also map passages; the index must then be rebuilt with the adapter.")
]
AdapterMaxPairs = Annotated[
    int | None, typer.Option("--max-pairs", metavar="N", min=2, help="Maximum number of pairs to train on.")
]

# --- Hidden options of `train`: those that moved to `train-adapter`, and a removed one

Adapter = Annotated[Literal["auto", "linear", "low-rank", "residual"] | None, _hidden()]
Focus = Annotated[Literal["bm25-misses"] | None, _hidden()]
HiddenBothSides = Annotated[bool, _hidden("--both-sides")]
HiddenBatch = Annotated[bool, _hidden("--batch")]
HiddenEmbedUrl = Annotated[str | None, _hidden("--embed-url")]
HiddenMaxCost = Annotated[float, _hidden("--max-cost", min=0)]
HiddenRequestsPerMinute = Annotated[float | None, _hidden("--requests-per-minute", min=1)]

# --- Mining

MineBy = Annotated[Miner, typer.Option(metavar="NAME", help="Mine with dense, bm25, both, or mix.")]
MiningModel = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="The model for dense mining: a folder, a hub name, or 'local'.")
]
NegativeCount = Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of negatives per question.")]
Margin = Annotated[
    float, typer.Option(metavar="X", min=0, max=1, help="Maximum score of a negative, as a fraction of the positive's.")
]
CrossEncoder = Annotated[
    str | None, typer.Option(metavar="MODEL", help="A reranker that drops negatives which it scores as answers.")
]

# --- Exports, and the mix with BM25

ExportBackend = Annotated[
    Literal["onnx", "openvino"], typer.Option(metavar="NAME", help="The inference backend: 'onnx' or 'openvino'.")
]
Int8 = Annotated[bool, typer.Option("--int8", help="Quantise weights and activations to 8 bits.")]
QualityDataset = Annotated[
    Path | None,
    typer.Option(
        "--dataset", metavar="DATASET", help="Measure the loss of quality on the dev questions of this dataset."
    ),
]
FusedModel = Annotated[
    Path, typer.Option("--model", metavar="FOLDER", help="The folder of a tuned model, to which the mix is saved.")
]

# --- Index

Chroma = Annotated[str, typer.Option(metavar="PATH", help="A folder, http://HOST:PORT, or cloud:TENANT/DATABASE.")]
RunChroma = Annotated[
    str | None, _index("--chroma", metavar="PATH", help="A folder or http://HOST:PORT; default: in the run folder.")
]
PageChroma = Annotated[
    str | None, typer.Option("--chroma", metavar="PATH", help="Where to keep the indexes; default: in memory.")
]
Collection = Annotated[str, typer.Option(metavar="NAME", help="The name of the index.")]
RunCollection = Annotated[str, _index("--collection", metavar="NAME", help="The name of the index.")]
IndexModel = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="A model folder, a hub name, 'local', or an adapter's folder."),
]
Fresh = Annotated[bool, _update("--fresh", help="Re-embed everything, including unchanged texts.")]
Update = Annotated[bool, _update("--update", help="Update the index in place; embed only new texts.")]
KeepOthers = Annotated[bool, _update("--keep-others", help="With --update: keep documents that are not in SOURCE.")]
Rollback = Annotated[bool, _update("--rollback", help="Switch back to the index before the last build.")]
Prune = Annotated[bool, _update("--prune", help="Remove the index before the last build.")]

# --- Comparison and inspection

Baseline = Annotated[
    str, typer.Option(metavar="MODEL", help="A model folder, a hub name, 'local', openai:NAME, bm25, or hybrid:MODEL.")
]
Candidates = Annotated[
    list[str],
    typer.Option("--candidate", metavar="MODEL", help="A model to compare, named like the baseline; repeatable."),
]
Split = Annotated[str, typer.Option(metavar="NAME", help="The split to evaluate.")]
CheckSplit = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="The split to evaluate; default: 'test' if there is one.")
]
InspectSplit = Annotated[str | None, typer.Option("--split", metavar="NAME", help="The split to show; default: all.")]
Samples = Annotated[int, typer.Option(metavar="N", min=0, help="Number of sample questions per style.")]
ComparedEarlier = Annotated[
    Path | None,
    typer.Option("--earlier", metavar="DATASET", help="The dataset the baseline was tuned on; reported separately."),
]
ComparedLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        metavar="N",
        min=8,
        help="Maximum number of tokens per passage for all models; default: the largest of theirs.",
    ),
]
ReportJson = Annotated[Path | None, _report("--json", metavar="FILE", help="Write the metrics to this file.")]
Html = Annotated[Path | None, _report(metavar="FILE", help="Write the report as HTML.")]
Markdown = Annotated[Path | None, _report(metavar="FILE", help="Write the report as Markdown, for a pull request.")]
QueryTable = Annotated[
    Path | None, _report(metavar="FILE", help="Write the result of each question: .csv, .tsv, .parquet, .jsonl.")
]
Regressions = Annotated[
    Path | None,
    _report(
        metavar="PATH",
        help="Write the questions that got worse, as training pairs (.jsonl) or the next dataset (folder).",
    ),
]
Tolerance = Annotated[
    float, _verdict(metavar="X", min=0, max=1, help="Prefer a simpler retriever that loses less than this in nDCG@10.")
]
RequireImprovement = Annotated[bool, _verdict(show_default=False, help="Exit with 3 unless the verdict is 'ship'.")]

# --- Review

ExportFile = Annotated[
    Path | None,
    typer.Option("--export", metavar="FILE", help="Write the questions to a file for review: .csv, .tsv or .jsonl."),
]
ImportFile = Annotated[
    Path | None,
    typer.Option(
        "--import", metavar="FILE", help="Import the reviewed file: 'no' in the keep column rejects a question."
    ),
]

# --- Serving, and the A/B page

Port = Annotated[int, _network(metavar="N", min=0, max=65535, help="The port; 0 chooses a free one.")]
ServeHost = Annotated[
    str,
    _network(
        "--host", metavar="ADDRESS", help="The address to bind; 0.0.0.0 admits other machines and needs RAG_FT_API_KEY."
    ),
]
RateLimit = Annotated[
    int | None, _network(metavar="N", min=1, help="Maximum number of requests per minute and client address.")
]
ServedName = Annotated[
    str | None, _model("--name", metavar="NAME", help="The model name in the API; default: that of the model.")
]
ServeBackend = Annotated[
    Literal["torch", "onnx", "openvino"],
    _model("--backend", metavar="NAME", help="The inference backend: torch, onnx, openvino (rag-ft export)."),
]
ServeInt8 = Annotated[bool, _model("--int8", help="Use the 8-bit export, with --backend onnx.")]
ServeDimension = Annotated[
    int | None,
    _model("--dimension", metavar="N", min=1, help="Truncate vectors to this dimension (rag-ft train --dimension)."),
]
VariantA = Annotated[
    str,
    typer.Option("--a", metavar="MODEL", help="A model folder, a hub name, 'local', openai:NAME, bm25, hybrid:MODEL."),
]
VariantB = Annotated[str, typer.Option("--b", metavar="MODEL", help="The model to compare with it.")]
Blind = Annotated[bool, typer.Option("--blind", help="Shuffle the models, and reveal them after the vote.")]
VoteFile = Annotated[Path, typer.Option("--votes", metavar="FILE", help="The file for votes and picks.")]
TopK = Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Number of passages in a ranking.")]
AnswerLlm = Annotated[
    str,
    typer.Option(
        "--llm", metavar="NAME", help="The LLM that answers from the passages: 'none', 'local', PROVIDER:MODEL."
    ),
]
PageHost = Annotated[
    str, _network("--host", metavar="ADDRESS", help="The address to bind; 0.0.0.0 admits other machines.")
]
