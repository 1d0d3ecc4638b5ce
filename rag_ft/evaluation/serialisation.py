"""Convert differences, slices and evidence to and from the values in `comparison.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.significance import Difference, Evidence
from rag_ft.evaluation.slices import Slice


def slices_to_dict(slices: Mapping[str, Slice]) -> dict[str, Any]:
    """Return slices as JSON values."""
    return {
        name: {
            "queries": part.queries,
            "models": {role: {"metrics": figures} for role, figures in part.models.items()},
            "differences": {role: {HEADLINE: difference_to_dict(value)} for role, value in part.differences.items()},
        }
        for name, part in slices.items()
    }


def slices_from_dict(values: Mapping[str, Any]) -> dict[str, Slice]:
    """Read what `slices_to_dict` returned."""
    return {
        name: Slice(
            part["queries"],
            {role: entry["metrics"] for role, entry in part["models"].items()},
            {role: difference_from_dict(entry[HEADLINE]) for role, entry in part["differences"].items()},
        )
        for name, part in values.items()
    }


def difference_to_dict(difference: Difference) -> dict[str, Any]:
    """Return a difference as JSON values. The bounds of an unknown interval are null."""
    bounds = [None, None] if difference.is_unknown else list(difference.ci95)
    return {"mean": difference.mean, "ci95": bounds, "p_value": difference.p_value}


def difference_from_dict(values: Mapping[str, Any]) -> Difference:
    """Read what `difference_to_dict` returned."""
    low, high = values["ci95"]
    interval = (-1.0 if low is None else low, 1.0 if high is None else high)
    return Difference(values["mean"], interval, values["p_value"])


def evidence_to_dict(evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    """Return the evidence on each candidate as JSON values."""
    return {role: vars(each) for role, each in evidence.items()}


def evidence_from_dict(values: Mapping[str, Any]) -> dict[str, Evidence]:
    """Read what `evidence_to_dict` returned."""
    return {role: Evidence(**each) for role, each in values.items()}
