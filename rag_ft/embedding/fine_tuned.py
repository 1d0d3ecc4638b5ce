"""A model folder as a LlamaIndex embedding that applies its query and passage prefixes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator

from rag_ft.embedding.contract import EmbeddingContract, read_model_record, weights_sha256
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer, resolve_model
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class FineTunedEmbedding(BaseEmbedding):
    """A SentenceTransformers model that carries its query and passage prefixes.

    Queries and passages are told apart by LlamaIndex itself; each gets its prefix. Works for tuned models
    and for base ones, whose prefixes come from a table of known families.

    Args:
        model_name: a model folder, a hub name, or `local`.
        query_prefix: put before a query; the model's own where None, an empty text counts.
        passage_prefix: put before a passage; the model's own where None, an empty text counts.
        max_length: tokens that are read of a text; the model's own where None.
        device: a torch device; the best there is where None.

    Raises:
        InputError: where the name or folder is wrong.
        OutsideError: where the hub cannot be reached.

    Example:
        >>> from llama_index.core import Settings
        >>> from rag_ft import FineTunedEmbedding
        >>> Settings.embed_model = FineTunedEmbedding.load("local")
        >>> len(Settings.embed_model.get_query_embedding("How do I claim expenses?"))
        384
    """

    query_prefix: str | None = Field(default=None, description="Put before a query; None: the model's own.")
    passage_prefix: str | None = Field(default=None, description="Put before a passage; None: the model's own.")
    max_length: int | None = Field(default=None, gt=0, description="Tokens read of a text; None: the model's own.")
    device: str | None = Field(default=None, description="A torch device; None: the best there is.")
    precision: str = Field(
        default="auto", pattern="^(auto|bf16|fp32)$", description="auto: bfloat16 where the processor computes it."
    )
    embed_batch_size: int = Field(
        default=2048, gt=0, le=2048, description="Texts handed over at once; they are sorted by length."
    )
    encode_batch_size: int = Field(default=32, gt=0, description="Texts in one forward pass.")
    weights_sha256: str | None = Field(
        default=None, description="SHA-256 of the weights that are expected; other weights are refused."
    )

    _model: Any = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @model_validator(mode="after")
    def _refuse_shared_cache(self) -> FineTunedEmbedding:
        if self.embeddings_cache is not None:
            raise InputError(
                "embeddings_cache mixes queries with passages and one model with another (its key is the text alone): "
                "leave it out"
            )
        return self

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "FineTunedEmbedding"

    @classmethod
    def load(cls, model: str | Path, **kwargs: Any) -> FineTunedEmbedding:
        """Load a model now, so that a wrong folder fails here and not at the first query.

        Args:
            model: a model folder, a hub name, or `local`.
            **kwargs: any field of the class.
        """
        embedding = cls(model_name=str(model), **kwargs)
        embedding.sentence_transformer  # noqa: B018
        return embedding

    @property
    def sentence_transformer(self) -> SentenceTransformer:
        """The model, loaded when first used."""
        with self._lock:
            if self._model is None:
                model = load_sentence_transformer(
                    self.model_name, self.query_prefix, self.passage_prefix, self.max_length, self.device
                )
                self.query_prefix, self.passage_prefix = model.prompts["query"], model.prompts["document"]
                self.max_length = int(model.max_seq_length or 0)
                self._check_weights()
                self._model = model
        return self._model

    def _check_weights(self) -> None:
        if self.weights_sha256 is None or not Path(resolve_model(self.model_name)[0]).is_dir():
            return
        found = weights_sha256(Path(resolve_model(self.model_name)[0]))
        if found != self.weights_sha256:
            raise InputError(
                f"{self.model_name} holds other weights ({found[:12]}) than were asked for "
                f"({self.weights_sha256[:12]}): load the model anew with FineTunedEmbedding.load and rebuild the index"
            )

    @property
    def contract(self) -> EmbeddingContract:
        """What the vectors depend on, for the index to keep beside them."""
        model = self.sentence_transformer
        path, called = resolve_model(self.model_name)
        folder = Path(path)
        record = read_model_record(folder) if folder.is_dir() else {}
        return EmbeddingContract(
            weights_sha256=weights_sha256(folder) if folder.is_dir() else "",
            base_model=str(record.get("base_model") or called),
            query_prefix=self.query_prefix or "",
            passage_prefix=self.passage_prefix or "",
            dimension=model.get_embedding_dimension() or 0,
            normalize=True,
            max_length=self.max_length or 0,
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain values, with the prefixes in force: what `from_dict` needs to embed in the same way."""
        self.sentence_transformer  # noqa: B018
        folder = Path(resolve_model(self.model_name)[0])
        if self.weights_sha256 is None and folder.is_dir():
            self.weights_sha256 = weights_sha256(folder)
        return super().to_dict(**kwargs)

    def _encode(self, texts: list[str], role: Any) -> list[list[float]]:
        model = self.sentence_transformer
        with self._lock:
            vectors = encode(model, texts, role, self.encode_batch_size, self.precision)
        return vectors.tolist()  # type: ignore[no-any-return]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encode([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encode([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encode(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def query_embeddings(self, queries: list[str]) -> list[list[float]]:
        """Embed many queries at once, each with the query prefix; shape (queries, dimension)."""
        return self._encode(queries, "query")
