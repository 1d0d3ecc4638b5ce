"""The command line: one thin function for each command.

`commands` puts them together, `options` holds every argument and option, `inputs` turns what they name into documents,
questions and models, and `exit_codes` turns errors into one line and an exit code. Nothing heavy is imported before a
command runs.
"""

from __future__ import annotations

import sys

from rag_ft.cli.commands import app
from rag_ft.cli.exit_codes import exit_code

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error that a user can fix is one line on stderr."""
    sys.exit(exit_code(lambda: app(standalone_mode=False, prog_name="rag-ft")))
