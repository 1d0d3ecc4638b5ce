"""Retries: whether a failed request is sent again, how often, and after what pause."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from rag_ft.errors import OutsideError, RagFtError

if TYPE_CHECKING:
    from tenacity import RetryCallState

ATTEMPTS, FIRST_ATTEMPTS, OVERLOADED_ATTEMPTS, UNKNOWN_ATTEMPTS = 6, 3, 8, 2
"""Maximum number of attempts per request if the connection or the server fails.

There are fewer until the server has responded once, so that a server that is down is reported soon. There are more if
the server is overloaded, and few if the kind of failure is unknown.
"""

MAX_WAIT = 60.0
"""Maximum number of seconds before the next attempt, even if `Retry-After` is longer."""

RETRYABLE = {408, 409, 425, 429}
"""HTTP statuses below 500 after which another attempt may succeed."""

OVERLOADED = {429, 503, 529}

TRANSPORT = {"openai", "anthropic", "httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp", "grpc", "ssl"}
"""Packages whose errors without an HTTP status are connection errors."""


def pause_before_next(state: RetryCallState) -> float:
    """Return the seconds until the next attempt: the server's `Retry-After`, or exponential back-off with jitter."""
    from tenacity import wait_random_exponential

    error = _error_of(state)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        seconds = float(headers.get("retry-after-ms", "")) / 1000
    except (TypeError, ValueError):
        seconds = retry_after_seconds(headers.get("retry-after"))
    if seconds > 0:
        return min(seconds, MAX_WAIT)
    # Rate limits usually count over a minute.
    first, longest = (2.0, MAX_WAIT) if error is not None and status_of(error) in OVERLOADED else (0.5, 20.0)
    return float(wait_random_exponential(multiplier=first, max=longest)(state))


def is_last_attempt(state: RetryCallState, responded: bool) -> bool:
    """Return whether a failed attempt was the last one.

    Args:
        state: tenacity's state of the request.
        responded: whether the server has responded to any request of this run.
    """
    error = _error_of(state)
    attempts = ATTEMPTS if responded else FIRST_ATTEMPTS
    if error is not None:
        status = status_of(error)
        if status in OVERLOADED:
            attempts = OVERLOADED_ATTEMPTS
        elif status is None and not is_connection_error(error):
            attempts = UNKNOWN_ATTEMPTS
    return state.attempt_number >= attempts


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def is_connection_error(error: BaseException) -> bool:
    """Return whether the connection failed. Invalid JSON counts too, since the body was cut off."""
    if isinstance(error, (OSError, TimeoutError, json.JSONDecodeError)):
        return True
    return any(kind.__module__.split(".")[0] in TRANSPORT for kind in type(error).__mro__)


def retry_after_seconds(value: str | None) -> float:
    """Read a `Retry-After` header, which is a number of seconds or a date (RFC 9110, 10.2.3).

    Example:
        >>> from rag_ft.remote.retries import retry_after_seconds
        >>> retry_after_seconds("3"), retry_after_seconds("soon")
        (3.0, 0.0)
    """
    try:
        return float(value or 0)
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(str(value)) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def is_retryable(error: BaseException) -> bool:
    """Return whether another attempt may succeed."""
    if isinstance(error, RagFtError) or not isinstance(error, Exception):
        return False
    if getattr(error, "code", None) == "insufficient_quota":
        return False
    status = status_of(error)
    return status is None or status in RETRYABLE or status >= 500


def is_outage(error: BaseException) -> bool:
    """Return whether an error is caused by the server, not by one text."""
    status = status_of(error)
    if status is None:
        return isinstance(error, OutsideError) or is_connection_error(error)
    return status not in (400, 413, 422)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error; None if it has none."""
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
