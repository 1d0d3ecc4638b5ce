"""Streamed answers: wait for the first token, read the whole stream, or report if it breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import chain, islice
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse


def start_stream(response: Any) -> Any:
    """Wait for the first token of a stream. Most LLM failures occur here, before any text was shown."""
    if isinstance(response, StreamingResponse) and response.response_gen is not None:
        tokens = iter(response.response_gen)
        first = list(islice(tokens, 1))
        response.response_gen = (token for token in chain(first, tokens))
    return response


async def astart_stream(response: Any) -> Any:
    """Do what `start_stream` does, without blocking the event loop."""
    if isinstance(response, StreamingResponse):
        return await asyncio.to_thread(start_stream, response)
    if isinstance(response, AsyncStreamingResponse) and response.response_gen is not None:
        tokens = aiter(response.response_gen)
        try:
            first = [await anext(tokens)]
        except StopAsyncIteration:
            first = []
        response.response_gen = _achain(first, tokens)
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
    """Call `on_break` with the error if the stream of a response breaks off. The reader still gets the error."""
    if isinstance(response, StreamingResponse):
        response.response_gen = _watch(response.response_gen, on_break)
    elif isinstance(response, AsyncStreamingResponse):
        response.response_gen = _awatch(response.response_gen, on_break)
    return response


async def _achain(first: list[str], following: AsyncIterator[str]) -> Any:
    for token in first:
        yield token
    async for token in following:
        yield token


def _watch(tokens: Any, on_break: Callable[[Exception], None]) -> Any:
    try:
        yield from tokens
    except Exception as error:
        on_break(error)
        raise


async def _awatch(tokens: Any, on_break: Callable[[Exception], None]) -> Any:
    try:
        async for token in tokens:
            yield token
    except Exception as error:
        on_break(error)
        raise
