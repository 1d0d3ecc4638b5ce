"""The comparison of several retrievers on the same held-out questions, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag_ft.evaluation.comparison_table import comparison_html, comparison_text
from rag_ft.evaluation.conclusion import Conclusion
from rag_ft.evaluation.roles import BASELINE
from rag_ft.evaluation.serialisation import (
    difference_from_dict,
    difference_to_dict,
    evidence_from_dict,
    evidence_to_dict,
    slices_from_dict,
    slices_to_dict,
)
from rag_ft.evaluation.significance import Difference, Evidence
from rag_ft.evaluation.slices import Figures, Slice
from rag_ft.evaluation.verdict import Verdict
from rag_ft.files import read_json, write_json

HEADER = ("dataset", "split", "queries", "passages", "documents")
"""Attributes that are written to `comparison.json` first, unchanged."""


@dataclass(frozen=True)
class Comparison:
    """The metrics of several retrievers on one split, with confidence intervals and a verdict on each candidate.

    Attributes:
        dataset: the name of the dataset.
        split: the split of the questions.
        queries: the number of questions.
        passages: the number of passages that were searched.
        documents: the number of documents that the passages come from.
        names: role (`baseline`, `candidate`, `candidate-2`, ..., `bm25`) -> name of the model.
        models: role -> metric -> mean.
        details: role -> other measurements: agreement with exact search, times, sizes, the fusion.
        differences: candidate -> metric -> difference to the baseline.
        slices: metrics on questions about documents that training sees (`known`) and about others (`new`); of a merged
            dataset also on `earlier` and `later` questions.
        verdicts: candidate -> verdict.
        reasons: candidate -> reason of the verdict.
        notes: limits of the comparison: few documents, how questions were resampled, where they come from.
        aspects: metrics on questions by traits: shared words, length, source, truncated passages, and document if there
            are few.
        evidence: candidate -> p-value of a randomisation test, and the smallest detectable gain.
        conclusion: what was decided, why, what to use, what it costs, and what to do next.
        seed: the seed of the random choices.
        per_query: role -> metric -> value of each question, shape (questions,); not in the JSON.
        rankings: role -> ranked passages for each question; not in the JSON.
        members: name of a slice or aspect -> mask, shape (questions,); not in the JSON.
        characters_read: id of each passage that a candidate truncates -> characters that it reads; not in the JSON.

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
    conclusion: Conclusion | None = None
    seed: int = 0
    per_query: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict, repr=False, compare=False)
    rankings: dict[str, list[list[str]]] = field(default_factory=dict, repr=False, compare=False)
    members: dict[str, NDArray[np.bool_]] = field(default_factory=dict, repr=False, compare=False)
    characters_read: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the first candidate."""
        return next(iter(self.verdicts.values()))

    @property
    def candidates(self) -> list[str]:
        """The roles that have a verdict."""
        return list(self.verdicts)

    @property
    def roles(self) -> list[str]:
        """All roles in the order in which they are shown: baseline, candidates, the others."""
        return list(dict.fromkeys([BASELINE, *self.candidates, *self.models]))

    @property
    def metrics(self) -> list[str]:
        """The metrics, in their order."""
        return list(self.models[BASELINE])

    @property
    def subject(self) -> str:
        """The dataset in one line: its name and its numbers of questions, passages and documents."""
        counts = {f"{self.split} question": self.queries, "passage": self.passages, "document": self.documents}
        questions, passages, documents = (
            f"{count:,} {name if count == 1 else name + 's'}" for name, count in counts.items()
        )
        return f"{self.dataset}: " * bool(self.dataset) + f"{questions}, {passages} of {documents}"

    def label(self, role: str) -> str:
        """Return a role and the name of its model, or the role alone if both are the same."""
        name = self.names.get(role, role)
        return role if name == role else f"{role}: {name}"

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of `comparison.json`."""
        return {
            **{name: getattr(self, name) for name in HEADER},
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
            "recommendation": self.conclusion.to_dict() if self.conclusion else None,
            "seed": self.seed,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Comparison:
        """Read the contents of `comparison.json`, which has no values for single questions."""
        models = values["models"]
        return cls(
            **{name: values[name] for name in HEADER},
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
            conclusion=(
                Conclusion.from_dict(values["recommendation"], values["verdicts"])
                if values.get("recommendation")
                else None
            ),
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

    def __str__(self) -> str:
        return comparison_text(self)

    def _repr_html_(self) -> str:
        return comparison_html(self)
