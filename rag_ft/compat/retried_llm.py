"""An LLM with a limited number of attempts per prompt."""

from __future__ import annotations

import threading
from typing import Any

from rag_ft.errors import RagFtError
from rag_ft.remote.retries import pause_before_next


class GaveUpError(RagFtError):
    """All attempts for a prompt failed. It is not sent again."""


class RetriedLLM:
    """Sends a prompt to an LLM until it responds, up to a maximum number of attempts.

    Args:
        llm: any LlamaIndex LLM.
        attempts: maximum number of attempts per prompt.
    """

    def __init__(self, llm: Any, attempts: int) -> None:
        self.llm, self.attempts = llm, attempts
        self.failed: dict[str, GaveUpError] = {}
        self.lock = threading.Lock()

    def complete(self, prompt: str) -> Any:
        """Return the response of the LLM, as `LLM.complete` does.

        Raises:
            GaveUpError: if all attempts failed. The same prompt then fails immediately.
        """
        from llama_index.core.base.llms.types import CompletionResponse
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        with self.lock:
            if prompt in self.failed:
                raise self.failed[prompt]
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=pause_before_next,
            retry=retry_if_exception_type(Exception),
            reraise=True,
        )
        try:
            return CompletionResponse(text=str(retrying(self.llm.complete, prompt)))
        except Exception as error:
            gave_up = GaveUpError(str(error) or type(error).__name__)
            with self.lock:
                self.failed[prompt] = gave_up
            raise gave_up from error
