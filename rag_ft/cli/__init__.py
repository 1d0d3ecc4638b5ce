"""The command line, with a thin function for each command.

`commands` assembles the application, `options` defines all arguments and options, `inputs` loads the documents,
questions and models that they name, and `exit_codes` turns errors into one line and an exit code. Commands import
heavy packages only when they run.
"""

from __future__ import annotations

import sys

from rag_ft.cli.commands import app
from rag_ft.cli.exit_codes import exit_code

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. An error that a user can fix is printed as one line on stderr."""
    sys.exit(exit_code(lambda: app(standalone_mode=False, prog_name="rag-ft")))
