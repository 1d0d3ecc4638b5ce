"""An embedding as the server uses it: texts of one role to vectors and a count of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.encoding import (
    CHARACTERS_PER_TOKEN,
    TOKENS_AT_ONCE,
    TOKENS_AT_ONCE_ON_A_GPU,
    USUAL_CHARACTERS_PER_TOKEN,
    encode,
)
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.identity import passage_vectors, query_vectors
from rag_ft.embedding.loading import model_folder, resolve_model
from rag_ft.embedding.precision import autocast
from rag_ft.server.protocol import Role

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray


SHORT, TEXTS_ALIKE = 128, 8
"""Texts of so many tokens at most are encoded so many at once on a CPU, by length: in one batch of many callers'
questions, half would be padding. 64 questions took 542, 374, 297 and 265 ms in batches of 64, 32, 16 and 8."""


class Encoded(NamedTuple):
    """What became of some texts.

    Attributes:
        vectors: shape (texts, dimension), float32.
        tokens: that the model read of each text, its prefix included.
    """

    vectors: NDArray[np.float32]
    tokens: list[int]


class ServedModel(Protocol):
    """What the server needs of a model.

    Attributes:
        name: by which it is asked for.
        dimension: of its vectors.
        dimensions: that may be asked for, the full one among them.
        max_length: tokens that it reads of a text; 0 where it does not say.
        tokens_at_once: that it encodes well together.
    """

    name: str
    dimension: int
    dimensions: tuple[int, ...]
    max_length: int
    tokens_at_once: int

    def encode(self, texts: list[str], role: Role) -> Encoded:
        """Vectors of texts of one role."""

    def ready_to_encode(self) -> AbstractContextManager[Any]:
        """What the thread that encodes keeps open."""


def served_model(embedding: BaseEmbedding, name: str | None = None, dimensions: Sequence[int] = ()) -> ServedModel:
    """An embedding in the server's form.

    Args:
        embedding: any of LlamaIndex; a `FineTunedEmbedding` is served fastest.
        name: by which it is asked for; its own where None.
        dimensions: that its vectors may be cut to, beside those that the model folder names.
    """
    if isinstance(embedding, FineTunedEmbedding):
        return _ServedTransformer(embedding, name, dimensions)
    return _ServedEmbedding(embedding, name, dimensions)


class _ServedTransformer:
    """A SentenceTransformers model, without the lists of numbers that LlamaIndex hands around."""

    def __init__(self, embedding: FineTunedEmbedding, name: str | None, dimensions: Sequence[int]) -> None:
        contract = embedding.contract
        self._embedding = embedding
        self._model = embedding.sentence_transformer
        self._prefixes: dict[Role, str] = {"query": contract.query_prefix, "passage": contract.passage_prefix}
        self.name = name or resolve_model(embedding.model_name)[1]
        self.dimension = contract.dimension
        self.dimensions = _dimensions(self.dimension, [*dimensions, *_trained_dimensions(embedding.model_name)])
        self.max_length = contract.max_length
        self.tokens_at_once = TOKENS_AT_ONCE.get(self._model.device.type, TOKENS_AT_ONCE_ON_A_GPU)

    def encode(self, texts: list[str], role: Role) -> Encoded:
        with self._embedding._lock:  # an app in this process may use the same object
            tokens = self.count_tokens(texts, role)
            alike = self._model.device.type == "cpu" and max(tokens) <= SHORT
            vectors = encode(
                self._model,
                texts,
                "query" if role == "query" else "document",
                self._embedding.encode_batch_size or (TEXTS_ALIKE if alike else None),
                self._embedding.precision,
                dimension=self._embedding.dimension,
            )
        return Encoded(vectors, tokens)

    def count_tokens(self, texts: list[str], role: Role) -> list[int]:
        """How many tokens the model reads of each text, its prefix included."""
        reach = self.max_length
        prefixed = [self._prefixes[role] + text[: CHARACTERS_PER_TOKEN * reach] for text in texts]
        try:
            with self._embedding._lock:
                found = self._model.tokenizer(prefixed, truncation=True, max_length=reach)["input_ids"]
        except Exception:  # a tokenizer of an unusual kind
            return [min(len(text) // USUAL_CHARACTERS_PER_TOKEN + 2, reach) for text in prefixed]
        return [len(ids) for ids in found]

    def ready_to_encode(self) -> AbstractContextManager[Any]:
        # Autocast keeps the weights that it has cast until the outermost one ends: else each question casts them anew.
        return autocast(self._model.device.type, self._embedding.precision)


class _ServedEmbedding:
    """Any LlamaIndex embedding: an adapter, one behind an API."""

    def __init__(self, embedding: BaseEmbedding, name: str | None, dimensions: Sequence[int]) -> None:
        self._embedding = embedding
        below = getattr(embedding, "embed_model", None)
        self._below = _ServedTransformer(below, name, ()) if isinstance(below, FineTunedEmbedding) else None
        self.name = name or Path(embedding.model_name).name
        self.dimension = len(embedding.get_query_embedding("one"))
        self.dimensions = _dimensions(self.dimension, dimensions)
        self.max_length = self._below.max_length if self._below is not None else 0
        self.tokens_at_once = self._below.tokens_at_once if self._below is not None else TOKENS_AT_ONCE["cpu"]

    def encode(self, texts: list[str], role: Role) -> Encoded:
        vectors = query_vectors if role == "query" else passage_vectors
        return Encoded(np.asarray(vectors(self._embedding, texts), dtype=np.float32), self._count_tokens(texts, role))

    def _count_tokens(self, texts: list[str], role: Role) -> list[int]:
        if self._below is not None:
            return self._below.count_tokens(texts, role)
        from llama_index.core.utils import get_tokenizer

        return [len(get_tokenizer()(text)) for text in texts]

    def ready_to_encode(self) -> AbstractContextManager[Any]:
        return self._below.ready_to_encode() if self._below is not None else nullcontext()


def cut(vectors: NDArray[np.float32], dimension: int | None) -> NDArray[np.float32]:
    """Vectors on fewer numbers, of length 1 again; as they are where None or as many."""
    if dimension is None or dimension == vectors.shape[1]:
        return vectors
    shorter = vectors[:, :dimension]
    return shorter / np.maximum(np.linalg.norm(shorter, axis=1, keepdims=True), 1e-12)


def _dimensions(full: int, shorter: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({full, *(dimension for dimension in shorter if 0 < dimension < full)}))


def _trained_dimensions(model: str) -> list[int]:
    """What the model was trained to be cut to, as its folder says."""
    folder = model_folder(model)
    recipe = read_model_record(folder).get("recipe") if folder is not None else None
    found = recipe.get("dimensions") if isinstance(recipe, dict) else None
    return [each for each in found if isinstance(each, int)] if isinstance(found, list) else []
