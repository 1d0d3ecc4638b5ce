"""Answers that come word by word: begun before they count as an answer, read whole where two stand side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain, islice
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse


def begun(response: Any) -> Any:
    """A response whose first word is there: an LLM that fails does so before anybody reads."""
    if isinstance(response, StreamingResponse) and response.response_gen is not None:
        words = iter(response.response_gen)
        response.response_gen = _chained(list(islice(words, 1)), words)
    return response


async def abegun(response: Any) -> Any:
    """The same, asynchronously."""
    if isinstance(response, StreamingResponse):
        return await asyncio.to_thread(begun, response)
    if isinstance(response, AsyncStreamingResponse) and response.response_gen is not None:
        words = aiter(response.response_gen)
        first = [word async for word in _first(words)]
        response.response_gen = _achained(first, words)
    return response


def whole(response: Any) -> Any:
    """A response that is read to its end."""
    return response.get_response() if isinstance(response, StreamingResponse) else response


async def awhole(response: Any) -> Any:
    """The same, asynchronously."""
    if isinstance(response, StreamingResponse):
        return await asyncio.to_thread(response.get_response)
    return await response.get_response() if isinstance(response, AsyncStreamingResponse) else response


def watched(response: Any, broke: Callable[[Exception], None]) -> Any:
    """A response that tells where its stream breaks off, and breaks off."""
    if isinstance(response, StreamingResponse):
        response.response_gen = _told(response.response_gen, broke)
    elif isinstance(response, AsyncStreamingResponse):
        response.response_gen = _atold(response.response_gen, broke)
    return response


def _chained(first: list[str], rest: Iterator[str]) -> Any:
    yield from chain(first, rest)


async def _first(words: AsyncIterator[str]) -> AsyncIterator[str]:
    with_end = object()
    word = await anext(words, with_end)
    if word is not with_end:
        yield word  # type: ignore[misc]


async def _achained(first: list[str], rest: AsyncIterator[str]) -> Any:
    for word in first:
        yield word
    async for word in rest:
        yield word


def _told(words: Any, broke: Callable[[Exception], None]) -> Any:
    try:
        yield from words
    except Exception as error:
        broke(error)
        raise


async def _atold(words: Any, broke: Callable[[Exception], None]) -> Any:
    try:
        async for word in words:
            yield word
    except Exception as error:
        broke(error)
        raise
