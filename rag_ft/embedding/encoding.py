"""Texts to vectors, in bfloat16 where the processor computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.embedding.precision import autocast

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

CHARACTERS_PER_TOKEN = 40
"""A text is cut at this many characters for each token that the model reads, before it is tokenised: a
20 MB text would cost seconds, for tokens that are thrown away."""


def batch_size_for(device_type: str) -> int:
    """Texts in a forward pass: few on a CPU, whose caches hold their activations, many on a GPU.

    On two cores 1,000 abstracts of scifact took 24.6, 22.5, 24.6 and 25.4 s in batches of 8, 16, 32 and 64.
    """
    return 16 if device_type == "cpu" else 128


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    role: Literal["query", "document"],
    batch_size: int | None = None,
    precision: str = "auto",
    show_progress: bool = False,
    normalize: bool = True,
    dimension: int | None = None,
    processes: Any = None,
) -> NDArray[np.float32]:
    """Encode texts with the model's prompt for their role.

    Args:
        model: a model with its prompts set (see `load_sentence_transformer`).
        texts: queries or passages.
        role: which prompt goes before them.
        batch_size: texts in a forward pass; texts are sorted by length first. `batch_size_for` the device where None.
        precision: `auto`, `bf16` or `fp32`.
        show_progress: a progress bar.
        normalize: vectors of length 1.
        dimension: vectors are cut to this (Matryoshka) before they are normalised.
        processes: a pool that the model started (`start_multi_process_pool`); it encodes in float32.

    Returns:
        Vectors, shape (texts, dimension), float32.
    """
    if not texts:
        return np.zeros((0, dimension or model.get_embedding_dimension() or 0), dtype=np.float32)
    longest = CHARACTERS_PER_TOKEN * int(model.max_seq_length or 8192)
    with autocast(model.device.type, precision):
        vectors = model.encode(
            [text[:longest] for text in texts],
            prompt=model.prompts.get(role, ""),
            batch_size=batch_size or batch_size_for(model.device.type),
            show_progress_bar=show_progress,
            convert_to_tensor=True,
            pool=processes,
        )
    # Normalised after autocast: in bfloat16 the length would be off in the third digit.
    result = vectors.float().cpu().numpy()[:, :dimension]
    if normalize:
        result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(result)
