"""Texts to vectors, in bfloat16 where the processor computes it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.embedding.device_memory import free_memory, is_out_of_memory
from rag_ft.embedding.precision import autocast
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 40
"""A text is cut at this many characters for each token that the model reads, before it is tokenised: a
20 MB text would cost seconds, for tokens that are thrown away."""


USUAL_CHARACTERS_PER_TOKEN = 4
"""Of most texts, where tokens are not counted."""

TOKENS_AT_ONCE = {"cpu": 3_072, "mps": 8_192}
TOKENS_AT_ONCE_ON_A_GPU = 65_536
"""Tokens in a forward pass, padding included. On a CPU they are few, so that its caches hold their activations: on two
cores 1,000 abstracts of scifact took 24.6, 22.5, 24.6 and 25.4 s in batches of 8, 16, 32 and 64 texts. An array on an
Apple GPU has 4 GiB at most, and long texts' attention reaches that."""

MOST_TEXTS = 256


def batches_of(lengths: Sequence[int], tokens: int, size: int | None = None) -> list[list[int]]:
    """Places of texts in batches of like length, longest first, so that little is padded.

    Args:
        lengths: of each text, in tokens.
        tokens: in a batch at most, padding included.
        size: texts in a batch, in place of `tokens`.

    Example:
        >>> from rag_ft.embedding.encoding import batches_of
        >>> batches_of([3, 100, 4, 90], tokens=200)
        [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    found: list[list[int]] = []
    for place in order:
        longest = lengths[found[-1][0]] if found else 0
        most = size or max(1, min(MOST_TEXTS, tokens // max(1, longest)))
        if not found or len(found[-1]) >= most:
            found.append([])
        found[-1].append(place)
    return found


def token_limit(model: SentenceTransformer) -> int:
    """Tokens that a model reads of a text; 0 where it has no bound, as static embeddings have none."""
    limit = model.max_seq_length
    return int(limit) if limit is not None and math.isfinite(limit) else 0


def within_reach(model: SentenceTransformer, texts: Sequence[str]) -> list[str]:
    """Texts without what a model will not come to (`CHARACTERS_PER_TOKEN`)."""
    most = CHARACTERS_PER_TOKEN * (token_limit(model) or 8192)
    return [text[:most] for text in texts]


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
        batch_size: texts in a forward pass; as many as make `TOKENS_AT_ONCE` where None.
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
    reach = token_limit(model) or 8192
    cut = within_reach(model, texts)
    prompt = model.prompts.get(role, "")
    if processes is not None:
        vectors = model.encode(cut, prompt=prompt, batch_size=batch_size or 32, convert_to_tensor=True, pool=processes)
        result = vectors.float().cpu().numpy()
    else:
        result = _in_batches(model, cut, prompt, reach, batch_size, precision, show_progress)
    result = result[:, :dimension]
    # Normalised after autocast: in bfloat16 the length would be off in the third digit.
    if normalize:
        result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(result)


def _in_batches(
    model: SentenceTransformer,
    texts: list[str],
    prompt: str,
    reach: int,
    batch_size: int | None,
    precision: str,
    show_progress: bool,
) -> NDArray[np.float32]:
    from tqdm.auto import tqdm

    device = model.device.type
    budget = TOKENS_AT_ONCE.get(device, TOKENS_AT_ONCE_ON_A_GPU)
    waiting = batches_of(_token_counts(model, texts, reach), budget, batch_size)[::-1]
    result: NDArray[np.float32] | None = None
    # One context for all batches: autocast keeps the weights that it has cast until it ends.
    with (
        autocast(device, precision),
        tqdm(total=len(texts), desc="embedding", unit="text", disable=not show_progress, dynamic_ncols=True) as bar,
    ):
        while waiting:
            places = waiting.pop()
            vectors = _at_once(model, [texts[place] for place in places], prompt)
            if vectors is None:
                free_memory()
                logger.warning("out of memory with %d texts at once: going on with half as many", len(places))
                halves = ((each[len(each) // 2 :], each[: len(each) // 2]) for each in (*waiting, places))
                waiting = [half for pair in halves for half in pair if half]
                continue
            if result is None:
                result = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
            result[places] = vectors.float().cpu().numpy()
            bar.update(len(places))
    assert result is not None
    return result


def _at_once(model: SentenceTransformer, texts: list[str], prompt: str) -> torch.Tensor | None:
    """The vectors of a batch; None where the memory is too small for it."""
    try:
        vectors: torch.Tensor = model.encode(
            texts, prompt=prompt, batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True
        )
        return vectors
    except RuntimeError as error:
        if len(texts) == 1 or not is_out_of_memory(error):
            raise
        return None


def _token_counts(model: SentenceTransformer, texts: list[str], reach: int) -> list[int]:
    """How many tokens the model reads of each text; a guess by letters where it has no tokenizer of the usual kind."""
    try:
        with quiet_libraries():
            read = model.tokenizer(texts, truncation=True, max_length=reach)["input_ids"]
            return [min(len(ids), reach) for ids in read]
    except Exception:
        return [min(len(text) // 4 + 2, reach) for text in texts]
