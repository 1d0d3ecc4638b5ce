"""Cheap embeddings."""

from __future__ import annotations

import time

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding


class Hashed(BaseEmbedding):
    """Makes cheap vectors that depend on the text only, and takes a little time."""

    @classmethod
    def class_name(cls) -> str:
        return "Hashed"

    def _get_text_embedding(self, text: str) -> list[float]:
        return np.random.default_rng(sum(map(ord, text))).normal(size=16).astype(np.float32).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        time.sleep(0.002 * len(texts))
        return [self._get_text_embedding(text) for text in texts]
