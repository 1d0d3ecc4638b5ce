"""Limits on the rate and the size of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from llama_index.core.rate_limiter import BaseRateLimiter

T = TypeVar("T")


def rate_limiter(requests_per_minute: float | None) -> BaseRateLimiter | None:
    """Return LlamaIndex's rate limiter for a number of requests per minute; None if it is None."""
    if requests_per_minute is None:
        return None
    from llama_index.core.rate_limiter import SlidingWindowRateLimiter

    return SlidingWindowRateLimiter(requests_per_minute=requests_per_minute)


def split_by_size(items: Iterable[T], size_of: Callable[[T], int], max_items: int, max_size: int) -> Iterator[list[T]]:
    """Split items into parts with a maximum number of items and a maximum total size.

    An item that exceeds the maximum size becomes a part by itself.

    Example:
        >>> from rag_ft.remote.pacing import split_by_size
        >>> list(split_by_size(["aa", "b", "c", "dddd"], len, max_items=2, max_size=3))
        [['aa', 'b'], ['c'], ['dddd']]
    """
    part: list[T] = []
    size = 0
    for item in items:
        length = size_of(item)
        if part and (len(part) == max_items or size + length > max_size):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
