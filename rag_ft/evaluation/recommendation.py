"""The retriever to use: the simplest one that is not significantly worse than the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.evaluation.roles import BASELINE, BM25_ROLE, HYBRID_PREFIX
from rag_ft.evaluation.significance import paired_bootstrap
from rag_ft.evaluation.verdict import MIN_QUESTIONS, too_few

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BY_SIMPLICITY = ("bm25", "embedding", "another embedding", "hybrid", "another hybrid", "retriever")
"""Kinds of retrievers, the simplest to run first. "another" means that its model is not the baseline's."""


@dataclass(frozen=True)
class Recommendation:
    """The retriever to use.

    Attributes:
        role: its role in the comparison.
        best: the role with the highest nDCG@10.
        reason: the reason, in one sentence.
    """

    role: str
    best: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the recommendation as JSON values."""
        return asdict(self)


def recommend(
    values: Mapping[str, NDArray[np.float64]],
    groups: Sequence[object],
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Recommendation:
    """Recommend the simplest retriever whose nDCG@10 is not significantly below that of the best.

    The baseline stays if there are under 50 questions, or if they are about too few documents.

    Args:
        values: role -> nDCG@10 of each question, shape (questions,).
        groups: the group that each question is resampled with.
        kinds: role -> `bm25`, `embedding`, `hybrid` or `retriever`; derived from the role if missing.
        seed: seeds the resampling.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.recommendation import recommend
        >>> rng = np.random.default_rng(0)
        >>> base = rng.uniform(0.2, 0.6, 200)
        >>> recommend({"baseline": base, "candidate": base + 0.2, "bm25": base - 0.1}, range(200)).role
        'candidate'
    """
    simplicity = {role: _simplicity(role, kinds) for role in values}
    means = {role: float(scores.mean()) for role, scores in values.items()}
    best = max(means, key=lambda role: (means[role], -simplicity[role]))
    if (questions := len(values[best])) < MIN_QUESTIONS:
        return Recommendation(BASELINE, best, too_few(questions, MIN_QUESTIONS))
    gaps = {role: paired_bootstrap(values[role] - values[best], groups, seed) for role in values if role != best}
    if any(gap.mean and gap.ci95[1] == float("inf") for gap in gaps.values()):
        return Recommendation(BASELINE, best, "the questions are about too few documents for a recommendation")
    for role in sorted(gaps, key=simplicity.__getitem__):
        if simplicity[role] < simplicity[best] and gaps[role].ci95[1] >= 0:
            reason = f"{role} is simpler than {best}, and its nDCG@10 is not significantly lower ({gaps[role]})"
            return Recommendation(role, best, reason)
    if not gaps:
        return Recommendation(best, best, "it is the only retriever")
    second = max(gaps, key=lambda role: means[role])
    lead = paired_bootstrap(values[best] - values[second], groups, seed)
    return Recommendation(best, best, f"{best} has the highest nDCG@10: {lead} over {second}, the next")


def _simplicity(role: str, kinds: Mapping[str, str] | None) -> int:
    """Return the position of a role's kind in `BY_SIMPLICITY`."""
    implied = "bm25" if role == BM25_ROLE else "hybrid" if role.startswith(HYBRID_PREFIX) else "embedding"
    kind = (kinds or {}).get(role, implied)
    is_baseline = role in (BASELINE, HYBRID_PREFIX + BASELINE)
    return BY_SIMPLICITY.index(kind if is_baseline or kind not in ("embedding", "hybrid") else f"another {kind}")
