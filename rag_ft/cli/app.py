"""The application: its console, its log, and what a failure looks like."""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from rag_ft.errors import InputError, OutsideError, RagFtError

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


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"rag-ft {importlib.metadata.version('rag-ft')}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Fine-tune the embedding model of a LlamaIndex application, and prove that retrieval got better."""


def begin(quiet: bool) -> bool:
    """Set logging up; whether progress is shown."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False, show_time=False)
    # Some libraries set their own loggers to DEBUG when they are imported.
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith("rag_ft"))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("rag_ft").setLevel(logging.WARNING if quiet else logging.INFO)

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    return not quiet


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command; what a user can mend is one line on stderr."""
    try:
        done = command()
    except RagFtError as error:
        return _fail(error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(STOPPED, INTERRUPTED)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Typer turns Ctrl-C into this, without a word
            return _fail(STOPPED, INTERRUPTED)
        return ended.code if isinstance(ended.code, int) else 0
    except Exception as error:
        if hasattr(error, "format_message"):  # an option that is wrong: typer's own, or click's, by its version
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()  # type: ignore[attr-defined]
                return InputError.exit_code
            return _fail(error.format_message(), InputError.exit_code)
        if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)) or any(
            sign in str(error) for sign in FULL
        ):
            return _fail(
                "no space left on the disk: free some and run again, what was done is kept", OutsideError.exit_code
            )
        if isinstance(error, PermissionError):
            return _fail(f"{error.filename} cannot be used ({error.strerror})", InputError.exit_code)
        raise
    if done == INTERRUPTED:
        return _fail(STOPPED, INTERRUPTED)
    return done if isinstance(done, int) else 0


def _fail(message: object, code: int) -> int:
    line = " ".join(str(message).split())
    sys.stderr.write(f"rag-ft: {line}\n")
    return code
