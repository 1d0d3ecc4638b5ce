"""An LLM with a fixed number of tries for each prompt."""

from __future__ import annotations

import threading
from typing import Any

from rag_ft.errors import RagFtError
from rag_ft.remote.retries import pause_before_next


class GaveUpError(RagFtError):
    """Every try of a prompt failed. It is not sent again."""


class RetriedLLM:
    """Sends a prompt to an LLM until it responds, a fixed number of times at most.

    Args:
        llm: any LlamaIndex LLM.
        tries: maximum number of tries of a prompt.
    """

    def __init__(self, llm: Any, tries: int) -> None:
        self.llm, self.tries = llm, tries
        self.failed: dict[str, GaveUpError] = {}
        self.lock = threading.Lock()

    def complete(self, prompt: str) -> Any:
        """Return the LLM's response. The method has LlamaIndex's name.

        Raises:
            GaveUpError: if every try failed; the same prompt then fails at once.
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
