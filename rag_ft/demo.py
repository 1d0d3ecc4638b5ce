"""The documents of the demo, in the installed package or in the examples of a checkout."""

from __future__ import annotations

from pathlib import Path

from rag_ft.errors import InputError


def acme_folder() -> Path:
    """Return the folder with the policies of the fictional company Acme Tidal Works and questions about them.

    Raises:
        InputError: if the folder is missing.
    """
    package = Path(__file__).parent
    for folder in (package / "acme_policies", package.parent / "examples" / "acme_policies"):
        if (folder / "questions.jsonl").is_file():
            return folder
    raise InputError("the documents of the demo are missing: reinstall rag_ft")
