"""`rag-ft ab`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import candidate_of, source_nodes
from rag_ft.cli.options import ChunkOverlap, ChunkSize, Device, LlmUrl, Quiet


@app.command()
def ab(
    source: Annotated[str, typer.Argument(help="A folder of documents, a dataset, or chroma:PATH_OR_URL:COLLECTION.")],
    a: Annotated[
        str, typer.Option("--a", help="A model folder, a hub name, 'local', openai:NAME, bm25, or hybrid:MODEL.")
    ],
    b: Annotated[str, typer.Option("--b", help="Another one.")],
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 for one that is free.")] = 8765,
    host: Annotated[str, typer.Option(help="Another one opens the page to other machines.")] = "127.0.0.1",
    blind: Annotated[
        bool, typer.Option("--blind", help="Shuffle the sides, and name them only after the vote.")
    ] = False,
    votes: Annotated[Path, typer.Option(help="Where votes and picks are kept.")] = Path("ab-votes.jsonl"),
    chroma: Annotated[
        str | None, typer.Option(help="Keep the indexes here for the next start; in memory when not given.")
    ] = None,
    llm: Annotated[str, typer.Option(help="Who answers on each side: 'none', 'local', or PROVIDER:MODEL.")] = "none",
    llm_url: LlmUrl = None,
    top_k: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Passages of a ranking.")] = 10,
    chunk_size: ChunkSize = 256,
    chunk_overlap: ChunkOverlap = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """A local web page: ask a question, see both rankings side by side, say which is better or which passage is right.

    What is picked becomes training data: rag-ft generate SOURCE --from-feedback VOTES.
    """
    show_progress = begin(quiet)
    from rag_ft.errors import require_package

    for package in ("fastapi", "uvicorn"):
        require_package(package, "serve", "rag-ft ab")
    import secrets

    from rag_ft.ab.page import check_same_variants, create_ab_page
    from rag_ft.ab.page_access import AccessRules
    from rag_ft.ab.page_variants import build_page_variants
    from rag_ft.ab.vote_verdict import decide_from_votes
    from rag_ft.feedback.vote_log import Votes
    from rag_ft.generation.resolve_llm import resolve_llm
    from rag_ft.server.running import LOCAL_HOSTS, bound_socket, serve

    kept = Votes(votes)
    with _no_empty_file(votes):
        check_same_variants(kept, a, b)
        model = resolve_llm(llm, llm_url)
    with (
        _no_empty_file(votes),
        bound_socket(host, port) as listening,
    ):  # a port that is taken is found out before a model is loaded
        variants = build_page_variants(
            source_nodes(source, chunk_size, chunk_overlap),
            {"a": candidate_of(a, device, None), "b": candidate_of(b, device, None)},
            {"a": a, "b": b},
            chroma,
            llm=model,
            top_k=top_k,
            show_progress=show_progress,
        )
        token = secrets.token_urlsafe(24)
        local = host in LOCAL_HOSTS
        page = create_ab_page(
            *variants,
            kept,
            access=AccessRules(token=token, hosts=_names(host), local=local),
            blind=blind,
            timeout=120.0 if model else 30.0,  # an LLM on a CPU takes its time
            patience=60.0 if model else 15.0,
        )
        listening.listen()
        shown = f"[{host}]" if ":" in host else _reachable(host)
        address = f"http://{shown}:{listening.getsockname()[1]}/?token={token}"
        if not local:
            out.print(
                f"[yellow]{escape(host)} opens the page to other machines, unencrypted: whoever reads the address can "
                "ask about the documents and vote[/]",
                highlight=False,
            )
        out.print(
            f"open {address}\n(Ctrl-C ends it; votes are in {escape(str(votes))})", highlight=False, soft_wrap=True
        )
        serve(page, listening)
    tally = kept.tally()
    verdict, reason, _ = decide_from_votes(tally)
    out.print(f"\n{tally}\n{verdict}: {reason}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _no_empty_file(votes: Path) -> Iterator[None]:
    """A start that fails leaves no file behind in which nothing stands."""
    try:
        yield
    except BaseException:
        if votes.is_file() and not votes.stat().st_size:
            votes.unlink()
            votes.with_name(votes.name + ".lock").unlink(missing_ok=True)
        raise


def _names(host: str) -> list[str]:
    """Names by which other machines may reach the page."""
    import socket

    return [host, socket.gethostname(), socket.getfqdn()]


def _reachable(host: str) -> str:
    import socket

    return socket.gethostname() if host in ("0.0.0.0", "") else host
