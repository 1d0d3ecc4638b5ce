"""Before and after on the same held-out questions: the comparison, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.units import MIN_DOCUMENTS, PASSAGES_PER_UNIT
from rag_ft.evaluation.aspects import about_questions, aspects_of
from rag_ft.evaluation.metrics import DEFAULT_METRICS, HEADLINE, metrics_per_query
from rag_ft.evaluation.recommendation import Recommendation, recommend
from rag_ft.evaluation.significance import (
    Difference,
    Evidence,
    holm,
    paired_bootstrap,
    paired_randomisation,
    smallest_effect,
)
from rag_ft.evaluation.slices import (
    Figures,
    Slice,
    difference_from_dict,
    difference_to_dict,
    evidence_from_dict,
    evidence_to_dict,
    slices_from_dict,
    slices_to_dict,
)
from rag_ft.evaluation.verdict import Costs, Verdict, VerdictRules, decide
from rag_ft.files import read_json, write_json

BASELINE = "baseline"
DEPTH = 100


@dataclass(frozen=True)
class Comparison:
    """The figures of several retrievers on one split, with intervals and a verdict on each candidate.

    Attributes:
        dataset: its name.
        split: the split whose questions were asked.
        queries: how many questions.
        passages: how many passages were searched.
        documents: how many documents they come from.
        names: role (`baseline`, `candidate`, `candidate-2`, ..., `bm25`) -> the model's name.
        models: role -> metric -> mean.
        details: role -> what else was seen: agreement with exact search, times, sizes, how lists were mixed.
        differences: candidate -> metric -> difference to the baseline.
        slices: `known` and `new` questions apart.
        aspects: kinds of questions apart: by the words that they share with their passages, length, who made them,
            whether their passage is read to its end, and document where these are few.
        verdicts: candidate -> verdict.
        reasons: candidate -> why.
        notes: what a reader should know: how few documents, what was resampled, who made the questions.
        evidence: candidate -> p-value of a randomisation test, and the smallest gain that would show.
        recommendation: the simplest retriever of all that is not significantly worse than the best.
        seed: of the draws.
        per_query: role -> metric -> one value for each question; not in the JSON.
        rankings: role -> passages found for each question; not in the JSON.
        members: name of a slice or aspect -> one truth value for each question; not in the JSON.
        cut: passage id -> characters that a candidate reads of it, where it does not read it all; not in the JSON.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Comparison, Passage, QADataset, Query, compare
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"a": 1}}})
        >>> file = compare(dataset, MockEmbedding(embed_dim=8), "bm25").save(tempfile.mkdtemp() + "/comparison.json")
        >>> comparison = Comparison.load(file)
        >>> comparison.candidates, comparison.verdict, comparison.models["candidate"]["mrr@10"]
        (['candidate'], 'inconclusive', 1.0)
    """

    dataset: str
    split: str
    queries: int
    passages: int
    documents: int
    names: dict[str, str]
    models: dict[str, Figures]
    details: dict[str, dict[str, Any]]
    differences: dict[str, dict[str, Difference]]
    slices: dict[str, Slice]
    verdicts: dict[str, Verdict]
    reasons: dict[str, str]
    notes: tuple[str, ...] = ()
    aspects: dict[str, Slice] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    recommendation: Recommendation | None = None
    seed: int = 0
    per_query: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict, repr=False, compare=False)
    rankings: dict[str, list[list[str]]] = field(default_factory=dict, repr=False, compare=False)
    members: dict[str, NDArray[np.bool_]] = field(default_factory=dict, repr=False, compare=False)
    cut: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the first candidate."""
        return next(iter(self.verdicts.values()))

    @property
    def candidates(self) -> list[str]:
        """The roles that are judged against the baseline."""
        return list(self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """The contents of `comparison.json`."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "queries": self.queries,
            "passages": self.passages,
            "documents": self.documents,
            "models": {
                role: {"name": self.names[role], "metrics": figures, **self.details.get(role, {})}
                for role, figures in self.models.items()
            },
            "differences": {
                role: {metric: difference_to_dict(value) for metric, value in metrics.items()}
                for role, metrics in self.differences.items()
            },
            "slices": slices_to_dict(self.slices),
            "aspects": slices_to_dict(self.aspects),
            "verdicts": self.verdicts,
            "reasons": self.reasons,
            "evidence": evidence_to_dict(self.evidence),
            "recommendation": self.recommendation.to_dict() if self.recommendation else None,
            "seed": self.seed,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Comparison:
        """A comparison from `comparison.json`; the values of single questions are not in it."""
        models = values["models"]
        return cls(
            **{key: values[key] for key in ("dataset", "split", "queries", "passages", "documents")},
            names={role: entry["name"] for role, entry in models.items()},
            models={role: entry["metrics"] for role, entry in models.items()},
            details={
                role: {key: value for key, value in entry.items() if key not in ("name", "metrics")}
                for role, entry in models.items()
                if entry.keys() - {"name", "metrics"}
            },
            differences={
                role: {metric: difference_from_dict(value) for metric, value in metrics.items()}
                for role, metrics in values["differences"].items()
            },
            slices=slices_from_dict(values["slices"]),
            aspects=slices_from_dict(values.get("aspects", {})),
            verdicts=values["verdicts"],
            reasons=values["reasons"],
            evidence=evidence_from_dict(values.get("evidence", {})),
            recommendation=Recommendation(**values["recommendation"]) if values.get("recommendation") else None,
            seed=values.get("seed", 0),
            notes=tuple(values["notes"]),
        )

    def save(self, file: str | Path) -> Path:
        """Write `comparison.json`."""
        write_json(Path(file), self.to_dict())
        return Path(file)

    @classmethod
    def load(cls, file: str | Path) -> Comparison:
        """Read `comparison.json`."""
        return cls.from_dict(read_json(Path(file)))

    def to_markdown(self, dataset: QADataset | None = None) -> str:
        """The comparison as Markdown, for a pull request; with its dataset the largest wins and losses too."""
        from rag_ft.report.html import to_markdown

        return to_markdown(self, dataset)

    def __str__(self) -> str:
        from rag_ft.report.console import comparison_text

        return comparison_text(self)


def judge(
    dataset: QADataset,
    split: str,
    rankings: Mapping[str, list[list[str]]],
    names: Mapping[str, str],
    name: str = "",
    metrics: Sequence[str] = DEFAULT_METRICS,
    seed: int = 0,
    details: Mapping[str, Mapping[str, Any]] | None = None,
    rules: VerdictRules | None = None,
    cut: Mapping[str, int] | None = None,
) -> Comparison:
    """Turn rankings into a comparison: metrics, differences, slices and verdicts.

    Args:
        dataset: whose questions were asked.
        split: which of them.
        rankings: role -> the passages found for each question, in the order of the split's qrels.
        names: role -> the name to show.
        name: of the dataset.
        metrics: names like `ndcg@10`.
        seed: of the bootstrap.
        details: role -> more figures to keep; `query_milliseconds` and `dimension` weigh in the verdict.
        rules: of the verdict.
        cut: passage id -> characters that a candidate reads of it, where it does not read it all
            (`rag_ft.evaluation.aspects.characters_read`).
    """
    qrels = dataset.require(split)
    metrics = list(dict.fromkeys([*metrics, HEADLINE]))
    per_query = {
        role: metrics_per_query(dict(zip(qrels, lists, strict=True)), qrels, metrics)
        for role, lists in rankings.items()
    }
    groups, resampled = resampling_groups(dataset, split)
    candidates = [role for role in rankings if role.startswith("candidate")]
    differences = {
        role: {
            metric: paired_bootstrap(per_query[role][metric] - per_query[BASELINE][metric], groups, seed)
            for metric in metrics
        }
        for role in candidates
    }
    known = dataset.seen_queries(split)
    is_known = np.array([query in known for query in qrels])
    kinds = {"known": is_known, "new": ~is_known}
    earlier = set(dataset.info.get("earlier_questions", ()))
    is_earlier = np.array([query in earlier for query in qrels])
    if is_earlier.any():
        kinds |= {"earlier": is_earlier, "later": ~is_earlier}
    aspects = aspects_of(dataset, split, cut or {})

    def apart(masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, Slice]:
        return {name: _slice(mask, per_query, groups, candidates, seed) for name, mask in masks.items()}

    slices = apart(kinds)
    verdicts: dict[str, Verdict] = {}
    reasons: dict[str, str] = {}
    adjusted = holm({role: differences[role][HEADLINE].p_value for role in candidates}) if len(candidates) > 1 else {}
    for role in candidates:
        by_kind = {label: part.differences[role] for label, part in slices.items() if part.queries}
        verdicts[role], reasons[role] = decide(
            differences[role][HEADLINE],
            len(qrels),
            by_kind,
            rules=rules,
            costs=_costs(details or {}, role),
            adjusted=adjusted.get(role),
        )
    return Comparison(
        dataset=name,
        split=split,
        queries=len(qrels),
        passages=len(dataset.passages),
        documents=len(dataset.documents),
        names=dict(names),
        models={role: _means(values) for role, values in per_query.items()},
        details={role: dict(values) for role, values in (details or {}).items()},
        differences=differences,
        slices=slices,
        aspects=apart(aspects),
        verdicts=verdicts,
        reasons=reasons,
        evidence={
            role: Evidence(
                paired_randomisation(gain := per_query[role][HEADLINE] - per_query[BASELINE][HEADLINE], groups, seed),
                adjusted.get(role),
                smallest_effect(gain, groups),
            )
            for role in candidates
        },
        recommendation=recommend(
            {role: values[HEADLINE] for role, values in per_query.items()},
            groups,
            {role: str(values["kind"]) for role, values in (details or {}).items() if "kind" in values},
            seed,
        ),
        seed=seed,
        notes=(*([resampled] if resampled else []), *about_questions(dataset, split)),
        per_query=per_query,
        rankings=dict(rankings),
        members=kinds | aspects,
        cut=dict(cut or {}),
    )


def resampling_groups(dataset: QADataset, split: str) -> tuple[list[object], str]:
    """(for each question what it is resampled with, a note where that is not simply its document)."""
    qrels = dataset.require(split)
    first = [next(iter(relevant)) for relevant in qrels.values()]
    asked = {dataset.passages[passage].document for passage in first}
    if len(asked) >= MIN_DOCUMENTS:
        return [dataset.passages[passage].document for passage in first], ""
    units = dataset.split_units if len(dataset.documents) < MIN_DOCUMENTS else None
    if units is None:
        order = {
            p: (document, place // PASSAGES_PER_UNIT)
            for document, ids in dataset.documents.items()
            for place, p in enumerate(ids)
        }
        groups: list[object] = [order[passage] for passage in first]
    else:
        groups = [units[passage] for passage in first]
    count = len(asked)
    documents = "1 document" if count == 1 else f"{count} documents"
    return groups, (
        f"The questions come from {documents}: groups of 5 neighbouring passages were resampled instead, "
        "so that the interval says nothing about other documents."
    )


def _costs(details: Mapping[str, Mapping[str, Any]], role: str) -> Costs:
    """What a candidate takes beside the baseline, where it was measured."""

    def times(name: str, least: float) -> float:
        one, other = (max(least, details.get(each, {}).get(name, 0.0)) for each in (role, BASELINE))
        return one / other

    # Under a few milliseconds a ratio says nothing that a user would feel.
    return Costs(times("query_milliseconds", 5.0), times("dimension", 1.0))


def _means(values: Mapping[str, NDArray[np.float64]]) -> Figures:
    return {metric: float(scores.mean()) if len(scores) else 0.0 for metric, scores in values.items()}


def _slice(
    chosen: NDArray[np.bool_],
    per_query: Mapping[str, Mapping[str, NDArray[np.float64]]],
    groups: Sequence[object],
    candidates: Sequence[str],
    seed: int,
) -> Slice:
    picked = [group for group, wanted in zip(groups, chosen, strict=True) if wanted]
    if not picked:
        return Slice(0, {})
    parts = {role: {metric: scores[chosen] for metric, scores in values.items()} for role, values in per_query.items()}
    return Slice(
        len(picked),
        {role: _means(values) for role, values in parts.items()},
        {
            role: paired_bootstrap(parts[role][HEADLINE] - parts[BASELINE][HEADLINE], picked, seed)
            for role in candidates
        },
    )
