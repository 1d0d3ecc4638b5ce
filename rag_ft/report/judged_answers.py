"""The attributes of judged answers that a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rag_ft.evaluation.significance import Difference
from rag_ft.evaluation.verdict import Verdict
from rag_ft.feedback.tally import Tally


class AnswerComparison(Protocol):
    """The answers of two variants, a (in use) and b, as `rag_ft.ab.judge_answers` returns them.

    Attributes:
        verdict: the verdict on variant b.
        reason: the reason for it.
        tally: how many questions each variant won.
        disagreed: number of ties in which the judge's verdict changed with the order of the answers.
        scores: metric -> mean of b minus a.
        means: metric -> variant -> mean.
        answers: question -> variant -> answer.
        better: question -> the variant whose answer is better, or `tie`.
    """

    @property
    def verdict(self) -> Verdict: ...
    @property
    def reason(self) -> str: ...
    @property
    def tally(self) -> Tally: ...
    @property
    def disagreed(self) -> int: ...
    @property
    def scores(self) -> Mapping[str, Difference]: ...
    @property
    def means(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def answers(self) -> Mapping[str, Mapping[str, str]]: ...
    @property
    def better(self) -> Mapping[str, str]: ...
