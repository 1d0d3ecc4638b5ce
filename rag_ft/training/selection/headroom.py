"""How much a base model can still learn from generated questions, told by how well it does on them."""

from __future__ import annotations

LOW_BASE_NDCG, HIGH_BASE_NDCG = 0.70, 0.85
"""nDCG@10 of a base model on questions made of its passages: tuning pays up to the first, not from the second on.

Rules of thumb of practitioners' guides: leave recall over .85 alone (skillopedia.ai, "Embedding Fine-Tuning"), and
nDCG@10 over .80 too (nextgenailearn.com, lesson emb-03). Measured here: the collections that gained had .58 to .70, the
one that lost had .85."""


def headroom(base_ndcg: float) -> float:
    """Return the part of the tuned weights that a base model may take, from 0 to 1.

    Generated questions teach a model that does badly on a corpus, and harm one that does well. Dev questions that are
    generated the same way approve of both, so the base model's own score sets a limit.

    Args:
        base_ndcg: nDCG@10 of the base model on dev questions that were made without an LLM.

    Example:
        >>> from rag_ft.training.selection.headroom import headroom
        >>> headroom(0.6), round(headroom(0.8), 2), headroom(0.9)
        (1.0, 0.33, 0.0)
    """
    return min(1.0, max(0.0, (HIGH_BASE_NDCG - base_ndcg) / (HIGH_BASE_NDCG - LOW_BASE_NDCG)))
