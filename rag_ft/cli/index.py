"""`rag-ft index`."""

from __future__ import annotations

from pathlib import Path

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import ModelOptions, source_nodes
from rag_ft.errors import InputError


def index(
    chroma: options.Chroma,
    collection: options.Collection,
    source: options.OptionalSource = None,
    model: options.IndexModel = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    chunk_size: options.ChunkSize = 256,
    chunk_overlap: options.ChunkOverlap = 0,
    fresh: options.Fresh = False,
    update: options.Update = False,
    keep_others: options.KeepOthers = False,
    rollback: options.Rollback = False,
    prune: options.Prune = False,
) -> None:
    """Build a Chroma-backed index beside the current one, and switch to it when it is complete.

    A build that was killed resumes. An app that has the index open switches to the new one automatically.
    """
    show_progress = begin(quiet)
    from rag_ft.index.build import rebuild_index, update_index
    from rag_ft.index.chroma import check_collection_name, is_address, open_chroma

    check_collection_name(collection)
    if rollback or prune:
        if source is not None or update or (rollback and prune):
            raise InputError("--rollback or --prune cannot be combined with SOURCE, --update or each other")
        roll_back_or_prune(chroma, collection, rollback)
        return
    if source is None or model is None:
        missing = "SOURCE, the documents" if source is None else "--model MODEL"
        raise InputError(f"an index needs documents and a model: pass {missing}")
    if (keep_others and not update) or (fresh and update):
        raise InputError("--keep-others needs --update, and --fresh cannot be combined with it")
    # Check a server before loading a model. A new folder is only created afterwards.
    client = open_chroma(chroma) if is_address(chroma) or Path(chroma).expanduser().exists() else chroma
    nodes = source_nodes(source, chunk_size, chunk_overlap)
    embedding = ModelOptions(device=device).embedding(model)
    if update:
        built = update_index(
            nodes, embedding, client, collection, delete_missing=not keep_others, show_progress=show_progress
        )
    else:
        built = rebuild_index(nodes, embedding, client, collection, reuse=not fresh, show_progress=show_progress)
    built_collection = built.vector_store.client
    say(f"{built_collection.count()} passages in {chroma}, collection {built_collection.name}")


def roll_back_or_prune(chroma: str, collection: str, rollback: bool) -> None:
    """Roll back to the index before the last build, or remove that index."""
    from rag_ft.index.maintenance import prune_index, rollback_index

    if rollback:
        say(f"{collection} is {rollback_index(chroma, collection)} again")
    else:
        say(f"removed: {', '.join(prune_index(chroma, collection)) or 'none'}")
