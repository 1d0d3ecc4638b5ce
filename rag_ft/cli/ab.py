"""`rag-ft ab`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import ModelOptions, source_nodes
from rag_ft.errors import require_package

if TYPE_CHECKING:
    from rag_ft.feedback.vote_log import Votes


def ab(
    source: options.Source,
    a: options.VariantA,
    b: options.VariantB,
    blind: options.Blind = False,
    votes: options.VoteFile = Path("ab-votes.jsonl"),
    llm: options.AnswerLlm = "none",
    top_k: options.TopK = 10,
    chroma: options.PageChroma = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    chunk_size: options.ChunkSize = 256,
    chunk_overlap: options.ChunkOverlap = 0,
    llm_url: options.LlmUrl = None,
    port: options.Port = 8765,
    host: options.PageHost = "127.0.0.1",
) -> None:
    """Open a local web page that shows the results of two models side by side, and collect votes.

    Picked passages become training data: rag-ft generate SOURCE --from-feedback VOTES.
    """
    show_progress = begin(quiet)
    for package in ("fastapi", "uvicorn"):
        require_package(package, "serve", "rag-ft ab")
    import secrets

    from rag_ft.ab.page import check_same_variants, create_ab_page
    from rag_ft.ab.page_access import AccessRules
    from rag_ft.ab.page_variants import build_page_variants
    from rag_ft.feedback.vote_log import Votes
    from rag_ft.generation.resolve_llm import resolve_llm
    from rag_ft.server.running import LOCAL_HOSTS, bound_socket, serve

    vote_log = Votes(votes)
    with remove_empty_votes(votes):
        check_same_variants(vote_log, a, b)
        model = resolve_llm(llm, llm_url)
        with bound_socket(host, port) as listening:  # checks the port before loading a model
            models = ModelOptions(device=device)
            variants = build_page_variants(
                source_nodes(source, chunk_size, chunk_overlap),
                {"a": models.candidate(a), "b": models.candidate(b)}, {"a": a, "b": b}, chroma,
                llm=model, top_k=top_k, show_progress=show_progress,
            )  # fmt: skip
            access = AccessRules(token=secrets.token_urlsafe(24), hosts=host_names(host), local=host in LOCAL_HOSTS)
            timeout, patience = (120.0, 60.0) if model else (30.0, 15.0)  # an LLM on a CPU is slow
            page = create_ab_page(*variants, vote_log, access=access, blind=blind, timeout=timeout, patience=patience)
            listening.listen()
            show_address(host, f"{listening.getsockname()[1]}/?token={access.token}", access.local, votes)
            serve(page, listening)
    show_tally(vote_log)


def show_address(host: str, port_and_token: str, local: bool, votes: Path) -> None:
    """Print the address of the page, and warn if other machines can open it."""
    reachable = f"[{host}]" if ":" in host else socket.gethostname() if host in ("0.0.0.0", "") else host
    if not local:
        say(
            f"--host {host} opens the page to other machines, unencrypted: anyone who reads the address can query the "
            "documents and vote",
            style="yellow",
        )
    say(f"open http://{reachable}:{port_and_token}\n(stop with Ctrl-C; votes are saved in {votes})")


def show_tally(votes: Votes) -> None:
    """Print the tally of the votes and the verdict."""
    from rag_ft.ab.vote_verdict import decide_from_votes

    tally = votes.tally()
    verdict, reason, _ = decide_from_votes(tally)
    say(f"\n{tally}\n{verdict}: {reason}")


@contextmanager
def remove_empty_votes(votes: Path) -> Iterator[None]:
    """Remove an empty vote log that a failed start would leave behind."""
    try:
        yield
    except BaseException:
        if votes.is_file() and not votes.stat().st_size:
            votes.unlink()
            votes.with_name(votes.name + ".lock").unlink(missing_ok=True)
        raise


def host_names(host: str) -> list[str]:
    """Return the names by which other machines may reach the page."""
    return [host, socket.gethostname(), socket.getfqdn()]
