"""What people's votes and picks say of two sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import ENOUGH_QUESTIONS, Verdict

if TYPE_CHECKING:
    from rag_ft.retrieval.votes import Standing


def judge_votes(standing: Standing, seed: int = 0) -> tuple[Verdict, str, Difference]:
    """The verdict on side b, by the statistics that decide a comparison: sessions are resampled, not single votes.

    Each question that somebody decided counts -1 (a), 0 (a tie) or 1 (b). With `split`, where each session sees one
    side, nobody compares: there only votes count.

    Args:
        standing: of a file of votes (`Votes.standing`).
        seed: of the bootstrap.

    Returns:
        (verdict, reason, mean credit of b over a with its interval).

    Example:
        >>> from rag_ft.evaluation.ab_votes import judge_votes
        >>> from rag_ft.retrieval.votes import Standing
        >>> credit = {f"user-{n}": [1.0, 1.0, 0.0, -1.0] for n in range(40)}
        >>> judge_votes(Standing(160, 40, 80, 40, {}, {}, credit))[0]
        'ship'
    """
    values = [value for session in standing.credit.values() for value in session]
    groups = [session for session, found in standing.credit.items() for _ in found]
    difference = paired_bootstrap(np.array(values), groups, seed)
    low, high = difference.ci95
    counted = f"{len(values)} questions of {len(standing.credit)} sessions: {difference} for b"
    if len(values) < ENOUGH_QUESTIONS:
        return "inconclusive", f"{counted}; at least {ENOUGH_QUESTIONS} are needed", difference
    if low > 0:
        return "ship", f"people prefer b ({counted})", difference
    if high < 0 or difference.mean <= 0:
        return "keep-baseline", f"people do not prefer b ({counted})", difference
    return "inconclusive", f"it may be chance ({counted}): more votes would tell", difference
