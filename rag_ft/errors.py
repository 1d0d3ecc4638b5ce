"""Errors that a user can fix, with their exit codes."""


class RagFtError(Exception):
    """Base class. The message is one line: what happened, the value, and what to do.

    Example:
        >>> from rag_ft import RagFtError, load_dataset
        >>> try:
        ...     load_dataset("no-folder")
        ... except RagFtError as error:
        ...     print(error.exit_code, error)
        2 no-folder does not exist: pass a dataset folder (corpus.jsonl, queries.jsonl, qrels/)
    """

    exit_code = 4


class InputError(RagFtError):
    """The input is wrong: a missing folder, a broken file, an unknown name. Exit code 2.

    Example:
        >>> from rag_ft.generation import Filters
        >>> Filters(depth=0)
        Traceback (most recent call last):
            ...
        rag_ft.errors.InputError: depth is 0: pass 1 or more
    """

    exit_code = 2


class OutsideError(RagFtError):
    """Something outside failed: a server, an LLM, the disk. Finished work is kept. Exit code 4.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import open_index
        >>> open_index(MockEmbedding(embed_dim=8), "http://127.0.0.1:9")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        rag_ft.errors.OutsideError: the Chroma server http://127.0.0.1:9 does not answer ...
    """

    exit_code = 4


class UnknownIdError(InputError):
    """A query, passage or document id does not exist."""


def without_secrets(text: str) -> str:
    """Return an error message without secrets: keys from the environment, and anything that looks like a key.

    Example:
        >>> from rag_ft.errors import without_secrets
        >>> without_secrets("Incorrect API key provided: sk-abcdef1234567890abcd at http://me:pass@host/v1?key=AIzaSy1")
        'Incorrect API key provided: *** at http://***@host/v1?key=***'
    """
    import os
    import re

    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"KEY|TOKEN|SECRET|PASSWORD", name, re.IGNORECASE):
            text = text.replace(value, "***")
    text = re.sub(r"://[^/@\s]+@", "://***@", text)
    text = re.sub(r"\b(?:sk|gsk|pk|hf|xai)[-_][\w*.-]{6,}", "***", text)
    named = r"(?i)\b(key|token|secret|password|authorization|bearer)((?: provided)?\s*[=:]\s*|\s+(?=\S*\d))"
    text = re.sub(named + r"[\"']?[^\s\"'&,)]+", r"\1\2***", text)
    # A long run of letters and digits is a key, not a word.
    return re.sub(r"(?<!\w)(?=\w*\d)(?=\w*[A-Za-z])\w{16,}", "***", text)


def first_line(error: BaseException, limit: int = 160) -> str:
    """Return the first line of an error's message, without secrets and without a final full stop.

    Args:
        error: any exception; its class name is used if the message is empty.
        limit: maximum number of characters.

    Example:
        >>> from rag_ft.errors import first_line
        >>> first_line(ValueError("no such model.\\nSee the docs.")), first_line(KeyError())
        ('no such model', 'KeyError')
    """
    message = str(error).strip() or type(error).__name__
    return without_secrets(message.splitlines()[0])[:limit].rstrip(".: ")


def require_package(module: str, extra: str, purpose: str) -> None:
    """Raise an `InputError` with the `pip install` command if an optional package is missing."""
    import importlib.util

    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise InputError(f"{purpose} needs the package {module!r}: pip install 'rag-ft[{extra}]'")
