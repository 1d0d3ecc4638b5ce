"""Diagnostics of a training: detect common problems, and say how to fix them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.text.near_duplicates import near_duplicate_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT = 0.97
"""A loss counts as flat if its last quarter is above this fraction of its first quarter."""

MIN_LOSSES = 3
"""Minimum number of values in a quarter: batches differ too much for fewer."""

UNCHANGED = 0.999
"""Mean cosine of passage vectors before and after training above which the model counts as unchanged."""

COLLAPSED = 0.9
"""Mean cosine of different passages above which a model counts as collapsed."""

REPEATED = 0.1
"""Fraction of near-duplicate training questions above which they are reported."""

UNPROVEN = (
    "too few questions can be held out to test whether tuning helps, so nothing is tuned: add questions, scored pairs "
    "or a dev split"
)
"""The message shown if there is no dev set."""

NEAR_CHANCE = 3.0
"""Multiple of a random ranking's score below which questions probably do not match their passages."""


def check_questions(texts: Sequence[str]) -> list[str]:
    """Return a finding if many training questions nearly repeat each other."""
    if not texts:
        return []
    repeated = 1 - len(set(near_duplicate_groups(list(texts)))) / len(texts)
    if repeated <= REPEATED:
        return []
    return [
        f"{repeated:.0%} of the training questions nearly repeat another one: they add nothing, and become false "
        "negatives of each other. Remove the repeats (rag-ft inspect shows them)"
    ]


def check_base_score(base_ndcg: float, chance: float) -> list[str]:
    """Return a finding if the base model is close to a random ranking: a sign of wrong pairs, not of hard questions.

    Args:
        base_ndcg: nDCG@10 of the base model on dev.
        chance: nDCG@10 of a random ranking.
    """
    # A random ranking of few passages scores high. Then the limit is half-way between chance and 1.
    if base_ndcg > min(NEAR_CHANCE * chance, (1 + chance) / 2):
        return []
    return [
        f"the base model is hardly better than chance on dev (nDCG@10 {base_ndcg:.3f}, chance {chance:.3f}): the "
        "questions may not match their passages, or their language is unknown to the model. Check some pairs (rag-ft "
        "inspect), or choose a base model for that language"
    ]


def check_losses(losses: Sequence[float]) -> list[str]:
    """Return a finding if the loss did not go down."""
    if any(not np.isfinite(loss) for loss in losses):
        return ["the loss became NaN or infinite: lower the learning rate to a tenth"]
    quarter = len(losses) // 4
    if quarter < MIN_LOSSES:
        return []
    first, last = float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))
    if first <= 1e-6 or last <= FLAT * first:
        return []
    return [
        f"the loss did not decrease ({first:.3f} at the start, {last:.3f} at the end): raise the learning rate, train "
        "longer, or check whether questions and passages match (rag-ft inspect)"
    ]


def check_vectors(base: NDArray[np.float32], tuned: NDArray[np.float32]) -> list[str]:
    """Return a finding if the vectors did not change, or collapsed.

    Args:
        base: unit vectors of some passages under the base model, shape (passages, dimension).
        tuned: unit vectors of the same passages after training.
    """
    if len(base) < 2:
        return []
    if not np.isfinite(tuned).all():
        return ["the tuned model's vectors contain NaN or infinity: lower the learning rate to a tenth"]
    unchanged = float((base * tuned).sum(axis=1).mean())
    if unchanged > UNCHANGED:
        return [
            f"training hardly changed the vectors (mean cosine to the base model's {unchanged:.4f}): raise the "
            "learning rate or the number of epochs"
        ]
    after, before = _mean_cosine(tuned), _mean_cosine(base)
    if after > COLLAPSED and after > before + 0.1:
        return [
            f"the vectors collapsed: all passages look alike (mean cosine {after:.2f}, before {before:.2f}). Lower "
            "the learning rate, or use larger batches or a loss with negatives"
        ]
    return []


def _mean_cosine(vectors: NDArray[np.float32]) -> float:
    total = vectors.sum(axis=0)
    count = len(vectors)
    return float((total @ total - count) / (count * (count - 1)))


def check_sources(differences: NDArray[np.float64], sources: Sequence[str]) -> list[str]:
    """Return a finding if generated dev questions gain, but real ones do not.

    Args:
        differences: tuned minus base for each dev question.
        sources: the source of each dev question.
    """
    real = np.array([source.endswith("real") for source in sources])
    if real.sum() < 10 or (~real).sum() < 10:
        return []
    real_gain, other_gain = float(differences[real].mean()), float(differences[~real].mean())
    if other_gain < 0.02 or real_gain > 0:
        return []
    return [
        f"generated dev questions gain ({other_gain:+.3f}), but real ones do not ({real_gain:+.3f}): the generated "
        "questions are unlike real ones. Generate other styles, with real questions as examples for the LLM"
    ]
