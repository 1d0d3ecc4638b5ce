"""LLM responses from the OpenAI Batch API: half the price, within a day. A stopped run resumes its batches.

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
"""Limits of one batch; the API accepts 50,000 requests and 200 MB."""


def send_in_batches(
    llm: LLM,
    requests: Sequence[LLMRequest],
    journal: Journal,
    *,
    stop: threading.Event | None = None,
    show_progress: bool = False,
) -> LLMResponses:
    """Send requests through the Batch API, except those whose response is in the journal.

    The ids of the batches are stored beside the journal. A stopped run waits for the same batches again, so nothing is
    paid twice. Requests that failed, expired or have no usable response go into another batch, up to three in total.

    Args:
        llm: LlamaIndex's `OpenAI` or `OpenAILike`, whose model, key, address and settings are used.
        requests: the requests; those with the same key are sent once.
        journal: an open journal in a file.
        stop: another thread can set it to stop waiting. The batches keep running, and the next call resumes them.
        show_progress: show a progress bar.

    Raises:
        InputError: if the LLM is not OpenAI's, or the journal has no file.
        OutsideError: if the server rejects a batch or cannot be reached. Repeat the call to resume.
    """
    require_package("openai", "openai", "the Batch API")
    if journal.file is None:
        raise InputError("the Batch API needs a journal file, so that a stopped run can resume: set one")
    distinct = {request.key: request for request in requests}
    failures: dict[str, str] = {}
    settings = _settings(llm)

    def missing_requests(round_number: int) -> list[tuple[str, dict[str, Any]]]:
        missing = [request for key, request in distinct.items() if key not in journal.responses]
        prompts = {request.key: request.prompt + (REMINDER if round_number > 1 else "") for request in missing}
        return [
            (key, settings | {"messages": [{"role": "user", "content": prompt}]}) for key, prompt in prompts.items()
        ]

    def store(results: list[LineResult], round_number: int) -> None:
        read = [_read(result, distinct, failures, round_number >= MAX_PROMPTS) for result in results]
        new = dict(pair for pair in read if pair is not None and pair[0] not in journal.responses)
        journal.record(list(new.items()))

    job = BatchJob(_client(llm), journal.file, "/v1/chat/completions", stop, show_progress)
    sent = job.run(
        missing_requests, store, max_requests=MAX_REQUESTS, max_size=MAX_BYTES,
        size_of=lambda line: len(json.dumps(line, ensure_ascii=False).encode()) + 1,
    )  # fmt: skip
    responses = {key: journal.responses[key] for key in distinct if key in journal.responses}
    if distinct and not responses:
        reason = next(iter(failures.values()), "no response came back")
        raise OutsideError(f"all {len(distinct)} requests of the batch failed ({reason}): fix it and run again")
    return LLMResponses(responses, {key: reason for key, reason in failures.items() if key not in responses}, sent)


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
        # The requests have changed since this was sent. The response is paid for and may be needed again.
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
            f"--batch works with OpenAI's Batch API, not with {llm.class_name()}: use --llm openai:MODEL, or "
            "omit --batch"
        )
    try:
        return OpenAI(api_key=key or None, base_url=getattr(llm, "api_base", None), max_retries=5)
    except OpenAIError:
        raise InputError("--batch needs a key: set OPENAI_API_KEY in the environment") from None


def _settings(llm: LLM) -> dict[str, Any]:
    """Return the request parameters that the LlamaIndex LLM would send, without the messages."""
    model_kwargs = getattr(llm, "_get_model_kwargs", None)
    settings: dict[str, Any] = dict(model_kwargs()) if model_kwargs else {"model": llm.metadata.model_name}
    settings.pop("stream", None)
    return settings
