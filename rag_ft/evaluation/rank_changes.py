"""Rank changes: wins and regressions, what was ranked above the answer, and likely causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.failure_causes import FailureCauses
from rag_ft.evaluation.roles import BASELINE
from rag_ft.evaluation.slices import SLICE_TITLES
from rag_ft.retrieval.top_k import MAX_RANK

MAX_ABOVE = 5
"""Maximum number of passages to name as ranked above the answer."""

Kind = Literal["win", "loss", "same"]


@dataclass(frozen=True)
class RankChange:
    """The rank change of one question.

    Attributes:
        query: the id of the question.
        before: rank of the first relevant passage under the baseline, from 1; None if it is not among the first 100.
        after: the same under the candidate.
        relevant: that passage, in the better of the two rankings.
        ranked_above: the passages above it in the worse of the two rankings, at most 5.
        failure_causes: likely cause of a low rank -> evidence for it. Empty if no cause was found, or if both rank the
            passage first.
        slices: titles of the slices that the question belongs to.

    Example:
        >>> from rag_ft.evaluation import RankChange
        >>> change = RankChange("q1", before=3, after=1, relevant="leave#0", ranked_above=("badge#0", "desk#0"))
        >>> change.kind, change.gain
        ('win', 0.5)
    """

    query: str
    before: int | None
    after: int | None
    relevant: str
    ranked_above: tuple[str, ...] = ()
    failure_causes: dict[str, str] = field(default_factory=dict)
    slices: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """The difference in 1 / log2(rank + 1), nDCG's discount, so that changes near the top count most: -1 to 1."""
        return _discount(self.after) - _discount(self.before)

    @property
    def kind(self) -> Kind:
        """Whether the answer is ranked higher (`win`), lower (`loss`), or where it was (`same`)."""
        return "same" if self.before == self.after else "win" if self.gain > 0 else "loss"


def compute_rank_changes(comparison: Comparison, dataset: QADataset, role: str | None = None) -> list[RankChange]:
    """Compute the rank change of every question under a candidate, in the order of the questions.

    Args:
        comparison: a comparison that has its rankings. One that was loaded from a file has none.
        dataset: the dataset of the comparison.
        role: the candidate, for example `candidate-2`; the first one if None.

    Raises:
        InputError: if there are no rankings or no such candidate, or the comparison was made on another dataset.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import Run, compute_rank_changes, score_runs
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "How do I get holidays?")}, {"test": {"q": {"a": 1}}})
        >>> comparison = score_runs(dataset, "test", {"baseline": Run([["b", "a"]]), "candidate": Run([["a", "b"]])})
        >>> change = compute_rank_changes(comparison, dataset)[0]
        >>> change.kind, change.before, change.after, change.ranked_above
        ('win', 2, 1, ('b',))
    """
    role = role or comparison.candidates[0]
    check_same_questions(comparison, dataset)
    if role not in comparison.candidates:
        raise InputError(f"there is no {role!r} in the comparison: choose one of {', '.join(comparison.candidates)}")
    qrels = dataset.require(comparison.split)
    masks = [(SLICE_TITLES.get(name, name), mask) for name, mask in comparison.members.items()]
    changes = []
    rows = zip(qrels.items(), comparison.rankings[BASELINE], comparison.rankings[role], strict=True)
    for position, ((query, relevant), baseline, candidate) in enumerate(rows):
        before, after = rank_of(baseline, relevant), rank_of(candidate, relevant)
        better, worse = (candidate, baseline) if _discount(after) > _discount(before) else (baseline, candidate)
        first = next((passage for passage in better if passage in relevant), next(iter(relevant)))
        lower = rank_of(worse, relevant)
        above = [passage for passage in worse[: lower - 1 if lower else MAX_ABOVE] if passage in dataset.passages]
        slices = tuple(title for title, mask in masks if mask[position])
        changes.append(
            RankChange(query, before, after, relevant=first, ranked_above=tuple(above[:MAX_ABOVE]), slices=slices)
        )
    return _with_causes(changes, comparison, dataset)


def rank_of(ranking: Sequence[str], relevant: Mapping[str, int]) -> int | None:
    """Return the rank of the first relevant passage, from 1, or None if it is not among the first 100."""
    return next((rank for rank, passage in enumerate(ranking[:MAX_RANK], 1) if passage in relevant), None)


def largest(changes: Iterable[RankChange], kind: Kind, count: int | None = None) -> list[RankChange]:
    """Return the wins or regressions, the largest first.

    Example:
        >>> from rag_ft.evaluation.rank_changes import RankChange, largest
        >>> changes = [RankChange("a", 3, 1, "p"), RankChange("b", 1, 2, "p"), RankChange("c", 2, 1, "p")]
        >>> [change.query for change in largest(changes, "win")]
        ['a', 'c']
    """
    of_kind = [change for change in changes if change.kind == kind]
    return sorted(of_kind, key=lambda change: -abs(change.gain))[:count]


def check_same_questions(comparison: Comparison, dataset: QADataset) -> None:
    """Check that a comparison has rankings and was made on a dataset.

    Raises:
        InputError: if not.
    """
    if not comparison.rankings:
        raise InputError("this comparison has no rankings (a loaded one has none): run the comparison again")
    questions = len(dataset.require(comparison.split))
    if questions != comparison.queries or len(dataset.passages) != comparison.passages:
        raise InputError(
            f"the dataset has {questions} questions in split {comparison.split!r} and {len(dataset.passages)} "
            f"passages, but {comparison.queries} and {comparison.passages} were compared: pass the dataset of the "
            "comparison"
        )


def _with_causes(changes: Sequence[RankChange], comparison: Comparison, dataset: QADataset) -> list[RankChange]:
    """Add causes to the questions whose answer is not first under both."""
    texts = dataset.passage_texts
    hard = [change for change in changes if not change.before == change.after == 1]
    involved = dict.fromkeys(passage for change in hard for passage in (change.relevant, *change.ranked_above))
    causes = FailureCauses({passage: texts[passage] for passage in involved}, comparison.characters_read)
    explained = {
        change.query: causes.explain(dataset.queries[change.query], change.relevant, change.ranked_above)
        for change in hard
    }
    return [replace(change, failure_causes=explained.get(change.query, {})) for change in changes]


def _discount(rank: int | None) -> float:
    return 0.0 if rank is None else 1 / math.log2(rank + 1)
