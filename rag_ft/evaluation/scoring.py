"""Score runs: metrics, differences with intervals, slices and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.sources import KEY_PHRASES
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.conclusion import ComparedResults, Conclusion, conclude
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.options import CompareOptions
from rag_ft.evaluation.question_notes import notes_on_questions
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.retriever_choice import Choice, halves
from rag_ft.evaluation.roles import BASELINE, CANDIDATE
from rag_ft.evaluation.runs.run import Run
from rag_ft.evaluation.significance import (
    Difference,
    Evidence,
    holm,
    paired_bootstrap,
    paired_randomisation,
    smallest_effect,
)
from rag_ft.evaluation.slices import Figures, Slice, held_out_slices, trait_slices
from rag_ft.evaluation.verdict import Costs, Verdict, VerdictRules, decide

MIN_MILLISECONDS = 5.0
"""Query times below this count as equal: users do not notice the difference."""


@dataclass(frozen=True, kw_only=True)
class QueryScores:
    """The metrics of each query under each run.

    Attributes:
        per_query: role -> metric -> value of each query, shape (queries,).
        groups: the group that each query is resampled with.
        seed: seeds the resampling.
    """

    per_query: Mapping[str, Mapping[str, NDArray[np.float64]]]
    groups: Sequence[object]
    seed: int

    @property
    def candidates(self) -> list[str]:
        """The roles that get a verdict."""
        return [role for role in self.per_query if role.startswith(CANDIDATE)]

    def gains(self, role: str, metric: str = HEADLINE) -> NDArray[np.float64]:
        """Return the difference to the baseline for each query, shape (queries,)."""
        return self.per_query[role][metric] - self.per_query[BASELINE][metric]

    def difference(self, role: str, metric: str = HEADLINE) -> Difference:
        """Return the mean difference to the baseline, with its interval."""
        return paired_bootstrap(self.gains(role, metric), self.groups, self.seed)

    def between(self, role: str, other: str) -> Difference:
        """Return the mean difference of two roles in the headline metric, with its interval."""
        values = self.per_query[role][HEADLINE] - self.per_query[other][HEADLINE]
        return paired_bootstrap(values, self.groups, self.seed)

    def means(self) -> dict[str, Figures]:
        """Return role -> metric -> mean."""
        return {
            role: {metric: float(scores.mean()) if len(scores) else 0.0 for metric, scores in values.items()}
            for role, values in self.per_query.items()
        }

    def slice(self, mask: NDArray[np.bool_]) -> Slice:
        """Return the metrics on some of the queries."""
        if not mask.any():
            return Slice(0, {})
        part = self.part(mask)
        return Slice(len(part.groups), part.means(), {role: part.difference(role) for role in part.candidates})

    def part(self, mask: NDArray[np.bool_]) -> QueryScores:
        """Return the scores of some of the queries."""
        groups = [group for group, selected in zip(self.groups, mask, strict=True) if selected]
        per_query = {
            role: {metric: scores[mask] for metric, scores in values.items()} for role, values in self.per_query.items()
        }
        return QueryScores(per_query=per_query, groups=groups, seed=self.seed)

    def ndcg(self) -> dict[str, float]:
        """Return role -> mean of the headline metric."""
        return {role: figures[HEADLINE] for role, figures in self.means().items()}

    def evidence(self, role: str, adjusted_p: float | None) -> Evidence:
        """Return the evidence for a candidate's gain besides its interval."""
        gains = self.gains(role)
        return Evidence(
            paired_randomisation(gains, self.groups, self.seed), adjusted_p, smallest_effect(gains, self.groups)
        )


