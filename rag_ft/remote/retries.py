"""What becomes of a request that failed: another try after a pause, or one line on why there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rag_ft.errors import OutsideError, RagFtError

if TYPE_CHECKING:
    from tenacity import RetryCallState

ATTEMPTS, FIRST_ATTEMPTS, OVERLOADED_ATTEMPTS, UNKNOWN_ATTEMPTS = 6, 3, 8, 2
"""Tries of one request whose connection or server fails; fewer as long as no request has been answered, so that a
server that is down is told soon; more of one that says that it is overloaded; of one that fails in an unknown way."""

LONGEST_WAIT = 60.0
"""Seconds that a server's `Retry-After` is believed, and the longest pause without one."""

RETRYABLE = {408, 409, 425, 429}
"""HTTP statuses below 500 that another try can mend."""

OVERLOADED = {429, 503, 529}

TRANSPORT = {"openai", "anthropic", "httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp", "grpc", "ssl"}
"""Packages whose errors, where they have no HTTP status, are about the connection."""


def pause_before_next(state: RetryCallState) -> float:
    """Seconds until the next try: the server's `Retry-After`, else exponential back-off with jitter."""
    from tenacity import wait_random_exponential

    error = state.outcome.exception() if state.outcome else None
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        asked = float(headers.get("retry-after-ms", "")) / 1000
    except (TypeError, ValueError):
        asked = retry_after_seconds(headers.get("retry-after"))
    if asked > 0:
        return min(asked, LONGEST_WAIT)
    # The windows of rate limits are a minute long.
    first, longest = (2.0, LONGEST_WAIT) if error is not None and status_of(error) in OVERLOADED else (0.5, 20.0)
    return float(wait_random_exponential(multiplier=first, max=longest)(state))


def attempts_for(error: BaseException | None, answered: bool) -> int:
    """How often a request is tried in all.

    Args:
        error: of the last try.
        answered: whether the server has answered any request of this run.
    """
    if error is not None and status_of(error) in OVERLOADED:
        return OVERLOADED_ATTEMPTS
    if error is not None and status_of(error) is None and not is_connection_error(error):
        return UNKNOWN_ATTEMPTS
    return ATTEMPTS if answered else FIRST_ATTEMPTS


def is_connection_error(error: BaseException) -> bool:
    """Whether an error is about the way to the server; a body that was cut off is no JSON."""
    if isinstance(error, (OSError, TimeoutError, json.JSONDecodeError)):
        return True
    return any(kind.__module__.split(".")[0] in TRANSPORT for kind in type(error).__mro__)


def retry_after_seconds(value: str | None) -> float:
    """A `Retry-After` header in seconds: it is a number, or a date (RFC 9110, 10.2.3).

    Example:
        >>> from rag_ft.remote.retries import retry_after_seconds
        >>> retry_after_seconds("3"), retry_after_seconds("soon")
        (3.0, 0.0)
    """
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        return float(value or 0)
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(str(value)) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def is_retryable(error: BaseException) -> bool:
    """Whether another try may help."""
    if isinstance(error, RagFtError) or not isinstance(error, Exception):
        return False
    if getattr(error, "code", None) == "insufficient_quota":
        return False
    status = status_of(error)
    return status is None or status in RETRYABLE or status >= 500


def is_outage(error: BaseException) -> bool:
    """Whether an error says something about the server, and not about one text."""
    status = status_of(error)
    if status is None:
        return isinstance(error, OutsideError) or is_connection_error(error)
    return status not in (400, 413, 422)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error; None where it has none."""
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
