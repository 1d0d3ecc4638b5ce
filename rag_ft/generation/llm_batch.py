"""Responses of an LLM from the OpenAI Batch API: half the price, within a day, and a restart resumes what was sent.

Source: the Batch API reference, platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError, OutsideError, require_package
from rag_ft.generation.journal import Journal
from rag_ft.generation.llm_calls import MAX_PROMPTS, LLMRequest, LLMResponses, NoUsableResponseError
from rag_ft.generation.prompts import REMINDER
from rag_ft.generation.responses import is_json
from rag_ft.remote.openai_batch import BatchJob, LineResult

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

MAX_REQUESTS, MAX_BYTES = 50_000, 190_000_000
"""Limits of one batch; the API takes 50,000 requests and 200 MB."""


def send_in_batches(
    llm: LLM,
    requests: Sequence[LLMRequest],
    journal: Journal,
    *,
    stop: threading.Event | None = None,
    show_progress: bool = False,
) -> LLMResponses:
    """Send requests through the Batch API, except those whose response is in the journal.

    The ids of the batches are noted beside the journal: a run that was stopped waits for its batches again and pays
    for nothing twice. Lines that failed, expired or have no usable response go into a further batch, up to three
    times in all.

    Args:
        llm: LlamaIndex's `OpenAI` or `OpenAILike`, whose model, key, address and settings are used.
        requests: the requests; those with the same key are sent once.
        journal: an open journal in a file.
        stop: another thread sets it to end the waiting; the batches run on, and the next call resumes them.
        show_progress: show a progress bar.

    Raises:
        InputError: if the LLM is not OpenAI's, or the journal has no file.
        OutsideError: if the server refuses a batch or cannot be reached; the same call resumes.
    """
    require_package("openai", "openai", "the Batch API")
    if journal.file is None:
        raise InputError("the Batch API needs a journal in a file: a batch may take a day, and a stopped run goes on")
    distinct = {request.key: request for request in requests}
    failures: dict[str, str] = {}
    settings = _settings(llm)

    def missing(round_number: int) -> list[tuple[str, dict[str, Any]]]:
        left = [request for key, request in distinct.items() if key not in journal.responses]
        prompts = {request.key: request.prompt + (REMINDER if round_number > 1 else "") for request in left}
        return [
            (key, settings | {"messages": [{"role": "user", "content": prompt}]}) for key, prompt in prompts.items()
        ]

    def store(results: list[LineResult], round_number: int) -> None:
        read = [_read(result, distinct, failures, round_number >= MAX_PROMPTS) for result in results]
        new = dict(found for found in read if found is not None and found[0] not in journal.responses)
        journal.record(list(new.items()))

    job = BatchJob(_client(llm), journal.file, "/v1/chat/completions", stop, show_progress)
    sent = job.run(
        missing, store, max_requests=MAX_REQUESTS, max_size=MAX_BYTES,
        size_of=lambda line: len(json.dumps(line, ensure_ascii=False).encode()) + 1,
    )  # fmt: skip
    found = {key: journal.responses[key] for key in distinct if key in journal.responses}
    if distinct and not found:
        reason = next(iter(failures.values()), "no line came back")
        raise OutsideError(f"all {len(distinct)} lines of the batch failed ({reason}): fix it and run again")
    return LLMResponses(found, {key: reason for key, reason in failures.items() if key not in found}, sent)


def _read(
    result: LineResult, requests: dict[str, LLMRequest], failures: dict[str, str], lenient: bool
) -> tuple[str, str] | None:
    """Return the (key, response) of a result; a result without a usable response becomes a failure."""
    request = requests.get(result.custom_id)
    try:
        response = result.body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        response = None
    if request is None:
        # The plan has changed since this was sent. It is paid for and may be needed again.
        return (result.custom_id, response) if isinstance(response, str) and is_json(response) else None
    if not isinstance(response, str):
        failures[request.key] = f"the LLM failed: {result.reason}"
        return None
    if request.is_valid(response) or (lenient and request.is_usable(response)):
        return request.key, response
    failures[request.key] = str(NoUsableResponseError(response))
    return None


def _client(llm: LLM) -> OpenAI:
    from openai import OpenAI, OpenAIError

    key = getattr(llm, "api_key", None)
    if key is None or "openai" not in type(llm).__module__ or "azure" in type(llm).__module__:
        raise InputError(
            f"--batch works with OpenAI's Batch API, not with {llm.class_name()}: give --llm openai:MODEL, or leave "
            "--batch out"
        )
    try:
        return OpenAI(api_key=key or None, base_url=getattr(llm, "api_base", None), max_retries=5)
    except OpenAIError:
        raise InputError("--batch needs a key: set OPENAI_API_KEY in the environment") from None


def _settings(llm: LLM) -> dict[str, Any]:
    """Return what LlamaIndex's LLM would send beside the messages."""
    own = getattr(llm, "_get_model_kwargs", None)
    settings: dict[str, Any] = dict(own()) if own else {"model": llm.metadata.model_name}
    settings.pop("stream", None)
    return settings