def score_runs(
    dataset: QADataset,
    split: str,
    runs: Mapping[str, Run],
    options: CompareOptions | None = None,
    *,
    characters_read: Mapping[str, int] | None = None,
    on_dev: tuple[Mapping[str, float], int] | None = None,
    base_kept: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare runs on the questions of a split.

    Args:
        dataset: the dataset.
        split: the split of the questions.
        runs: role (`baseline`, `candidate`, `candidate-2`, ..., or another one) -> its run.
        options: metrics, limits of the verdict, and the name of the dataset.
        characters_read: id of each passage that a candidate truncates -> characters that it reads
            (`rag_ft.evaluation.truncation.characters_read`).
        on_dev: role -> nDCG@10 on dev questions, and their number. These choose the retriever to use; without them a
            random half of the split's documents does.
        base_kept: candidate whose training kept the base model -> why.
        seed: seeds the resampling.

    Raises:
        InputError: if the split has no question, or a metric is unknown.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import Run, score_runs
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "How do I get holidays?")}, {"test": {"q": {"a": 1}}})
        >>> comparison = score_runs(dataset, "test", {"baseline": Run([["b", "a"]]), "candidate": Run([["a", "b"]])})
        >>> comparison.models["baseline"]["mrr@10"], comparison.models["candidate"]["mrr@10"]
        (0.5, 1.0)
    """
    options, characters_read = options or CompareOptions(), dict(characters_read or {})
    qrels = dataset.require(split)
    metrics = list(dict.fromkeys([*options.metrics, HEADLINE]))
    per_query = {
        role: metrics_per_query(dict(zip(qrels, run.rankings, strict=True)), qrels, metrics, dataset.one_answer(split))
        for role, run in runs.items()
    }
    groups, resampling_note = resampling_groups(dataset, split)
    scores = QueryScores(per_query=per_query, groups=groups, seed=seed)
    differences = {role: {metric: scores.difference(role, metric) for metric in metrics} for role in scores.candidates}
    p_values = {role: by_metric[HEADLINE].p_value for role, by_metric in differences.items()}
    adjusted = holm(p_values) if len(p_values) > 1 else {}
    held_out, traits = held_out_slices(dataset, split), trait_slices(dataset, split, characters_read)
    slices = {name: scores.slice(mask) for name, mask in held_out.items()}
    few_documents = bool(resampling_note)
    verdicts = _verdicts(runs, differences, slices, adjusted, options.rules, few_documents)
    for role, why in (base_kept or {}).items():
        verdict, reason = verdicts[role]
        verdicts[role] = verdict, f"{reason}; the training kept the base model, because {why}"
    return Comparison(
        dataset=options.name,
        split=split,
        queries=len(qrels),
        passages=len(dataset.passages),
        documents=len(dataset.documents),
        names={role: run.name or role for role, run in runs.items()},
        models=scores.means(),
        details={role: dict(run.details) for role, run in runs.items() if run.details},
        differences=differences,
        slices=slices,
        aspects={name: scores.slice(mask) for name, mask in traits.items()},
        verdicts={role: verdict for role, (verdict, _) in verdicts.items()},
        reasons={role: reason for role, (_, reason) in verdicts.items()},
        evidence={role: scores.evidence(role, adjusted.get(role)) for role in scores.candidates},
        conclusion=_conclude(runs, scores, verdicts, on_dev, options.rules, dataset, split, few_documents),
        seed=seed,
        notes=(*([resampling_note] if resampling_note else []), *notes_on_questions(dataset, split)),
        per_query=per_query,
        rankings={role: run.rankings for role, run in runs.items()},
        members=held_out | traits,
        characters_read=characters_read,
    )


def _verdicts(
    runs: Mapping[str, Run],
    differences: Mapping[str, Mapping[str, Difference]],
    slices: Mapping[str, Slice],
    adjusted: Mapping[str, float],
    rules: VerdictRules,
    few_documents: bool,
) -> dict[str, tuple[Verdict, str]]:
    """Return the verdict on each candidate, and its reason."""
    return {
        role: decide(
            difference[HEADLINE],
            len(runs[role].rankings),
            {name: part.differences[role] for name, part in slices.items() if part.queries},
            rules=rules,
            costs=_costs(runs, role),
            adjusted_p=adjusted.get(role),
            few_documents=few_documents,
        )
        for role, difference in differences.items()
    }


def _costs(runs: Mapping[str, Run], role: str) -> Costs:
    """Return what a candidate costs as multiples of the baseline; 1 if it was not measured."""

    def ratio(detail: str, minimum: float) -> float:
        candidate, baseline = (max(minimum, runs[each].details.get(detail, 0.0)) for each in (role, BASELINE))
        return candidate / baseline

    return Costs(ratio("query_milliseconds", MIN_MILLISECONDS), ratio("dimension", 1.0))


def _conclude(
    runs: Mapping[str, Run],
    scores: QueryScores,
    verdicts: Mapping[str, tuple[Verdict, str]],
    on_dev: tuple[Mapping[str, float], int] | None,
    rules: VerdictRules,
    dataset: QADataset,
    split: str,
    few_documents: bool,
) -> Conclusion:
    """Choose on dev questions, or else on half of the documents, and conclude."""
    kinds = {role: str(run.details["kind"]) for role, run in runs.items() if "kind" in run.details}
    reported, name = scores, f"the {split} questions"
    if on_dev is not None:
        choice = Choice(scores=on_dev[0], questions=on_dev[1], kinds=kinds, margin=rules.margin)
    else:
        half = halves(scores.groups, scores.seed)
        chosen_on, reported = scores.part(half), scores.part(~half)
        choice = Choice(
            scores=chosen_on.ndcg() if half.any() else {}, questions=int(half.sum()), kinds=kinds, margin=rules.margin,
            questions_from="of these questions",
        )  # fmt: skip
        name = f"the other {int((~half).sum()):,}"
    results = ComparedResults(
        ndcg=reported.ndcg(),
        difference=reported.between,
        verdicts={role: verdict for role, (verdict, _) in verdicts.items()},
        reasons={role: reason for role, (_, reason) in verdicts.items()},
        names={role: run.name or role for role, run in runs.items()},
        details={role: run.details for role, run in runs.items()},
        questions=len(scores.groups),
        questions_name=name,
        min_questions=rules.min_questions,
        few_documents=few_documents,
        are_key_phrases=2 * sum(query.source == KEY_PHRASES for query in dataset.questions(split)) > len(scores.groups),
    )
    return conclude(choice, results)
