"""Streamed answers: wait for the first word, read a stream to its end, or watch it for a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import chain, islice
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse


def start_stream(response: Any) -> Any:
    """Wait for the first word of a stream: an LLM that fails usually does so before it, while nobody reads yet."""
    if isinstance(response, StreamingResponse) and response.response_gen is not None:
        words = iter(response.response_gen)
        first = list(islice(words, 1))
        response.response_gen = (word for word in chain(first, words))
    return response


async def astart_stream(response: Any) -> Any:
    """Do what `start_stream` does, without blocking the event loop."""
    if isinstance(response, StreamingResponse):
        return await asyncio.to_thread(start_stream, response)
    if isinstance(response, AsyncStreamingResponse) and response.response_gen is not None:
        words = aiter(response.response_gen)
        try:
            first = [await anext(words)]
        except StopAsyncIteration:
            first = []
        response.response_gen = _achain(first, words)
    return response


def read_all(response: Any) -> Any:
    """Read a stream to its end; return any other response as it is."""
    return response.get_response() if isinstance(response, StreamingResponse) else response


async def aread_all(response: Any) -> Any:
    """Do what `read_all` does, without blocking the event loop."""
    if isinstance(response, StreamingResponse):
        return await asyncio.to_thread(response.get_response)
    return await response.get_response() if isinstance(response, AsyncStreamingResponse) else response


def watch_stream(response: Any, on_break: Callable[[Exception], None]) -> Any:
    """Call `on_break` with the error if the stream of a response breaks off; its reader gets the error too."""
    if isinstance(response, StreamingResponse):
        response.response_gen = _watch(response.response_gen, on_break)
    elif isinstance(response, AsyncStreamingResponse):
        response.response_gen = _awatch(response.response_gen, on_break)
    return response


async def _achain(first: list[str], rest: AsyncIterator[str]) -> Any:
    for word in first:
        yield word
    async for word in rest:
        yield word


def _watch(words: Any, on_break: Callable[[Exception], None]) -> Any:
    try:
        yield from words
    except Exception as error:
        on_break(error)
        raise


async def _awatch(words: Any, on_break: Callable[[Exception], None]) -> Any:
    try:
        async for word in words:
            yield word
    except Exception as error:
        on_break(error)
        raise
