"""The embeddings server in a thread, for its tests and for those that need somebody who speaks OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.embedding.saving import save_model
from rag_ft.server.app import create_app
from rag_ft.server.running import served_in_thread


@contextmanager
def embeddings_server(model: BaseEmbedding | str | Path = "local", **settings: Any) -> Iterator[str]:
    """Serve a model until the block ends; its address, which ends in /v1.

    Args:
        model: an embedding, a folder, or `local`.
        **settings: of `create_app`: `name`, `api_key`, `limits`, `dimensions`.
    """
    with served_in_thread(create_app(model, **settings)) as address:
        yield address


def prefixed_model(folder: Path) -> Path:
    """A model folder with both prefixes, trained (so it says) to be cut to 64 and 128 numbers."""
    model = load_sentence_transformer("local", query_prefix="question: ", passage_prefix="passage: ")
    save_model(model, folder, "local", {"recipe": {"dimensions": [64, 128]}})
    return folder
