"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Dataset = Annotated[
    Path, typer.Argument(help="A dataset folder, LlamaIndex's JSON, or a table of pairs (CSV, JSONL, Parquet).")
]
BaseModel = Annotated[str, typer.Option(help="A hub name, a model folder, or 'local' (all-MiniLM-L6-v2 from pip).")]
Llm = Annotated[str, typer.Option(help="Who writes questions: 'none', 'local', or PROVIDER:MODEL.")]
LlmUrl = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, for openai-like:MODEL.")]
EmbedUrl = Annotated[
    str | None, typer.Option(help="Address of an OpenAI-compatible server, for openai:MODEL; else OPENAI_BASE_URL.")
]
RequestsPerMinute = Annotated[
    float | None, typer.Option(metavar="N", min=1, help="Never send more to the server of openai:MODEL.")
]
QueryPrefix = Annotated[str | None, typer.Option(help="Put before a query; the base model's own when not given.")]
PassagePrefix = Annotated[str | None, typer.Option(help="Put before a passage; the base model's own when not given.")]
MaxLength = Annotated[
    int | None, typer.Option(metavar="N", min=8, help="Tokens read of a passage; chosen by the passages.")
]
MaxPairs = Annotated[int | None, typer.Option(metavar="N", min=2, help="Train on so many pairs at most.")]
MaxMinutes = Annotated[float | None, typer.Option(metavar="N", min=0.1, help="Make training fit this time.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A number of the recipe: warmup, scale, patience, shares, ...; may be given several times.",
    ),
]
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
    typer.Option(metavar="N", min=0, help="Dollars for an API, by the estimate, above which a person is asked first."),
]
ChunkSize = Annotated[int, typer.Option(metavar="N", min=16, help="Tokens in a passage at most.")]
ChunkOverlap = Annotated[int, typer.Option(metavar="N", min=0, help="Tokens that neighbouring passages share.")]
Device = Annotated[str | None, typer.Option(help="A torch device; the best there is when not given.")]
Seed = Annotated[int, typer.Option(help="Of every draw.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results and errors.")]
RequireImprovement = Annotated[bool, typer.Option(help="Exit with 3 when the verdict is not 'ship'.")]
