"""Embeddings with OpenAI's protocol: those of OpenAI, of Azure, and of any compatible server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError, require_package

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from openai import OpenAI

OPENAI, AZURE = "openai", "azure"

TEXTS_PER_REQUEST = 100
"""Number of texts in a request. OpenAI accepts 2,048, but all texts of a failed request must be sent again."""


def is_openai_name(name: str) -> bool:
    """Return whether a name is `openai:MODEL` or `azure:DEPLOYMENT`.

    Example:
        >>> from rag_ft.embedding.openai_api import is_openai_name
        >>> is_openai_name("openai:text-embedding-3-small"), is_openai_name("local")
        (True, False)
    """
    return name.split(":")[0] in (OPENAI, AZURE) and ":" in name


def openai_embedding(name: str, url: str | None = None) -> BaseEmbedding:
    """Make LlamaIndex's embedding for a name, with the key from the environment.

    Args:
        name: `openai:MODEL` with `OPENAI_API_KEY`, or `azure:DEPLOYMENT` with `AZURE_OPENAI_ENDPOINT` and
            `AZURE_OPENAI_API_KEY` (and `OPENAI_API_VERSION` if the resource has no `/openai/v1`).
        url: address of a compatible server, instead of OpenAI's; `OPENAI_BASE_URL` if None. It may need no key.

    Raises:
        InputError: if the package or the key is missing.
    """
    require_package("llama_index.embeddings.openai", "openai", name)
    provider, _, model = name.partition(":")
    if not model:
        raise InputError(f"{name!r} has no model: use a name like openai:text-embedding-3-small")
    settings: dict[str, Any] = {"model_name": model, "embed_batch_size": TEXTS_PER_REQUEST}
    if provider == AZURE:
        return _azure(name, settings)
    from llama_index.embeddings.openai import OpenAIEmbedding

    address = url or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    key = os.environ.get("OPENAI_API_KEY")
    if not key and (address is None or "api.openai.com" in address):
        raise InputError(f"{name} needs a key: set OPENAI_API_KEY in the environment")
    return OpenAIEmbedding(**settings, api_key=key or "none", api_base=address)


def _azure(name: str, settings: dict[str, Any]) -> BaseEmbedding:
    """Make the embedding of an Azure deployment, with the v1 API or the version in `OPENAI_API_VERSION`."""
    endpoint, key = (os.environ.get(f"AZURE_OPENAI_{part}") for part in ("ENDPOINT", "API_KEY"))
    if not endpoint or not key:
        missing = "AZURE_OPENAI_API_KEY" if endpoint else "AZURE_OPENAI_ENDPOINT"
        raise InputError(f"{name} needs {missing} in the environment: set it and run again")
    endpoint = endpoint.rstrip("/")
    from llama_index.embeddings.openai import OpenAIEmbedding

    if not os.environ.get("OPENAI_API_VERSION"):
        return OpenAIEmbedding(**settings, api_key=key, api_base=f"{endpoint}/openai/v1")

    class AzureEmbedding(OpenAIEmbedding):
        """An embedding that sends requests to the deployment's address, with Azure's header for the key."""

        def _get_client(self) -> OpenAI:
            from openai import AzureOpenAI

            return AzureOpenAI(
                azure_endpoint=str(endpoint),
                azure_deployment=self.model_name,
                api_key=self.api_key,
                api_version=self.api_version,
                max_retries=self.max_retries,
                timeout=self.timeout,
            )

    version = os.environ["OPENAI_API_VERSION"]
    return AzureEmbedding(**settings, api_key=key, api_base=endpoint, api_version=version)
