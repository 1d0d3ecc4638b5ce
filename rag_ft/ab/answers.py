"""Have an LLM judge the answers of two query engines, with LlamaIndex's evaluators."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.ab.answer_judge import AnswerJudge, JudgeOptions
from rag_ft.ab.query_engine import ABQueryEngine
from rag_ft.ab.vote_verdict import decide_from_votes
from rag_ft.errors import InputError
from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import Verdict
from rag_ft.feedback.shown_query import shown_queries
from rag_ft.feedback.tally import Tally, tally_of
from rag_ft.feedback.variants import VARIANTS
from rag_ft.feedback.vote_log import Votes

if TYPE_CHECKING:
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.llms import LLM


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers:
    """The answers of two variants, and the verdict of an LLM judge.

    Attributes:
        verdict: the verdict on variant b.
        reason: the reason for the verdict, in one sentence.
        difference: mean credit of b over a, -1 to 1, with its confidence interval.
        tally: how many questions each variant won.
        disagreed: number of questions whose winner depended on the order of the answers; these are ties.
        failed: how often `a`, `b` and the `judge` failed; repeat the call to retry these questions.
        scores: metric -> mean of b minus a, over the questions on which both have a score.
        means: metric -> variant -> mean: `faithfulness` is the fraction of answers that their passages support,
            `correctness` is 1 to 5.
        answers: question -> variant -> answer.
        better: question -> the variant whose answer is better, or `tie`.

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
        lines = [f"{self.verdict}: {self.reason}", f"{self.tally}; depended on the order {self.disagreed}"]
        lines += [
            f"{metric}: a {self.means[metric]['a']:.3f}, b {self.means[metric]['b']:.3f}, {difference} for b"
            for metric, difference in self.scores.items()
        ]
        if any(self.failed.values()):
            lines.append("failed: " + ", ".join(f"{part} {count}" for part, count in self.failed.items() if count))
        return "\n".join(lines)


def judge_answers(
    engines: ABQueryEngine | tuple[BaseQueryEngine, BaseQueryEngine],
    questions: Sequence[str],
    llm: LLM | None = None,
    *,
    votes: str | Path | Votes,
    options: JudgeOptions | None = None,
    show_progress: bool = False,
) -> JudgedAnswers:
    """Ask two query engines the same questions, and have an LLM judge which answers are better.

    The judge is LlamaIndex's `PairwiseComparisonEvaluator`. It sees the answers in both orders: a variant wins a
    question if the judge prefers it both times; otherwise it is a tie (Zheng et al. 2023 on position bias). Each
    verdict is saved before the next question starts. Repeat the call to resume a killed run and to retry failed
    questions. `decide_from_votes` decides, and each question counts as one session.

    Args:
        engines: (in use, replacement), or an `ABQueryEngine` with these variants.
        questions: the questions; duplicates count once.
        llm: the judge; `Settings.llm` if None. Use an LLM that does not write the answers: judges favour their own.
        votes: a vote log for these two engines and this judge only.
        options: metrics, reference answers, and limits.
        show_progress: show a progress bar.

    Raises:
        InputError: if there is no question, or `correctness` lacks a reference answer.
        OutsideError: if ten questions in a row, or all, could not be judged.

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
        >>> engines = (Says(word="yes"), Says(word="no"))
        >>> judged = judge_answers(engines, ["Is it?"], AlwaysFirst(), votes=tempfile.mkdtemp() + "/judged.jsonl")
        >>> judged.tally.ties, judged.disagreed
        (1, 1)
    """
    from llama_index.core.async_utils import asyncio_run

    judging = ajudge_answers(engines, questions, llm, votes=votes, options=options, show_progress=show_progress)
    return asyncio_run(judging)  # type: ignore[no-any-return]


async def ajudge_answers(
    engines: ABQueryEngine | tuple[BaseQueryEngine, BaseQueryEngine],
    questions: Sequence[str],
    llm: LLM | None = None,
    *,
    votes: str | Path | Votes,
    options: JudgeOptions | None = None,
    show_progress: bool = False,
) -> JudgedAnswers:
    """Do what `judge_answers` does within a running event loop.

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
        >>> judged.verdict, judged.tally.ties  # MockLLM repeats its prompt, and so prefers neither
        ('inconclusive', 1)
    """
    from llama_index.core import Settings
    from tqdm.auto import tqdm

    options = options or JudgeOptions()
    unique = list(dict.fromkeys(question for text in questions if (question := text.strip())))
    if not unique:
        raise InputError("questions is empty: pass at least one question")
    if "correctness" in options.metrics:
        for question in unique:
            if not options.references.get(question):
                raise InputError(
                    f"correctness needs a reference answer for each question: references has none for {question!r}"
                )
    log = votes if isinstance(votes, Votes) else Votes(votes)
    a, b = (engines.a, engines.b) if isinstance(engines, ABQueryEngine) else engines
    judge = AnswerJudge(llm or Settings.llm, log, {"a": a, "b": b}, options)
    judged = {key for key, shown in shown_queries(log.rows()).items() if shown.vote is not None}
    unjudged = [question for question in unique if judge.key(question) not in judged]
    with tqdm(desc="judging", total=len(unique), initial=len(unique) - len(unjudged), disable=not show_progress) as bar:
        await judge.judge_all(unjudged, bar.update)
    return _summary(log, {judge.key(question) for question in unique}, judge.failures)


def _summary(votes: Votes, keys: set[str], failures: Counter[str]) -> JudgedAnswers:
    rows = [row for row in votes.rows() if row.get("query") in keys]
    queries = {key: shown for key, shown in shown_queries(rows).items() if shown.vote is not None}
    rows = [row for row in rows if row["query"] in queries]
    tally = tally_of(rows)
    verdict, reason, difference = decide_from_votes(tally, voters="the judge's verdicts")
    scores, means = _scores(rows)
    preferences = [shown.row.get("said") or ["tie", "tie"] for shown in queries.values()]
    return JudgedAnswers(
        verdict=verdict,
        reason=reason,
        difference=difference,
        tally=tally,
        disagreed=sum(orders[0] != orders[1] for orders in preferences),
        failed={part: failures[part] for part in ("a", "b", "judge")},
        scores=scores,
        means=means,
        answers={str(shown.row["question"]): dict(shown.row.get("answers") or {}) for shown in queries.values()},
        better={str(shown.row["question"]): str(shown.vote) for shown in queries.values()},
    )


def _scores(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Difference], dict[str, dict[str, float]]]:
    """Return (metric -> mean of b minus a, metric -> variant -> mean), over questions with both scores."""
    values: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["event"] == "score":
            values[row["metric"]][row["query"]][row["side"]] = float(row["value"])
    scores: dict[str, Difference] = {}
    means: dict[str, dict[str, float]] = {}
    for metric, by_query in values.items():
        complete = {query: by_variant for query, by_variant in by_query.items() if len(by_variant) == len(VARIANTS)}
        pairs = np.array([[by_variant[variant] for variant in VARIANTS] for by_variant in complete.values()])
        # Correctness is 1 to 5, the others are 0 or 1.
        limit = 4.0 if metric == "correctness" else 1.0
        scores[metric] = paired_bootstrap(pairs[:, 1] - pairs[:, 0], list(complete), limit=limit)
        means[metric] = {variant: float(pairs[:, column].mean()) for column, variant in enumerate(VARIANTS)}
    return scores, means
