"""The answers of two query engines, judged by an LLM through LlamaIndex's own evaluators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.ab.answer_judge import AnswerJudge, Metric
from rag_ft.ab.query_engine import ABQueryEngine
from rag_ft.ab.variant_calls import Sides
from rag_ft.ab.vote_verdict import judge_votes
from rag_ft.errors import InputError
from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import Verdict
from rag_ft.feedback.shown_query import shown_queries
from rag_ft.feedback.tally import Tally, tally_of
from rag_ft.feedback.variants import VARIANTS, Variant
from rag_ft.feedback.vote_log import Votes

if TYPE_CHECKING:
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.llms import LLM


@dataclass(frozen=True)
class JudgedAnswers:
    """What a judge says of the answers of two sides.

    Attributes:
        verdict: on side b.
        reason: in one sentence.
        difference: mean credit of b over a, -1 to 1, with its interval.
        tally: how often each was better.
        disagreed: questions on which the judge changed its mind with the order of the answers; they count as ties.
        failed: how often `a`, `b` and the `judge` failed; the same call tries these again.
        scores: metric -> b minus a, over the questions on which both have it.
        means: metric -> side -> mean: `faithfulness` is the share of answers that their passages support,
            `correctness` is 1 to 5.
        answers: question -> side -> answer.
        better: question -> the side whose answer is better, or `tie`.

    Example:
        >>> import tempfile
        >>> from llama_index.core import Document, SummaryIndex
        >>> from llama_index.core.llms import MockLLM
        >>> from rag_ft.ab import judge_answers
        >>> index = SummaryIndex.from_documents([Document(text="Leave is booked in HELM.")])
        >>> engines = tuple(index.as_query_engine(llm=MockLLM(max_tokens=length)) for length in (5, 9))
        >>> judged = judge_answers(engines, ["Is it?"], MockLLM(), votes=tempfile.mkdtemp() + "/judged.jsonl")
        >>> judged.better, judged.failed
        ({'Is it?': 'tie'}, {'a': 0, 'b': 0, 'judge': 0})
    """

    verdict: Verdict
    reason: str
    difference: Difference
    tally: Tally
    disagreed: int
    failed: dict[str, int]
    scores: dict[str, Difference] = field(default_factory=dict)
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.reason}", f"{self.tally}; changed with the order {self.disagreed}"]
        lines += [
            f"{metric}: a {self.means[metric]['a']:.3f}, b {self.means[metric]['b']:.3f}, {difference} for b"
            for metric, difference in self.scores.items()
        ]
        if any(self.failed.values()):
            lines.append("failed: " + ", ".join(f"{who} {count}" for who, count in self.failed.items() if count))
        return "\n".join(lines)


def judge_answers(
    engines: ABQueryEngine | tuple[BaseQueryEngine, BaseQueryEngine],
    questions: Sequence[str],
    llm: LLM | None = None,
    *,
    votes: str | Path | Votes,
    references: Mapping[str, str] | None = None,
    metrics: Sequence[Metric] = (),
    workers: int = 4,
    timeout: float = 120.0,
    show_progress: bool = False,
) -> JudgedAnswers:
    """Ask two query engines the same questions, and an LLM whose answers are better.

    The judge is LlamaIndex's `PairwiseComparisonEvaluator`, asked twice with the answers in both orders: a side wins
    where both times it is preferred, and anything else is a tie (Zheng et al. 2023 on position bias). What it says is
    in the file before the next question counts: a run that was killed goes on where it was, and what failed is tried
    again. The verdict is that on people's votes (`judge_votes`), each question a session of its own.

    Args:
        engines: (in use, candidate), or an `ABQueryEngine`, whose sides are asked.
        questions: texts; one that repeats counts once.
        llm: the judge; `Settings.llm` where None. Not the LLM that answers, if you can: judges prefer their own words.
        votes: a file of its own for these two engines and this judge.
        references: question -> the right answer, which the judge sees; `correctness` needs it.
        metrics: what each answer is scored on besides: `faithfulness` (`FaithfulnessEvaluator`: do its passages
            support it) and `correctness` (`CorrectnessEvaluator`, 1 to 5 against the reference).
        workers: questions under way.
        timeout: seconds that a side has to answer.
        show_progress: a progress bar with time left.

    Raises:
        InputError: where there is no question, or a reference is missing for `correctness`.
        OutsideError: where ten questions in a row, or all, could not be judged.

    Example:
        >>> import tempfile
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.query_engine import CustomQueryEngine
        >>> from rag_ft.ab import judge_answers
        >>> class Says(CustomQueryEngine):
        ...     word: str
        ...     def custom_query(self, query_str):
        ...         return self.word
        >>> class AlwaysFirst(MockLLM):
        ...     def complete(self, prompt, formatted=False, **kwargs):
        ...         return super().complete("The first is better: [[A]]", formatted, **kwargs)
        >>> sides = (Says(word="yes"), Says(word="no"))
        >>> judged = judge_answers(sides, ["Is it?"], AlwaysFirst(), votes=tempfile.mkdtemp() + "/judged.jsonl")
        >>> judged.tally.ties, judged.disagreed
        (1, 1)
    """
    from llama_index.core.async_utils import asyncio_run

    return asyncio_run(  # type: ignore[no-any-return]
        ajudge_answers(
            engines, questions, llm, votes=votes, references=references, metrics=metrics, workers=workers,
            timeout=timeout, show_progress=show_progress,
        )
    )  # fmt: skip


async def ajudge_answers(
    engines: ABQueryEngine | tuple[BaseQueryEngine, BaseQueryEngine],
    questions: Sequence[str],
    llm: LLM | None = None,
    *,
    votes: str | Path | Votes,
    references: Mapping[str, str] | None = None,
    metrics: Sequence[Metric] = (),
    workers: int = 4,
    timeout: float = 120.0,
    show_progress: bool = False,
) -> JudgedAnswers:
    """`judge_answers` within a running event loop.

    Example:
        >>> import asyncio
        >>> import tempfile
        >>> from llama_index.core import Document, SummaryIndex
        >>> from llama_index.core.llms import MockLLM
        >>> from rag_ft.ab import ajudge_answers
        >>> index = SummaryIndex.from_documents([Document(text="Leave is booked in HELM.")])
        >>> engines = tuple(index.as_query_engine(llm=MockLLM(max_tokens=length)) for length in (5, 9))
        >>> votes = tempfile.mkdtemp() + "/judged.jsonl"
        >>> judged = asyncio.run(ajudge_answers(engines, ["How is leave booked?"], MockLLM(), votes=votes))
        >>> judged.verdict, judged.tally.ties  # MockLLM repeats what it is told, and so prefers neither
        ('inconclusive', 1)
    """
    from llama_index.core import Settings
    from tqdm.auto import tqdm

    asked = {question: None for text in questions if (question := text.strip())}
    if not asked:
        raise InputError("there is no question to judge answers by: give some")
    if unknown := set(metrics) - {"faithfulness", "correctness"}:
        raise InputError(f"the metric {sorted(unknown)[0]!r} is unknown: give 'faithfulness' or 'correctness'")
    given = references or {}
    if "correctness" in metrics and (without := next((each for each in asked if not given.get(each)), None)):
        raise InputError(f"correctness needs the right answer of each question: references has none for {without!r}")
    kept = votes if isinstance(votes, Votes) else Votes(votes)
    judge = AnswerJudge(llm or Settings.llm, kept, _sides_of(engines), Sides(timeout=timeout), given, tuple(metrics))
    done = {key for key, shown in shown_queries(kept.rows()).items() if shown.vote is not None}
    todo = [question for question in asked if judge.key(question) not in done]
    with tqdm(desc="judging", total=len(asked), initial=len(asked) - len(todo), disable=not show_progress) as bar:
        await judge.judge_all(todo, workers, bar.update)
    return _summed_up(kept, [judge.key(question) for question in asked], judge.failures)


def _sides_of(engines: ABQueryEngine | tuple[BaseQueryEngine, BaseQueryEngine]) -> dict[Variant, BaseQueryEngine]:
    a, b = (engines.a, engines.b) if isinstance(engines, ABQueryEngine) else engines
    return {"a": a, "b": b}


def _summed_up(votes: Votes, keys: Sequence[str], failures: Counter[str]) -> JudgedAnswers:
    wanted = set(keys)
    rows = [row for row in votes.rows() if row.get("query") in wanted]
    queries = {key: shown for key, shown in shown_queries(rows).items() if shown.vote is not None}
    tally = tally_of(row for row in rows if row["query"] in queries)
    verdict, reason, difference = judge_votes(tally, voters="the judge's verdicts")
    values: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row["event"] == "score" and row["query"] in queries:
            values.setdefault(row["metric"], {}).setdefault(row["query"], {})[row["side"]] = float(row["value"])
    scores: dict[str, Difference] = {}
    means: dict[str, dict[str, float]] = {}
    for metric, found in values.items():
        both = {key: sides for key, sides in found.items() if len(sides) == len(VARIANTS)}
        pairs = np.array([[sides["a"], sides["b"]] for sides in both.values()])
        scores[metric] = paired_bootstrap(pairs[:, 1] - pairs[:, 0], list(both))
        means[metric] = {side: float(pairs[:, place].mean()) for place, side in enumerate(VARIANTS)}
    said = [shown.row.get("said") or ["tie", "tie"] for shown in queries.values()]
    return JudgedAnswers(
        verdict,
        reason,
        difference,
        tally,
        sum(orders[0] != orders[1] for orders in said),
        {who: failures[who] for who in ("a", "b", "judge")},
        scores,
        means,
        {str(shown.row["question"]): dict(shown.row.get("answers") or {}) for shown in queries.values()},
        {str(shown.row["question"]): str(shown.vote) for shown in queries.values()},
    )
