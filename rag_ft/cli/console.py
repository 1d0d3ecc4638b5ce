"""The console and the log of a command."""

from __future__ import annotations

import logging
import os

from rich.console import Console
from rich.logging import RichHandler

out = Console()


def say(text: object, style: str | None = None) -> None:
    """Print a text without markup and without wrapping lines."""
    out.print(str(text), style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def begin(quiet: bool) -> bool:
    """Set up logging, and return whether to show progress."""
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
