"""Prompts -> answers through the OpenAI Batch API: half the price, within a day, and a restart goes on with it.

Source: the Batch API reference, platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError, OutsideError, require_package, without_secrets
from rag_ft.generation.journal import Journal
from rag_ft.generation.llm_calls import ASKED, Answers, Call, NoUsableAnswerError
from rag_ft.generation.prompts import REMINDER, is_json
from rag_ft.remote.openai_batch import BatchJob, Line

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

logger = logging.getLogger(__name__)

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""Of one batch; the API takes 50,000 requests and 200 MB."""

ROUNDS = 3
"""Failed lines are sent again in a further batch, so often in all."""


def answer_in_batches(
    llm: LLM,
    calls: Sequence[Call],
    journal: Journal,
    *,
    stop: threading.Event | None = None,
    poll_seconds: float | None = None,
    show_progress: bool = False,
) -> Answers:
    """Answer calls through the Batch API, those in the journal from there.

    Each batch bears the name of this journal's job and is written down beside the journal as soon as the server has
    given it an id: a run that was stopped goes on waiting for it and pays nothing twice. Lines that failed, that
    expired, or whose answer is not what was asked for go into a further batch, three times in all.

    Args:
        llm: LlamaIndex's `OpenAI` or `OpenAILike`: its model, key, address and settings are used.
        calls: what to ask; calls with one key are asked once.
        journal: open, and in a file.
        stop: set by another thread, it ends the waiting; the batches run on, and the next call goes on with them.
        poll_seconds: between two looks at a batch; 5, growing to 60, where None.
        show_progress: a progress bar.

    Raises:
        InputError: where the LLM is not OpenAI's, or the journal has no file.
        OutsideError: where the server refuses a batch or cannot be reached; the same call goes on.
    """
    require_package("openai", "openai", "the Batch API")
    if journal.file is None:
        raise InputError("the Batch API needs a journal in a file: a batch may take a day, and a stopped run goes on")
    distinct = {call.key: call for call in calls}
    result = Answers()
    job = BatchJob(_client(llm), journal.file, "/v1/chat/completions", stop or threading.Event())
    settings = _settings(llm)

    def collect(lenient: bool) -> None:
        for lines in job.results(poll_seconds, show_progress):
            taken = [found for line in lines if (found := _taken(line, distinct, result.failures, lenient))]
            journal.record([(key, answer) for key, answer in dict(taken).items() if key not in journal.responses])

    # What an earlier run has sent is waited for before anything is sent again.
    collect(lenient=False)
    for turn in range(ROUNDS):
        left = [call for key, call in distinct.items() if key not in journal.responses]
        if not left:
            break
        if turn:
            logger.info("batch: %d lines failed and are sent again", len(left))
        for part in _parts(left, settings, again=turn > 0):
            job.send(part)
            result.requests += len(part)
        collect(lenient=turn + 1 >= ASKED)
    result.answers = {key: journal.responses[key] for key in distinct if key in journal.responses}
    result.failures = {key: reason for key, reason in result.failures.items() if key not in result.answers}
    if distinct and not result.answers:
        reason = next(iter(result.failures.values()), "no line came back")
        raise OutsideError(f"all {len(distinct)} lines of the batch failed ({reason}): mend it and run again")
    return result


def _parts(calls: Sequence[Call], settings: dict[str, Any], again: bool) -> Iterator[list[Line]]:
    """The lines of the request files: each within the limits of one batch."""
    part: list[Line] = []
    size = 0
    for call in calls:
        prompt = call.prompt + (REMINDER if again else "")
        line = {
            "custom_id": call.key,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": settings | {"messages": [{"role": "user", "content": prompt}]},
        }
        length = len(json.dumps(line, ensure_ascii=False).encode()) + 1
        if part and (len(part) == MOST_REQUESTS or size + length > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += length
    if part:
        yield part


def _taken(line: Line, calls: dict[str, Call], failures: dict[str, str], lenient: bool) -> tuple[str, str] | None:
    """(key, answer) of one line of a result file; a line without a usable answer is put among the failures."""
    key = str(line.get("custom_id"))
    call = calls.get(key)
    response = line.get("response") or {}
    body = response.get("body") or {}
    try:
        answer = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        answer = None
    if call is None:
        # Of a plan that has changed since, and is paid for: it is kept, and may be wanted again.
        return (key, answer) if isinstance(answer, str) and is_json(answer) else None
    if not isinstance(answer, str):
        error = line.get("error") or (body.get("error") if isinstance(body, dict) else None) or {}
        reason = error.get("message") or error.get("code") or f"status {response.get('status_code')}"
        failures[call.key] = f"the LLM failed: {without_secrets(str(reason))[:120]}"
        return None
    if call.strict(answer) or (lenient and call.lenient(answer)):
        return call.key, answer
    failures[call.key] = str(NoUsableAnswerError(answer))
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
    """What LlamaIndex's LLM would send beside the messages."""
    own = getattr(llm, "_get_model_kwargs", None)
    settings: dict[str, Any] = dict(own()) if own else {"model": llm.metadata.model_name}
    settings.pop("stream", None)
    return settings
