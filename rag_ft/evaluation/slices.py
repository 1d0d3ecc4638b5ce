"""Some of the questions apart: the figures on them, and their form in `comparison.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.significance import Difference, Evidence

Figures = dict[str, float]


@dataclass(frozen=True)
class Slice:
    """Some of the questions, and each retriever's figures on them.

    Attributes:
        queries: how many questions.
        models: role -> metric -> mean.
        differences: candidate -> difference of nDCG@10 to the baseline.
    """

    queries: int
    models: dict[str, Figures]
    differences: dict[str, Difference] = field(default_factory=dict)


def slices_to_dict(slices: Mapping[str, Slice]) -> dict[str, Any]:
    """Slices as `comparison.json` has them."""
    return {
        name: {
            "queries": part.queries,
            "models": {role: {"metrics": figures} for role, figures in part.models.items()},
            "differences": {role: {HEADLINE: difference_to_dict(value)} for role, value in part.differences.items()},
        }
        for name, part in slices.items()
    }


def slices_from_dict(values: Mapping[str, Any]) -> dict[str, Slice]:
    """Slices of `comparison.json`."""
    return {
        name: Slice(
            part["queries"],
            {role: entry["metrics"] for role, entry in part["models"].items()},
            {role: difference_from_dict(entry[HEADLINE]) for role, entry in part["differences"].items()},
        )
        for name, part in values.items()
    }


def difference_to_dict(difference: Difference) -> dict[str, Any]:
    """A difference as `comparison.json` has it; a bound that is not known is null."""
    finite = [value if np.isfinite(value) else None for value in difference.ci95]
    return {"mean": difference.mean, "ci95": finite, "p_value": difference.p_value}


def difference_from_dict(values: Mapping[str, Any]) -> Difference:
    """A difference of `comparison.json`."""
    low, high = values["ci95"]
    interval = (float("-inf") if low is None else low, float("inf") if high is None else high)
    return Difference(values["mean"], interval, values["p_value"])


def evidence_to_dict(evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    """What else was found of each candidate, as `comparison.json` has it."""
    return {role: vars(found) for role, found in evidence.items()}


def evidence_from_dict(values: Mapping[str, Any]) -> dict[str, Evidence]:
    """What else was found of each candidate, of `comparison.json`."""
    return {role: Evidence(**found) for role, found in values.items()}
