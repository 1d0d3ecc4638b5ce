"""The two kinds of failure that a user can mend, and the exit code of each."""


class RagFtError(Exception):
    """One clear line: the thing, the value it had, and what to do next."""

    exit_code = 4


class InputError(RagFtError):
    """What was given is wrong: a missing folder, a broken file, an unknown name. Exit code 2."""

    exit_code = 2


class OutsideError(RagFtError):
    """Something outside failed: a server, an LLM, the disk. What was done is kept. Exit code 4."""

    exit_code = 4


class UnknownIdError(InputError):
    """A qrels line names a query or passage that is not there."""


def require_package(module: str, extra: str, purpose: str) -> None:
    """Raise an `InputError` that names the `pip install` where an optional package is missing."""
    import importlib.util

    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise InputError(f"{purpose} needs the package {module!r}: pip install 'rag-ft[{extra}]'")
