"""Resolve a name on the command line to a LlamaIndex LLM."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError, RagFtError, first_line

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

LOCAL = "local"
NONE = "none"


def resolve_llm(name: str, url: str | None = None, option: str = "--llm") -> LLM | None:
    """Return the LLM for a name; None for `none`.

    Args:
        name: `none`; `local` (SmolLM2) or `local:HUB_NAME`; or `PROVIDER:MODEL` with an installed
            `llama_index.llms` package, like `openai:gpt-4.1-mini`, `ollama:llama3.2`, `openai-like:MODEL`.
        url: the address of an OpenAI-compatible server, for `openai-like` and other providers that need one.
        option: the command-line option of the name, for error messages.

    Raises:
        InputError: if the name is invalid, its package is not installed, or its key is missing.
    """
    if name == NONE:
        return None
    provider, _, model = name.partition(":")
    if provider == LOCAL:
        from rag_ft.generation.local_llm import LocalLLM

        return LocalLLM(model_name=model)
    if not model:
        raise InputError(
            f"{option} {name!r} is not an LLM: use 'local', 'none' or PROVIDER:MODEL, like openai:gpt-4.1-mini"
        )
    module_name = f"llama_index.llms.{provider.replace('-', '_')}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        raise InputError(f"--llm {name!r} needs a package: pip install llama-index-llms-{provider}") from None
    class_name = provider.replace("-", "").replace("_", "").lower()
    llm_class = next((getattr(module, name) for name in dir(module) if name.lower() == class_name), None)
    if llm_class is None:
        raise InputError(f"--llm {name!r}: the package {module_name} has no such LLM")
    arguments: dict[str, Any] = {"model": model}
    if url:
        arguments["base_url" if provider == "ollama" else "api_base"] = url
    if provider == "openai-like":
        if not url:
            raise InputError("--llm openai-like:MODEL needs the server's address: --llm-url http://HOST:PORT/v1")
        arguments |= {"is_chat_model": True, "api_key": os.environ.get("OPENAI_API_KEY", "none")}
    if "max_retries" in getattr(llm_class, "model_fields", {}):
        arguments["max_retries"] = 0  # rag_ft retries, with the server's Retry-After and the rate limit
    if provider == "openai" and not os.environ.get("OPENAI_API_KEY"):
        raise InputError(f"--llm {name!r} needs a key: set OPENAI_API_KEY in the environment")
    try:
        return llm_class(**arguments)  # type: ignore[no-any-return]
    except RagFtError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"--llm {name!r} cannot be loaded ({reason}): check the model and its key in the environment"
        ) from error
