"""Which of all retrievers to use: the simplest one that is not significantly worse than the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.evaluation.significance import paired_bootstrap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BM25, BASELINE, CANDIDATE, HYBRID = "bm25", "baseline", "candidate", "hybrid"

NEEDS = {
    BM25: "words alone: no model, no vectors",
    BASELINE: "the model as it is, and its index",
    CANDIDATE: "another model or retriever, and a rebuilt index",
    f"{HYBRID}-{BASELINE}": "the model as it is, its index, and a word index in memory",
    f"{HYBRID}-{CANDIDATE}": "another model, a rebuilt index, and a word index in memory",
}
"""What each kind of retriever needs to run, the simplest first."""


@dataclass(frozen=True)
class Recommendation:
    """The retriever to use.

    Attributes:
        role: as in the comparison.
        best: the role with the highest nDCG@10.
        reason: in one sentence.
    """

    role: str
    best: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As `comparison.json` keeps it."""
        return asdict(self)


def recommend(
    values: Mapping[str, NDArray[np.float64]], groups: Sequence[object], seed: int = 0, enough: int = 50
) -> Recommendation:
    """The simplest retriever whose nDCG@10 is not significantly below that of the best.

    Args:
        values: role -> nDCG@10 of each question, shape (questions,); roles as in a comparison.
        groups: what each question is resampled with.
        seed: of the bootstrap.
        enough: questions under which nothing new is recommended.

    Example:
        >>> import numpy as np
        >>> from rag_ft.evaluation.recommendation import recommend
        >>> rng = np.random.default_rng(0)
        >>> base = rng.uniform(0.2, 0.6, 200)
        >>> recommend({"baseline": base, "candidate": base + 0.2, "bm25": base - 0.1}, range(200)).role
        'candidate'
    """
    means = {role: float(found.mean()) for role, found in values.items()}
    best = max(means, key=lambda role: (means[role], -_simplicity(role)))
    count = len(values[best])
    if count < enough:
        return Recommendation(BASELINE, best, f"{count} questions are too few to tell: at least {enough} are needed")
    for role in sorted(values, key=_simplicity):
        if role == best:
            break
        lack = paired_bootstrap(values[role] - values[best], groups, seed)
        if lack.ci95[1] >= 0:
            return Recommendation(
                role, best, f"{role} is simpler than {best}, and its nDCG@10 is not told apart from it ({lack})"
            )
    after = sorted((role for role in values if role != best), key=lambda role: -means[role])
    if not after:
        return Recommendation(best, best, "it is the only one")
    lead = paired_bootstrap(values[best] - values[after[0]], groups, seed)
    if _simplicity(best) < _simplicity(after[0]):
        return Recommendation(best, best, f"{best} has the highest nDCG@10, and nothing simpler comes near")
    return Recommendation(best, best, f"{best} has the highest nDCG@10: {lead} over {after[0]}, the next")


def needs(role: str) -> str:
    """What a retriever needs to run, in words."""
    return NEEDS[_kind(role)]


def _kind(role: str) -> str:
    first, _, rest = role.partition("-")
    if first == HYBRID:
        return f"{HYBRID}-{BASELINE}" if rest == BASELINE else f"{HYBRID}-{CANDIDATE}"
    return first if first in NEEDS else CANDIDATE


def _simplicity(role: str) -> int:
    """Lower is simpler."""
    return list(NEEDS).index(_kind(role))
