"""How many tokens of a passage are read: the model's own number, or more where questions ask for what stands behind."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_ft.dataset.inspection import content_words
from rag_ft.dataset.text.language import corpus_language
from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.loading import longest_input
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

BEHIND_THE_CUT = 1 / 8
"""Share of what questions ask for that may stand behind the last token that is read."""

LONGEST = 512
"""Tokens to which a passage is read at most, unless the model's own number is larger: cost grows faster than length."""

CHARACTERS = 20_000
"""Of a passage that are looked at."""


def fitting_max_length(model: SentenceTransformer, pairs: Sequence[tuple[str, str]], sample: int = 500) -> int:
    """The maximum length for these questions and passages: the model's own, or more where questions are about the rest.

    A passage that is cut does no harm where its questions are about what is read, and a model reads best, and several
    times as fast, at the length that it was trained on. But where questions ask for what is cut off, no loss function
    can win that back. So what counts is how much of the questions stands only behind the cut.

    Args:
        model: its tokenizer, own length and positions count.
        pairs: (question, passage that answers it as it is embedded).
        sample: how many of them are looked at.

    Returns:
        Tokens, a multiple of 64 where it is longer than the model's own; 0 where that has no bound.

    Example:
        >>> from rag_ft.embedding.loading import load_sentence_transformer
        >>> from rag_ft.training.max_length import fitting_max_length
        >>> model, passage = load_sentence_transformer("local"), "Leave is booked in HELM. " * 60 + "Ferries need T-9."
        >>> fitting_max_length(model, [("Where is leave booked?", passage)])
        256
        >>> fitting_max_length(model, [("Which form do ferries need?", passage)])
        448
    """
    own = token_limit(model)
    if not own:
        return 0
    longest = min(longest_input(model) or own, max(own, LONGEST))
    if longest <= own or not pairs:
        return own
    looked_at = pairs[:: -(-len(pairs) // sample)]
    passages = [passage[:CHARACTERS] for _, passage in looked_at]
    with quiet_libraries():  # it would warn of texts that are longer than it reads, which is what is asked here
        lengths = [len(ids) for ids in model.tokenizer(passages)["input_ids"]]
    if max(lengths) <= own:
        return own
    words = content_words(corpus_language(passages) or "en")
    behind = 0.0
    for (question, _), passage, length in zip(looked_at, passages, lengths, strict=True):
        read = passage[: len(passage) * own // length] if length > own else passage
        shared = words(question) & words(passage)
        # A question in words of its own may be about any part.
        behind += len(shared - words(read)) / len(shared) if shared else 1 - len(read) / max(1, len(passage))
    behind /= len(looked_at)
    needed = sorted(lengths)[int(len(lengths) * 0.9)]
    chosen = own if behind < BEHIND_THE_CUT else min(longest, -(-needed // 64) * 64)
    logger.info(
        "%.0f %% of what the questions ask for stands behind the first %d tokens of a passage: %d are read",
        100 * behind, own, chosen,
    )  # fmt: skip
    return chosen
