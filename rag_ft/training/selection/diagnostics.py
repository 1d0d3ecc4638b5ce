"""A doctor's eye on a training: what users report, recognised by its signs, with what to change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT = 0.97
"""A loss whose last quarter is over this share of its first one did not move."""

FEWEST_LOSSES = 3
"""Values in a quarter, under which they say nothing: batches differ."""

UNCHANGED = 0.999
"""Mean cosine of a passage's vectors before and after, over which nothing was learnt."""

ALIKE = 0.9
"""Mean cosine of different passages over which a model has collapsed."""

REPEATED = 0.1
"""Share of training questions that nearly repeat another one, over which it is said."""

UNPROVEN = (
    "too little can be held out to tell whether tuning helps, so nothing is tuned: add questions or scored pairs, or a "
    "dev split"
)
"""What is said where there is no dev."""

NEAR_CHANCE = 3.0
"""Times the figure of a random ranking, under which questions do not belong to their passages."""


def check_questions(dataset: QADataset) -> list[str]:
    """What is wrong with training questions before anything is trained."""
    train = dataset.qrels.get("train", {})
    texts = [dataset.queries[query].text for query in train]
    if not texts:
        return []
    repeated = 1 - len(set(near_duplicate_groups(texts))) / len(texts)
    if repeated <= REPEATED:
        return []
    return [
        f"{repeated:.0%} of the training questions nearly repeat another one: they teach nothing new, and each is a "
        "false negative of the other. Leave the repeats out (rag-ft inspect shows them)"
    ]


def check_level(level: float, chance: float) -> list[str]:
    """Whether a base model finds next to nothing, which is a sign of wrong pairs rather than of hard questions.

    Args:
        level: nDCG@10 of the base model on dev.
        chance: that of a random ranking.
    """
    # Of few passages a ranking at random finds much: half of the way to all is the line then.
    if level > min(NEAR_CHANCE * chance, (1 + chance) / 2):
        return []
    return [
        f"the base model finds hardly more than chance on dev (nDCG@10 {level:.3f}, chance {chance:.3f}): the "
        "questions do not seem to belong to their passages, or are in a language that it does not know. Look at some "
        "pairs (rag-ft inspect), and choose a base model of the right language"
    ]


def check_losses(losses: Sequence[float]) -> list[str]:
    """Whether the loss went down."""
    if any(not np.isfinite(loss) for loss in losses):
        return ["the loss is not a number any more: lower the learning rate to a tenth"]
    quarter = len(losses) // 4
    if quarter < FEWEST_LOSSES:
        return []
    first, last = float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))
    if first <= 1e-6 or last <= FLAT * first:
        return []
    return [
        f"the loss did not move ({first:.3f} at the beginning, {last:.3f} at the end): raise the learning rate, train "
        "longer, or look whether questions and passages belong together (rag-ft inspect)"
    ]


def check_vectors(base: NDArray[np.float32], tuned: NDArray[np.float32]) -> list[str]:
    """Whether vectors changed at all, or all became one.

    Args:
        base: of some passages under the base model, of length 1, shape (passages, dimension).
        tuned: of the same passages after training.
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
    if alike > ALIKE and alike > before + 0.1:
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
    """Whether generated dev questions gain and those that people asked do not.

    Args:
        differences: tuned minus base of each dev question.
        sources: how each was made.
    """
    real = np.array([source.endswith("real") for source in sources])
    if real.sum() < 10 or (~real).sum() < 10:
        return []
    on_real, on_others = float(differences[real].mean()), float(differences[~real].mean())
    if on_others < 0.02 or on_real > 0:
        return []
    return [
        f"generated dev questions gain ({on_others:+.3f}) and those that people asked do not ({on_real:+.3f}): the "
        "generated ones are not like them. Generate other styles, with an LLM that has seen some real questions"
    ]
