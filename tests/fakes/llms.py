"""LLMs in this process whose responses follow from the prompt, and which remember their prompts."""

from __future__ import annotations

import json
import threading
from typing import Any

from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import CustomLLM

from rag_ft.errors import OutsideError
from rag_ft.files import sha256_of
from rag_ft.generation.prompts import STYLES


class FakeLLM(CustomLLM):
    """Responds by the prompt alone, remembers its prompts, and fails after a number of responses."""

    max_responses: int = 10**6
    model: str = "fake"
    _prompts: list[str] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model)

    @property
    def prompts(self) -> list[str]:
        return self._prompts

    def answer(self, prompt: str) -> str:
        with self._lock:
            if len(self._prompts) >= self.max_responses:
                raise OutsideError("the LLM has gone")
            self._prompts.append(prompt)
        return json.dumps({"questions": [f"Who signs {sha256_of(prompt)[:8]}?"]})

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.answer(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        yield self.complete(prompt)


class UnreachableLLM(FakeLLM):
    """An LLM whose server refuses every connection."""

    def answer(self, prompt: str) -> str:
        raise ConnectionError("connection refused\nby 127.0.0.1")


class FormQuestionLLM(FakeLLM):
    """Writes a question about the form in a passage, in each style of the prompt."""

    def answer(self, prompt: str) -> str:
        super().answer(prompt)
        inside = prompt.split("<passage>\n")[1].split("\n</passage>")[0]
        kind, number = inside.split("form for ")[1].split(" is signed")[0].split(" number ")
        kinds = [style for style in STYLES if f"- {style}:" in prompt.split("</passage>")[-1]]
        texts = {
            "question": f"Who puts a name under the {kind} form {number}?",
            "keywords": f"{kind} form {number} master",
            "situation": f"I hold the {kind} paper {number} and wonder how many months it is valid.",
            "reworded": f"Who must approve {kind} {number}?",
        }
        return json.dumps({"questions": [{"style": style, "question": texts[style]} for style in kinds]})
