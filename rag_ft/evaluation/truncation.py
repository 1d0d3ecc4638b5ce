"""How far a model reads into passages that are longer than its maximum length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_ft.dataset.qa_dataset import QADataset

BATCH_SIZE = 256
"""Number of passages to tokenise at once."""


def characters_read(model: BaseEmbedding | Any, texts: Mapping[str, str]) -> dict[str, int]:
    """Return how far a model reads into the passages that it truncates, by its own tokenizer.

    Args:
        model: a `FineTunedEmbedding`. The limit of another embedding is unknown, so none of its passages count as
            truncated.
        texts: passage id -> text as it is embedded.

    Returns:
        Id of each truncated passage -> number of characters that are read.

    Example:
        >>> from rag_ft import FineTunedEmbedding
        >>> from rag_ft.embedding import ModelSpec
        >>> from rag_ft.evaluation.truncation import characters_read
        >>> model = FineTunedEmbedding.load(ModelSpec(name="local", max_length=8))
        >>> characters_read(model, {"a": "Leave is booked in HELM, by noon of the day before.", "b": "Leave."})
        {'a': 24}
    """
    tokenizer = getattr(getattr(model, "sentence_transformer", None), "tokenizer", None)
    max_length = getattr(model, "max_length", None)
    if not max_length or not getattr(tokenizer, "is_fast", False):
        return {}
    prefix = getattr(model, "passage_prefix", None) or ""
    ends: dict[str, int] = {}
    keys = list(texts)
    for start in range(0, len(keys), BATCH_SIZE):
        batch = keys[start : start + BATCH_SIZE]
        encoded = tokenizer(  # type: ignore[misc]
            [prefix + texts[key] for key in batch], truncation=True, max_length=max_length, return_offsets_mapping=True
        )
        for key, offsets in zip(batch, encoded["offset_mapping"], strict=True):
            end = max(0, max((end for _, end in offsets), default=0) - len(prefix))
            if len(offsets) >= max_length and texts[key][end:].strip():
                ends[key] = end
    return ends


def min_characters_read(models: Iterable[object], dataset: QADataset, split: str) -> dict[str, int]:
    """Return `characters_read` of the model that reads least of each relevant passage of a split."""
    relevant = {passage for grades in dataset.require(split).values() for passage in grades}
    texts = {passage: text for passage, text in dataset.passage_texts.items() if passage in relevant}
    ends: dict[str, int] = {}
    for model in models:
        for passage, end in characters_read(getattr(model, "embed_model", model), texts).items():
            ends[passage] = min(end, ends.get(passage, end))
    return ends
