"""Limits on requests, and the rate limit of each caller."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

from rag_ft.errors import InputError

MAX_CALLERS = 10_000
"""Number of callers whose rate is tracked."""


@dataclass(frozen=True)
class Limits:
    """Maximum sizes and rates, each with the status of a request that exceeds it.

    Attributes:
        body_bytes: size of a request's body (413).
        texts: number of texts in one request (400); the default is OpenAI's limit.
        characters: number of characters in one text (400); the model reads only the first part of such a text.
        queued_texts: number of texts of all callers that wait for the model (429 with Retry-After).
        requests: number of requests in progress (429).
        requests_per_minute: requests per minute of one caller, by address (429); None sets no limit.
        body_seconds: seconds in which a caller must send the body (408).
        wait_seconds: seconds that an idle server waits for more texts to encode together.

    Example:
        >>> from rag_ft.server.limits import Limits
        >>> Limits(requests_per_minute=600).texts
        2048
    """

    body_bytes: int = 8 * 2**20
    texts: int = 2048
    characters: int = 200_000
    queued_texts: int = 8192
    requests: int = 512
    requests_per_minute: int | None = None
    body_seconds: float = 30.0
    wait_seconds: float = 0.002

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (value < 0 or (value == 0 and field.name != "wait_seconds")):
                raise InputError(f"{field.name} is {value}: choose more than 0")
        if self.queued_texts < self.texts:
            raise InputError(
                f"queued_texts is {self.queued_texts} and texts is {self.texts}: choose at least as many queued_texts"
            )


class RateLimit:
    """A limit on the requests per minute of each caller: a token bucket that holds the tokens of 1.5 seconds.

    Args:
        per_minute: number of requests per minute; None sets no limit.
        clock: returns the time in seconds; tests replace it.

    Example:
        >>> from rag_ft.server.limits import RateLimit
        >>> limit = RateLimit(60, clock=lambda: 0.0)
        >>> [limit.seconds_to_wait("10.0.0.7") for _ in range(3)]
        [0, 0, 1]
    """

    BURST_SECONDS = 1.5

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_wait(self, caller: str) -> int:
        """Return 0 and count the request if a caller may send it, otherwise the whole seconds until it may."""
        if self._per_second is None:
            return 0
        now = self._clock()
        capacity = max(2.0, math.ceil(self._per_second * self.BURST_SECONDS))
        tokens, since = self._callers.pop(caller, (capacity, now))
        tokens = min(capacity, tokens + (now - since) * self._per_second)
        allowed = tokens >= 1
        self._callers[caller] = (tokens - allowed, now)
        while len(self._callers) > MAX_CALLERS:
            self._callers.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - tokens) / self._per_second))
