"""Choose a retriever on questions that are not test questions: the simplest one that is about as good as the best."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.roles import BASELINE, BM25_ROLE, HYBRID_PREFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARGIN = 0.01
"""Loss in nDCG@10 up to which a simpler retriever is preferred to the best one."""

MIN_CHOICE_QUESTIONS = 50
"""Minimum number of questions to choose a retriever on."""

BY_SIMPLICITY = ("bm25", "embedding", "another embedding", "hybrid", "another hybrid", "retriever")
"""Kinds of retrievers, the simplest to run first. "another" means that its model is not the baseline's."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The scores that a retriever is chosen by.

    Attributes:
        scores: role -> mean nDCG@10.
        kinds: role -> `bm25`, `embedding`, `hybrid` or `retriever`; derived from the role if missing.
        questions: number of questions.
        questions_from: where they come from: `dev questions`, or a part of the compared questions.
        margin: loss in nDCG@10 up to which a simpler retriever is preferred.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    questions: int = 0
    questions_from: str = "dev questions"
    margin: float = MARGIN

    def pick(self, allowed: Collection[str]) -> tuple[str, str]:
        """Return the simplest role whose loss against the best is below the margin, and the best role.

        Non-inferiority by the estimated loss: a test of significance would prefer the simplest whenever there are few
        questions, even if it loses much.

        Args:
            allowed: the roles to choose from; at least one of them has a score.

        Example:
            >>> from rag_ft.evaluation.retriever_choice import Choice
            >>> scores = {"bm25": 0.690, "baseline": 0.413, "candidate": 0.563, "hybrid-candidate": 0.716}
            >>> Choice(scores=scores).pick(scores)
            ('hybrid-candidate', 'hybrid-candidate')
            >>> Choice(scores=scores, margin=0.03).pick(scores)
            ('bm25', 'hybrid-candidate')
        """
        roles = [role for role in self.scores if role in allowed]
        best = max(roles, key=lambda role: (self.scores[role], -self.simplicity(role)))
        near = [role for role in roles if self.scores[best] - self.scores[role] < self.margin or role == best]
        return min(near, key=lambda role: (self.simplicity(role), -self.scores[role])), best

    def kind(self, role: str) -> str:
        """Return the kind of a role."""
        implied = "bm25" if role == BM25_ROLE else "hybrid" if role.startswith(HYBRID_PREFIX) else "embedding"
        return self.kinds.get(role, implied)

    def simplicity(self, role: str) -> int:
        """Return the position of a role's kind in `BY_SIMPLICITY`."""
        kind = self.kind(role)
        is_baseline = role in (BASELINE, HYBRID_PREFIX + BASELINE)
        return BY_SIMPLICITY.index(kind if is_baseline or kind not in ("embedding", "hybrid") else f"another {kind}")


def halves(groups: Sequence[object], seed: int) -> NDArray[np.bool_]:
    """Return a mask of the questions about a random half of the groups, shape (questions,).

    If there are no dev questions, this half chooses the retriever, and the other half reports what it is worth.
    """
    numbers = np.unique([str(group) for group in groups], return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(int(numbers.max(initial=-1)) + 1)
    return np.asarray(order[numbers] < len(order) / 2)
