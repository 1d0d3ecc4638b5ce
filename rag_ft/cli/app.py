"""The application: its console, its log, and what a failure looks like."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

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
