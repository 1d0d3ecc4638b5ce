"""`rag-ft index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import embedding_of, source_nodes
from rag_ft.cli.options import (
    ChunkOverlap,
    ChunkSize,
    Device,
    Quiet,
)
from rag_ft.errors import InputError


@app.command()
def index(
    chroma: Annotated[str, typer.Option(help="A folder, http://HOST:PORT, or cloud:TENANT/DATABASE.")],
    collection: Annotated[str, typer.Option(help="What the index is opened by.")],
    source: Annotated[
        str | None, typer.Argument(help="A folder of documents, a dataset, or chroma:PATH_OR_URL:COLLECTION.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder, a hub name, 'local', or an adapter's folder.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Change what is read in place; only what is new is embedded.")
    ] = False,
    keep_others: Annotated[
        bool, typer.Option("--keep-others", help="With --update: SOURCE is some of the documents, and not all.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Embed all anew, also what did not change.")] = False,
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
    show_progress = begin(quiet)
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
        missing = "SOURCE, the documents" if source is None else "--model MODEL"
        raise InputError(f"an index is built from documents and a model: give {missing}")
    if (keep_others and not update) or (fresh and update):
        raise InputError("--keep-others goes with --update, and --fresh without it")
    # A server that is down is found out before a model is loaded; a new folder is made only after that.
    client = open_chroma(chroma) if is_address(chroma) or Path(chroma).expanduser().exists() else chroma
    nodes = source_nodes(source, chunk_size, chunk_overlap)
    embedding = embedding_of(model, device, None)
    if update:
        built = update_index(
            nodes, embedding, client, collection, delete_missing=not keep_others, show_progress=show_progress
        )
    else:
        built = rebuild_index(nodes, embedding, client, collection, reuse=not fresh, show_progress=show_progress)
    there = built.vector_store.client
    out.print(f"{there.count()} passages in {escape(chroma)}, collection {escape(there.name)}", highlight=False)
