"""Turn errors into one line on stderr and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any

from rag_ft.errors import InputError, OutsideError, RagFtError

NOT_SHIPPED = 3
INTERRUPTED = 130
INTERRUPTED_MESSAGE = "stopped: progress is saved; run the same command to resume"
DISK_FULL_MESSAGE = "no space left on the disk: progress is saved; free some space and run the same command to resume"
DISK_FULL_SIGNS = ("No space left on device", "disk is full")


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code. An error that a user can fix is printed as one line on stderr."""
    try:
        result = command()
    except RagFtError as error:
        return _fail(error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(INTERRUPTED_MESSAGE, INTERRUPTED)
    except SystemExit as error:
        result = error.code
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of Typer or click, depending on the version of Typer
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()  # type: ignore[attr-defined]
                return InputError.exit_code
            return _fail(error.format_message(), InputError.exit_code)
        if _is_disk_full(error):
            return _fail(DISK_FULL_MESSAGE, OutsideError.exit_code)
        if isinstance(error, PermissionError):
            return _fail(f"{error.filename} cannot be used ({error.strerror})", InputError.exit_code)
        raise
    if result == INTERRUPTED:  # Typer turns Ctrl-C into this code without a message
        return _fail(INTERRUPTED_MESSAGE, INTERRUPTED)
    return result if isinstance(result, int) else 0


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(sign in str(error) for sign in DISK_FULL_SIGNS)


def _fail(message: object, code: int) -> int:
    line = " ".join(str(message).split())
    sys.stderr.write(f"rag-ft: {line}\n")
    return code
