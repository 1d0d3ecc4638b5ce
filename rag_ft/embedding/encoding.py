"""Encoding texts into vectors, in bfloat16 if the hardware supports it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.clean_text import clean_text
from rag_ft.embedding.device_memory import free_memory, is_out_of_memory
from rag_ft.embedding.precision import autocast
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Prompt = Literal["query", "document"]

MAX_CHARACTERS_PER_TOKEN = 40
"""A text is cut to this many characters per token that the model reads, before it is tokenised.

Tokenising a text of 20 MB would take seconds, and most of its tokens would be discarded.
"""

USUAL_CHARACTERS_PER_TOKEN = 4
"""Typical number of characters per token, for estimates."""

BATCH_TOKENS = {"cpu": 3_072, "mps": 8_192}
GPU_BATCH_TOKENS = 65_536
"""Maximum number of tokens in a forward pass, padding included.

On a CPU it is small, so that the caches hold the activations: on two cores 1,000 abstracts of scifact took 24.6, 22.5,
24.6 and 25.4 s in batches of 8, 16, 32 and 64 texts. On an Apple GPU an array can have 4 GiB at most, which the
attention of long texts reaches.
"""

MAX_BATCH_TEXTS = 256
DEFAULT_MAX_TOKENS = 8192
"""Maximum length to assume for a model that has none, in tokens."""


def batches_by_length(lengths: Sequence[int], max_tokens: int, batch_size: int | None = None) -> list[list[int]]:
    """Group texts of similar length into batches of their positions, longest first, to keep padding small.

    Args:
        lengths: number of tokens in each text.
        max_tokens: maximum number of tokens in a batch, padding included.
        batch_size: number of texts in a batch, instead of `max_tokens`.

    Example:
        >>> from rag_ft.embedding.encoding import batches_by_length
        >>> batches_by_length([3, 100, 4, 90], max_tokens=200)
        [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        longest = lengths[batches[-1][0]] if batches else 0
        size = batch_size or max(1, min(MAX_BATCH_TEXTS, max_tokens // max(1, longest)))
        if not batches or len(batches[-1]) >= size:
            batches.append([])
        batches[-1].append(position)
    return batches


def token_limit(model: SentenceTransformer) -> int:
    """Return the number of tokens that a model reads of a text; 0 if it is unlimited, as in static embeddings."""
    limit = model.max_seq_length
    return int(limit) if limit is not None and math.isfinite(limit) else 0


def cut_to_readable(model: SentenceTransformer, texts: Sequence[str]) -> list[str]:
    """Return clean texts, cut to the characters that a model can read at most (`MAX_CHARACTERS_PER_TOKEN`)."""
    limit = MAX_CHARACTERS_PER_TOKEN * (token_limit(model) or DEFAULT_MAX_TOKENS)
    return [clean_text(text[:limit]) for text in texts]


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    role: Prompt,
    *,
    batch_size: int | None = None,
    precision: str = "auto",
    dimension: int | None = None,
    show_progress: bool = False,
) -> NDArray[np.float32]:
    """Encode texts with the model's prompt for their role.

    Args:
        model: a model with its prompts set (see `load_sentence_transformer`).
        texts: queries or passages.
        role: the prompt that is put before each text.
        batch_size: number of texts in a forward pass; None fits as many as `BATCH_TOKENS` allows.
        precision: `auto`, `bf16` or `fp32`.
        dimension: cut the vectors to this many numbers (Matryoshka) before they are normalised.
        show_progress: show a progress bar.

    Returns:
        Vectors of length 1, shape (texts, dimension), float32.
    """
    if not texts:
        return np.zeros((0, dimension or model.get_embedding_dimension() or 0), dtype=np.float32)
    cut = cut_to_readable(model, texts)
    batches = batches_by_length(
        count_tokens(model, cut), BATCH_TOKENS.get(model.device.type, GPU_BATCH_TOKENS), batch_size
    )
    # One context for all batches, since autocast keeps the weights it has cast until the context ends.
    with autocast(model.device.type, precision):
        vectors = _encode_batches(model, cut, model.prompts.get(role, ""), batches, show_progress)
    return truncated(vectors, dimension)


def encode_in_processes(
    model: SentenceTransformer,
    texts: Sequence[str],
    role: Prompt,
    *,
    processes: Any,
    batch_size: int | None = None,
    dimension: int | None = None,
) -> NDArray[np.float32]:
    """Encode texts as `encode` does, in a pool of processes and in float32.

    Args:
        model: a model with its prompts set (see `load_sentence_transformer`).
        texts: queries or passages.
        role: the prompt that is put before each text.
        processes: the pool (`model.start_multi_process_pool`).
        batch_size: number of texts in a forward pass; 32 if None.
        dimension: cut the vectors to this many numbers (Matryoshka) before they are normalised.
    """
    vectors = model.encode(
        cut_to_readable(model, texts),
        prompt=model.prompts.get(role, ""),
        batch_size=batch_size or 32,
        convert_to_tensor=True,
        pool=processes,
    )
    return truncated(vectors.float().cpu().numpy(), dimension)


def truncated(vectors: NDArray[np.float32], dimension: int | None = None) -> NDArray[np.float32]:
    """Cut vectors to their first numbers (Matryoshka) and scale them to length 1.

    Call it outside autocast: in bfloat16 the length would be off in the third digit.

    Args:
        vectors: shape (texts, full dimension).
        dimension: numbers to keep; all if None.

    Example:
        >>> import numpy as np
        >>> from rag_ft.embedding.encoding import truncated
        >>> truncated(np.array([[3.0, 4.0, 12.0]], dtype=np.float32), 2).round(1).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    cut = np.array(vectors[:, :dimension])
    cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return cut


def _encode_batches(
    model: SentenceTransformer, texts: list[str], prompt: str, batches: list[list[int]], show_progress: bool
) -> NDArray[np.float32]:
    """Encode batches one by one; if memory runs out, halve the batches that remain."""
    from tqdm.auto import tqdm

    remaining = batches[::-1]
    vectors: NDArray[np.float32] | None = None
    with tqdm(total=len(texts), desc="embedding", unit="text", disable=not show_progress, dynamic_ncols=True) as bar:
        while remaining:
            positions = remaining.pop()
            encoded = _encode_batch(model, [texts[position] for position in positions], prompt)
            if encoded is None:
                free_memory()
                logger.warning("out of memory with a batch of %d texts: continuing with half as many", len(positions))
                halves = ((batch[len(batch) // 2 :], batch[: len(batch) // 2]) for batch in (*remaining, positions))
                remaining = [half for pair in halves for half in pair if half]
                continue
            if vectors is None:
                vectors = np.empty((len(texts), encoded.shape[1]), dtype=np.float32)
            vectors[positions] = encoded.float().cpu().numpy()
            bar.update(len(positions))
    assert vectors is not None
    return vectors


def _encode_batch(model: SentenceTransformer, texts: list[str], prompt: str) -> torch.Tensor | None:
    """Encode one batch; None if it does not fit into memory."""
    try:
        vectors: torch.Tensor = model.encode(
            texts, prompt=prompt, batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True
        )
        return vectors
    except RuntimeError as error:
        if len(texts) == 1 or not is_out_of_memory(error):
            raise
        return None


def count_tokens(model: SentenceTransformer, texts: list[str]) -> list[int]:
    """Count the tokens that the model reads of each text; estimate them if its tokenizer has another interface."""
    limit = token_limit(model) or DEFAULT_MAX_TOKENS
    try:
        with quiet_libraries():
            tokenized = model.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
            return [min(len(ids), limit) for ids in tokenized]
    except Exception:
        return [min(len(text) // USUAL_CHARACTERS_PER_TOKEN + 2, limit) for text in texts]
