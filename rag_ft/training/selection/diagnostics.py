"""Diagnostics of a training: common faults, recognised by their signs, with what to change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.text.near_duplicates import near_duplicate_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT = 0.97
"""A loss did not move if its last quarter is above this fraction of its first quarter."""

MIN_LOSSES = 3
"""Minimum number of values in a quarter: batches differ, so fewer tell nothing."""

UNCHANGED = 0.999
"""Mean cosine of passage vectors before and after training, above which nothing was learned."""

COLLAPSED = 0.9
"""Mean cosine of different passages above which a model has collapsed."""

REPEATED = 0.1
"""Fraction of training questions that nearly repeat another one, above which it is reported."""

UNPROVEN = (
    "too little can be held out to tell whether tuning helps, so nothing is tuned: add questions or scored pairs, or a "
    "dev split"
)
"""The message shown if there is no dev set."""

NEAR_CHANCE = 3.0
"""Multiple of a random ranking's score, below which questions do not belong to their passages."""


def check_questions(texts: Sequence[str]) -> list[str]:
    """Return what is wrong with the texts of the training questions."""
    if not texts:
        return []
    repeated = 1 - len(set(near_duplicate_groups(list(texts)))) / len(texts)
    if repeated <= REPEATED:
        return []
    return [
        f"{repeated:.0%} of the training questions nearly repeat another one: they teach nothing new, and each is a "
        "false negative of the other. Leave the repeats out (rag-ft inspect shows them)"
    ]


def check_base_score(base_ndcg: float, chance: float) -> list[str]:
    """Return a finding if the base model retrieves next to nothing: a sign of wrong pairs, not of hard questions.

    Args:
        base_ndcg: nDCG@10 of the base model on dev.
        chance: nDCG@10 of a random ranking.
    """
    # A random ranking of few passages scores high: then half of the way from chance to 1 is the limit.
    if base_ndcg > min(NEAR_CHANCE * chance, (1 + chance) / 2):
        return []
    return [
        f"the base model retrieves hardly more than chance on dev (nDCG@10 {base_ndcg:.3f}, chance {chance:.3f}): the "
        "questions may not belong to their passages, or are in a language that it does not know. Look at some pairs "
        "(rag-ft inspect), and choose a base model for that language"
    ]


def check_losses(losses: Sequence[float]) -> list[str]:
    """Return a finding if the loss did not go down."""
    if any(not np.isfinite(loss) for loss in losses):
        return ["the loss is not a number any more: lower the learning rate to a tenth"]
    quarter = len(losses) // 4
    if quarter < MIN_LOSSES:
        return []
    first, last = float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))
    if first <= 1e-6 or last <= FLAT * first:
        return []
    return [
        f"the loss did not move ({first:.3f} at the start, {last:.3f} at the end): raise the learning rate, train "
        "longer, or look whether questions and passages belong together (rag-ft inspect)"
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
        return ["the tuned model's vectors are not numbers: lower the learning rate to a tenth"]
    kept = float((base * tuned).sum(axis=1).mean())
    if kept > UNCHANGED:
        return [
            f"training hardly changed the vectors (cosine to the base model's {kept:.4f}): raise the learning rate "
            "or the number of epochs"
        ]
    alike, before = _mean_cosine(tuned), _mean_cosine(base)
    if alike > COLLAPSED and alike > before + 0.1:
        return [
            f"the vectors collapsed: all passages look alike (mean cosine {alike:.2f}, before {before:.2f}). Lower "
            "the learning rate, take larger batches, or a loss with negatives"
        ]
    return []


def _mean_cosine(vectors: NDArray[np.float32]) -> float:
    total = vectors.sum(axis=0)
    count = len(vectors)
    return float((total @ total - count) / (count * (count - 1)))


def check_sources(differences: NDArray[np.float64], sources: Sequence[str]) -> list[str]:
    """Return a finding if generated dev questions gain and those that people asked do not.

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
        f"generated dev questions gain ({other_gain:+.3f}) and those that people asked do not ({real_gain:+.3f}): the "
        "generated ones are not like them. Generate other styles, with an LLM that has seen some real questions"
    ]
