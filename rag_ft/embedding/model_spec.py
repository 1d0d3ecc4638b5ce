"""Which model to load, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.embedding.loading import load_sentence_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The name of a model, with the settings that change how it reads a text.

    Attributes:
        name: a model folder, a hub name, or `local`.
        query_prefix: text put before each query; None uses the model's own, an empty text means no prefix.
        passage_prefix: text put before each passage; None uses the model's own, an empty text means no prefix.
        max_length: number of tokens the model reads of a text; None uses the model's own limit.
        device: a torch device; None picks the best one available.

    Example:
        >>> from rag_ft.embedding.model_spec import ModelSpec
        >>> model = ModelSpec(name="local", query_prefix="query: ", max_length=128).load()
        >>> model.prompts["query"], model.max_seq_length
        ('query: ', 128)
    """

    name: str | Path
    query_prefix: str | None = None
    passage_prefix: str | None = None
    max_length: int | None = None
    device: str | None = None

    @classmethod
    def of(cls, model: str | Path | ModelSpec) -> ModelSpec:
        """Return a spec unchanged, or make one from a name."""
        return model if isinstance(model, ModelSpec) else cls(name=model)

    def load(self) -> SentenceTransformer:
        """Load the model with its prefixes as the prompts "query" and "document".

        Raises:
            InputError: if the name, the folder, the device or the maximum length is wrong.
            OutsideError: if the hub cannot be reached or the model does not fit into memory.
        """
        return load_sentence_transformer(
            str(self.name), self.query_prefix, self.passage_prefix, self.max_length, self.device
        )
