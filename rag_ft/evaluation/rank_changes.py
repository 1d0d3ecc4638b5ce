"""Wins and losses: for each question the rank before and after, what came instead, and why, where that can be told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import BASELINE, DEPTH, Comparison
from rag_ft.evaluation.failure_causes import FailureCauses
from rag_ft.evaluation.verdict import KINDS

INSTEAD = 5
"""Passages that are named as having come instead, at most."""

Kind = Literal["win", "loss", "same"]


@dataclass(frozen=True)
class RankChange:
    """What became of one question.

    Attributes:
        query: its id.
        before: the rank under the baseline of the first passage that answers it, from 1; None: not among the first
            100.
        after: the rank under the candidate.
        wanted: the passage that answers it, the one that the better of both found first.
        instead: what stood before it in the worse of both rankings, at most 5 passages.
        causes: what may have made it hard -> what shows that; empty where it cannot be told, and where both put the
            answer first.
        slices: the kinds of questions that it belongs to.

    Example:
        >>> from rag_ft.evaluation import RankChange
        >>> move = RankChange("q1", before=3, after=1, wanted="leave#0", instead=("badge#0", "desk#0"))
        >>> move.kind, move.change
        ('win', 0.5)
    """

    query: str
    before: int | None
    after: int | None
    wanted: str
    instead: tuple[str, ...] = ()
    causes: dict[str, str] = field(default_factory=dict)
    slices: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """In 1 / log2(rank + 1), what nDCG gives for a rank, so that a move near the top counts most: -1 to 1."""
        return _worth(self.after) - _worth(self.before)

    @property
    def easy(self) -> bool:
        """Whether both put the answer first."""
        return self.before == self.after == 1

    @property
    def kind(self) -> Kind:
        """Whether the answer stands higher (`win`), lower (`loss`), or where it stood (`same`)."""
        return "same" if self.before == self.after else "win" if self.change > 0 else "loss"


def compute_rank_changes(comparison: Comparison, dataset: QADataset, role: str | None = None) -> list[RankChange]:
    """What became of every question under a candidate, in the order of the questions.

    Args:
        comparison: one that still has its rankings; one that was read from a file has none.
        dataset: that was compared on.
        role: `candidate-2` or another one; the first candidate where None.

    Raises:
        InputError: where there are no rankings, no such candidate, or the dataset is another one.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation.comparison import judge
        >>> from rag_ft.evaluation.rank_changes import compute_rank_changes
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "How do I get holidays?")}, {"test": {"q": {"a": 1}}})
        >>> rankings = {"baseline": [["b", "a"]], "candidate": [["a", "b"]]}
        >>> move = compute_rank_changes(judge(dataset, "test", rankings, {}), dataset)[0]
        >>> move.kind, move.before, move.after, move.instead
        ('win', 2, 1, ('b',))
    """
    role = role or comparison.candidates[0]
    check_same_questions(comparison, dataset)
    if role not in comparison.candidates:
        raise InputError(f"there is no {role!r} in the comparison: give one of {', '.join(comparison.candidates)}")
    qrels = dataset.require(comparison.split)
    slices = _slices_of(comparison)
    moves = []
    rows = zip(qrels.items(), comparison.rankings[BASELINE], comparison.rankings[role], strict=True)
    for place, ((query, relevant), baseline, candidate) in enumerate(rows):
        before, after = rank_of(baseline, relevant), rank_of(candidate, relevant)
        better, worse = (candidate, baseline) if _worth(after) > _worth(before) else (baseline, candidate)
        wanted = next((passage for passage in better if passage in relevant), next(iter(relevant)))
        lowest = rank_of(worse, relevant)
        ahead = [passage for passage in worse[: lowest - 1 if lowest else INSTEAD] if passage in dataset.passages]
        moves.append(RankChange(query, before, after, wanted, tuple(ahead[:INSTEAD]), {}, slices(place)))
    return _with_causes(moves, comparison, dataset)


def rank_of(ranking: Sequence[str], relevant: Mapping[str, int]) -> int | None:
    """The rank of the first relevant passage, from 1; None where it is not among the first 100."""
    return next((rank for rank, passage in enumerate(ranking[:DEPTH], 1) if passage in relevant), None)


def largest(moves: Iterable[RankChange], kind: Kind, most: int | None = None) -> list[RankChange]:
    """The wins or losses, the largest first.

    Example:
        >>> from rag_ft.evaluation.rank_changes import RankChange, largest
        >>> [move.query for move in largest([RankChange("a", 3, 1, "p"), RankChange("b", 1, 2, "p"), RankChange("c", 2, 1, "p")], "win")]
        ['a', 'c']
    """
    chosen = [move for move in moves if move.kind == kind]
    return sorted(chosen, key=lambda move: -abs(move.change))[:most]


def check_same_questions(comparison: Comparison, dataset: QADataset) -> None:
    """Refuse a comparison without rankings, and a dataset that they do not belong to.

    Raises:
        InputError: since texts would stand beside wrong ranks.
    """
    if not comparison.rankings:
        raise InputError("this comparison has no rankings (one from a file has none): compare again")
    asked = len(dataset.require(comparison.split))
    if asked != comparison.queries or len(dataset.passages) != comparison.passages:
        raise InputError(
            f"the dataset has {asked} questions in split {comparison.split!r} and {len(dataset.passages)} passages, "
            f"but {comparison.queries} and {comparison.passages} were compared: give the dataset of the comparison"
        )


def _slices_of(comparison: Comparison) -> Callable[[int], tuple[str, ...]]:
    """What gives the slices of the question at a place."""
    named = [(KINDS.get(name, name), mask) for name, mask in comparison.members.items()]
    return lambda place: tuple(name for name, mask in named if mask[place])


def _with_causes(moves: Sequence[RankChange], comparison: Comparison, dataset: QADataset) -> list[RankChange]:
    """Causes are looked for where one of both does not put the answer first."""
    texts = dataset.passage_texts
    involved = dict.fromkeys(passage for move in moves if not move.easy for passage in (move.wanted, *move.instead))
    causes = FailureCauses({passage: texts[passage] for passage in involved}, comparison.cut)
    return [
        move if move.easy else replace(move, causes=causes.of(dataset.queries[move.query], move.wanted, move.instead))
        for move in moves
    ]


def _worth(rank: int | None) -> float:
    return 0.0 if rank is None else 1 / math.log2(rank + 1)
