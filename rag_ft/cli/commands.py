"""The application and its commands, grouped by help panel."""

from __future__ import annotations

from typing import Annotated

import typer

from rag_ft.cli.ab import ab
from rag_ft.cli.check import check
from rag_ft.cli.command import Command, Group
from rag_ft.cli.compare import compare
from rag_ft.cli.console import say
from rag_ft.cli.export import export
from rag_ft.cli.fuse import fuse
from rag_ft.cli.generate import generate
from rag_ft.cli.index import index
from rag_ft.cli.inspect import inspect
from rag_ft.cli.mine import mine
from rag_ft.cli.review import review
from rag_ft.cli.run import demo, run
from rag_ft.cli.serve import serve
from rag_ft.cli.train import train
from rag_ft.cli.train_adapter import train_adapter

PANELS = {
    "Start here": (demo, check, run),
    "The steps": (generate, inspect, review, mine, train, train_adapter, export, fuse, index, compare),
    "Serving and watching": (serve, ab),
}

app = typer.Typer(
    name="rag-ft",
    cls=Group,
    help="Fine-tune the embedding model of a LlamaIndex application, and measure whether retrieval improved.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        say(f"rag-ft {version('rag-ft')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Fine-tune the embedding model of a LlamaIndex application, and measure whether retrieval improved."""


for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel, cls=Command)(command)
