"""How much a base model can still learn from generated questions, estimated from its own score on them."""

from __future__ import annotations

LOW_BASE_NDCG, HIGH_BASE_NDCG = 0.70, 0.85
"""nDCG@10 of a base model on questions generated from the passages: below the first tuning helps, above the second it
does not.

Rules of thumb from practitioners' guides: do not tune if recall exceeds .85 (skillopedia.ai, "Embedding Fine-Tuning")
or nDCG@10 exceeds .80 (nextgenailearn.com, lesson emb-03). Measured here: the collections that gained had .58 to .70,
the one that lost had .85."""


def headroom(base_ndcg: float) -> float:
    """Return the factor that limits the alphas of a training on generated questions, from 0 to 1.

    Generated questions help a model that does badly on a corpus, and harm one that does well. Dev questions that are
    generated the same way approve of both, so the base model's own score sets the limit.

    Args:
        base_ndcg: nDCG@10 of the base model on dev questions that were generated without an LLM.

    Example:
        >>> from rag_ft.training.selection.headroom import headroom
        >>> headroom(0.6), round(headroom(0.8), 2), headroom(0.9)
        (1.0, 0.33, 0.0)
    """
    return min(1.0, max(0.0, (HIGH_BASE_NDCG - base_ndcg) / (HIGH_BASE_NDCG - LOW_BASE_NDCG)))
