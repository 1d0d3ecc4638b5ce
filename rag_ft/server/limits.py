"""What one caller may ask of the server, and what the server holds at most."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

from rag_ft.errors import InputError

REMEMBERED_CALLERS = 10_000


@dataclass(frozen=True)
class Limits:
    """What is refused, and with which status.

    Attributes:
        body_bytes: of a request; more is a 413.
        texts: in one call, as many as OpenAI takes; more is a 400.
        characters: of one text, 400; the model reads only the first of them anyway.
        queued_texts: that wait for the model, of all callers; 429 with Retry-After beyond.
        requests: under way at once; 429 beyond.
        requests_per_minute: of one caller, by address; None for no limit, 429 beyond.
        body_seconds: that a caller has to send a request, 408 beyond.
        wait_seconds: that an idle server waits for more texts to encode together.

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
                raise InputError(f"{field.name} is {value}: give more than 0")
        if self.queued_texts < self.texts:
            raise InputError(
                f"queued_texts is {self.queued_texts} and texts {self.texts}: a full call would never be taken"
            )


class RateLimit:
    """Requests a minute of each caller: a bucket that fills steadily and holds as many as one second and a half brings.

    Args:
        per_minute: requests; None for no limit.
        clock: seconds, for tests.

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
        """0 where a caller may go on, and the request is counted; else whole seconds until one may."""
        if self._per_second is None:
            return 0
        now = self._clock()
        full = max(2.0, math.ceil(self._per_second * self.BURST_SECONDS))
        left, since = self._callers.pop(caller, (full, now))
        left = min(full, left + (now - since) * self._per_second)
        allowed = left >= 1
        self._callers[caller] = (left - allowed, now)
        while len(self._callers) > REMEMBERED_CALLERS:
            self._callers.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - left) / self._per_second))
