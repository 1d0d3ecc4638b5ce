"""The command line: one thin function for each command."""

from __future__ import annotations

import sys

from rag_ft.cli.app import app, exit_code

# Each brings its commands, in the order in which they are shown.
# isort: off
from rag_ft.cli import run  # noqa: F401
from rag_ft.cli import dataset  # noqa: F401
from rag_ft.cli import training  # noqa: F401
from rag_ft.cli import index  # noqa: F401
from rag_ft.cli import compare  # noqa: F401
from rag_ft.cli import fuse  # noqa: F401
from rag_ft.cli import ab  # noqa: F401
from rag_ft.cli import serve  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error that a user can mend is one line on stderr."""
    sys.exit(exit_code(lambda: app(standalone_mode=False)))
