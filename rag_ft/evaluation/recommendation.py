"""Which of all retrievers to use: the simplest one that is not significantly worse than the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.evaluation.significance import paired_bootstrap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDS = {
    "bm25": "words alone: no model, no vectors",
    "embedding": "the model as it is, and its index",
    "another embedding": "another model, and an index rebuilt with it",
    "hybrid": "the model as it is, its index, and a word index in memory",
    "another hybrid": "another model, an index rebuilt with it, and a word index in memory",
    "retriever": "a retriever of its own",
}
"""What each kind of retriever needs to run, the simplest first; `another` is what is not the baseline's model."""

BASELINE = "baseline"


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
    values: Mapping[str, NDArray[np.float64]],
    groups: Sequence[object],
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
    enough: int = 50,
) -> Recommendation:
    """The simplest retriever whose nDCG@10 is not significantly below that of the best.

    Where the questions come from so few places that nothing can be told, and under 50 of them, the baseline stays.

    Args:
        values: role -> nDCG@10 of each question, shape (questions,); roles as in a comparison.
        groups: what each question is resampled with.
        kinds: role -> `bm25`, `embedding`, `hybrid` or `retriever`; told by the role where it is not there.
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

    def simplicity(role: str) -> int:
        return list(NEEDS).index(kind_of(role, kinds))

    means = {role: float(found.mean()) for role, found in values.items()}
    best = max(means, key=lambda role: (means[role], -simplicity(role)))
    if (count := len(values[best])) < enough:
        return Recommendation(BASELINE, best, f"{count} questions are too few to tell: at least {enough} are needed")
    lacks = {role: paired_bootstrap(values[role] - values[best], groups, seed) for role in values if role != best}
    if any(lack.mean and lack.ci95[1] == float("inf") for lack in lacks.values()):
        return Recommendation(BASELINE, best, "the questions come from too few places: nothing can be told")
    for role in sorted(lacks, key=simplicity):
        if simplicity(role) < simplicity(best) and lacks[role].ci95[1] >= 0:
            return Recommendation(
                role, best, f"{role} is simpler than {best}, and its nDCG@10 is not told apart from it ({lacks[role]})"
            )
    if not lacks:
        return Recommendation(best, best, "it is the only one")
    after = max(lacks, key=lambda role: means[role])
    lead = paired_bootstrap(values[best] - values[after], groups, seed)
    return Recommendation(best, best, f"{best} has the highest nDCG@10: {lead} over {after}, the next")


def needs(role: str, kinds: Mapping[str, str] | None = None) -> str:
    """What a retriever needs to run, in words."""
    return NEEDS[kind_of(role, kinds)]


def kind_of(role: str, kinds: Mapping[str, str] | None = None) -> str:
    """A key of `NEEDS` for a role of a comparison."""
    told = "bm25" if role == "bm25" else "hybrid" if role.startswith("hybrid") else "embedding"
    kind = (kinds or {}).get(role, told)
    is_baseline = role in (BASELINE, f"hybrid-{BASELINE}")
    return kind if is_baseline or kind not in ("embedding", "hybrid") else f"another {kind}"
