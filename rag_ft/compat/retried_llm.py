"""An LLM that is asked as often as the caller said, and no more."""

from __future__ import annotations

import threading
from typing import Any

from rag_ft.errors import RagFtError
from rag_ft.remote.retries import pause_before_next


class GaveUpError(RagFtError):
    """An LLM failed as often as it may; nobody tries again."""


class RetriedLLM:
    """An LLM that is asked again when it fails, so often and no more."""

    def __init__(self, llm: Any, tries: int) -> None:
        self.llm, self.tries = llm, tries
        self.failed: dict[str, GaveUpError] = {}
        self.lock = threading.Lock()

    def complete(self, prompt: str) -> Any:
        """Its answer, by LlamaIndex's name of the method.

        Raises:
            GaveUpError: where it failed each time; the same prompt fails at once from then on.
        """
        from llama_index.core.base.llms.types import CompletionResponse
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        with self.lock:
            if prompt in self.failed:
                raise self.failed[prompt]
        retrying = Retrying(
            stop=stop_after_attempt(self.tries),
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
