"""The server's interface to an embedding: texts of one role in, vectors and token counts out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.encoding import BATCH_TOKENS, GPU_BATCH_TOKENS, count_tokens, cut_to_readable, encode
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.identity import passage_vectors, query_vectors
from rag_ft.embedding.loading import model_folder, resolve_model
from rag_ft.embedding.precision import autocast
from rag_ft.server.protocol import Role

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray


SHORT_TEXT_TOKENS, SHORT_TEXT_BATCH_SIZE = 128, 8
"""On a CPU, texts of at most 128 tokens are encoded 8 at a time, sorted by length.

In one batch of many callers' queries, half would be padding: 64 queries took 542, 374, 297 and 265 ms in batches of 64,
32, 16 and 8.
"""


class EncodedTexts(NamedTuple):
    """The vectors of some texts.

    Attributes:
        vectors: shape (texts, dimension), float32.
        tokens: number of tokens that the model read from each text, prefix included.
    """

    vectors: NDArray[np.float32]
    tokens: list[int]


class ServedModel(Protocol):
    """The model interface that the server needs.

    Attributes:
        name: the name that callers use.
        dimension: numbers in a vector.
        dimensions: dimensions that callers may request, including the full one.
        max_length: number of tokens that it reads of a text; 0 if unknown.
        batch_tokens: number of tokens in a batch that suits the model.
    """

    name: str
    dimension: int
    dimensions: tuple[int, ...]
    max_length: int
    batch_tokens: int

    def encode(self, texts: list[str], role: Role) -> EncodedTexts:
        """Encode texts of one role."""

    def ready_to_encode(self) -> AbstractContextManager[Any]:
        """Return a context that the encoding thread keeps open."""


def served_model(embedding: BaseEmbedding, name: str | None = None, dimensions: Sequence[int] = ()) -> ServedModel:
    """Wrap an embedding for the server.

    Args:
        embedding: any LlamaIndex embedding; a `FineTunedEmbedding` is served fastest.
        name: the name that callers use; None uses the embedding's name.
        dimensions: dimensions that its vectors may be cut to, in addition to those in the model folder.
    """
    if isinstance(embedding, FineTunedEmbedding):
        return _ServedTransformer(embedding, name, dimensions)
    return _ServedEmbedding(embedding, name, dimensions)


class _ServedTransformer:
    """A SentenceTransformers model, served without LlamaIndex's lists of numbers."""

    def __init__(self, embedding: FineTunedEmbedding, name: str | None, dimensions: Sequence[int]) -> None:
        contract = embedding.contract
        self._embedding = embedding
        self._model = embedding.sentence_transformer
        self._prefixes: dict[Role, str] = {"query": contract.query_prefix, "passage": contract.passage_prefix}
        self.name = name or resolve_model(embedding.model_name)[1]
        self.dimension = contract.dimension
        self.dimensions = _dimensions(self.dimension, [*dimensions, *_trained_dimensions(embedding.model_name)])
        self.max_length = contract.max_length
        self.batch_tokens = BATCH_TOKENS.get(self._model.device.type, GPU_BATCH_TOKENS)

    def encode(self, texts: list[str], role: Role) -> EncodedTexts:
        with self._embedding._lock:  # an app in this process may use the same object
            tokens = self.count_tokens(texts, role)
            are_short = self._model.device.type == "cpu" and max(tokens) <= SHORT_TEXT_TOKENS
            vectors = encode(
                self._model,
                texts,
                "query" if role == "query" else "document",
                batch_size=self._embedding.encode_batch_size or (SHORT_TEXT_BATCH_SIZE if are_short else None),
                precision=self._embedding.precision,
                dimension=self._embedding.dimension,
            )
        return EncodedTexts(vectors, tokens)

    def count_tokens(self, texts: list[str], role: Role) -> list[int]:
        """Count the tokens that the model reads of each text, prefix included."""
        prefixed = [self._prefixes[role] + text for text in cut_to_readable(self._model, texts)]
        with self._embedding._lock:
            return count_tokens(self._model, prefixed)

    def ready_to_encode(self) -> AbstractContextManager[Any]:
        # Autocast keeps the cast weights until the outermost context ends, so that not every batch casts them again.
        return autocast(self._model.device.type, self._embedding.precision)


class _ServedEmbedding:
    """Any other LlamaIndex embedding, such as an adapter or one behind an API."""

    def __init__(self, embedding: BaseEmbedding, name: str | None, dimensions: Sequence[int]) -> None:
        self._embedding = embedding
        base = getattr(embedding, "embed_model", None)
        self._base = _ServedTransformer(base, name, ()) if isinstance(base, FineTunedEmbedding) else None
        self.name = name or Path(embedding.model_name).name
        self.dimension = len(embedding.get_query_embedding("one"))
        self.dimensions = _dimensions(self.dimension, dimensions)
        self.max_length = self._base.max_length if self._base is not None else 0
        self.batch_tokens = self._base.batch_tokens if self._base is not None else BATCH_TOKENS["cpu"]

    def encode(self, texts: list[str], role: Role) -> EncodedTexts:
        vectors = query_vectors if role == "query" else passage_vectors
        return EncodedTexts(
            np.asarray(vectors(self._embedding, texts), dtype=np.float32), self._count_tokens(texts, role)
        )

    def _count_tokens(self, texts: list[str], role: Role) -> list[int]:
        if self._base is not None:
            return self._base.count_tokens(texts, role)
        from llama_index.core.utils import get_tokenizer

        return [len(get_tokenizer()(text)) for text in texts]

    def ready_to_encode(self) -> AbstractContextManager[Any]:
        return self._base.ready_to_encode() if self._base is not None else nullcontext()


def _dimensions(full: int, shorter: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({full, *(dimension for dimension in shorter if 0 < dimension < full)}))


def _trained_dimensions(model: str) -> list[int]:
    """Read the dimensions that a model was trained for from its folder."""
    folder = model_folder(model)
    recipe = read_model_record(folder).get("recipe") if folder is not None else None
    dimensions = recipe.get("dimensions") if isinstance(recipe, dict) else None
    return [number for number in dimensions if isinstance(number, int)] if isinstance(dimensions, list) else []
