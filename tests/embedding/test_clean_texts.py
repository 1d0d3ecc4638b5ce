"""Every embedding of rag_ft takes texts with halves of surrogate pairs and null characters, as clean text."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from fakes.embeddings import Hashed
from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_ft import FineTunedEmbedding
from rag_ft.embedding import CachedEmbedding
from rag_ft.embedding.client import EmbeddingClient
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.request_sender import RequestPolicy

BROKEN, CLEAN = "The \ud835 valve\x00", "The \ufffd valve"


class Strict(Hashed):
    """Refuses half characters, as servers do."""

    def _get_text_embedding(self, text: str) -> list[float]:
        text.encode()
        return super()._get_text_embedding(text)


@pytest.fixture(params=["fine-tuned", "cached"])
def embedding(request: pytest.FixtureRequest, tmp_path: Path) -> BaseEmbedding:
    if request.param == "fine-tuned":
        return FineTunedEmbedding.load("local")
    return CachedEmbedding(Strict(model_name="strict"), cache=tmp_path / "vectors.sqlite")


def test_queries_and_passages_are_cleaned(embedding: BaseEmbedding) -> None:
    query, passage = embedding.get_query_embedding(CLEAN), embedding.get_text_embedding(CLEAN)
    queries = [
        embedding.get_query_embedding(BROKEN),
        asyncio.run(embedding.aget_query_embedding(BROKEN)),
        embedding.get_agg_embedding_from_queries([BROKEN]),
        *embedding.query_embeddings([BROKEN]),
    ]
    passages = [
        embedding.get_text_embedding(BROKEN),
        *embedding.get_text_embedding_batch([BROKEN]),
        *asyncio.run(embedding.aget_text_embedding_batch([BROKEN])),
    ]
    np.testing.assert_allclose(queries, [query] * len(queries), atol=1e-6)
    np.testing.assert_allclose(passages, [passage] * len(passages), atol=1e-6)


def test_the_client_and_the_encoder_clean_texts_too() -> None:
    client = EmbeddingClient(Strict(model_name="strict"), None, RequestPolicy())
    np.testing.assert_array_equal(*client.embed([BROKEN, CLEAN], "passage"))
    model = FineTunedEmbedding.load("local").sentence_transformer
    np.testing.assert_allclose(*encode(model, [BROKEN, CLEAN], "query"), atol=1e-6)
