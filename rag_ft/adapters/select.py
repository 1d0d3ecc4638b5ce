"""Which map is shipped: the identity is a candidate, dev decides, and what is not sure to be better stays out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.adapters.fitting import fit_path
from rag_ft.adapters.vectors import AdapterVectors
from rag_ft.embedding.adapter_maps import mapped
from rag_ft.evaluation.significance import Difference, holm
from rag_ft.training.selection.dev_score import FEWEST, dev_score, gain_of, parts_of
from rag_ft.training.selection.dev_set import DevQuestions
from rag_ft.training.selection.diagnostics import check_sources
from rag_ft.training.selection.forgetting import ForgettingProbe
from rag_ft.training.selection.select import SURE, objection_to

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

FORGETTING = 0.1
"""How much less sure of general questions an adapter may be than the embedding (`ForgettingProbe.score`)."""


@dataclass(frozen=True)
class AdapterSelection:
    """What dev chose among the maps."""

    module: torch.nn.Module
    share: float = 0.0
    strength: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    gain: Difference | None = None
    refused: dict[str, str] = field(default_factory=dict)
    general: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def select_adapter(
    known: AdapterVectors,
    begun: torch.nn.Module,
    strengths: Sequence[float],
    shares: Sequence[float],
    both_sides: bool,
    seed: int,
    device: str,
) -> AdapterSelection:
    """Fit the map for each strength, and take the one that dev likes best, if what it gains is more than chance.

    Args:
        known: the vectors.
        begun: the map as it begins.
        strengths: of the pull to the identity.
        shares: of the way to the map, which are candidates too; none at all where nothing may be learned.
        both_sides: whether passages change too.
        seed: of the draws.
        device: a torch device.
    """
    unchanged = AdapterSelection(copy.deepcopy(begun).cpu())
    general = {"base": ForgettingProbe.score_of(*known.general)}
    if known.dev is None:
        return replace(unchanged, general=general)
    base_values = known.values(known.queries, known.passages)
    scores = {"base": dev_score(base_values, known.dev)}
    candidates: dict[str, AdapterSelection] = {}
    refused: dict[str, str] = {}
    pulls = strengths if shares else ()
    for strength, module in fit_path(
        copy.deepcopy(begun), known.examples, pulls, both_sides=both_sides, seed=seed, device=device
    ):
        fitted = copy.deepcopy(module).cpu().eval()
        for share in shares:
            name = f"pull {strength:g}" + (f" (share {share:g})" if share != 1 else "")
            changed = partial(_changed, fitted, share)
            beside = changed if both_sides else _same
            general[name] = ForgettingProbe.score_of(changed(known.general[0]), beside(known.general[1]))
            values = known.values(changed(known.queries), beside(known.passages))
            scores[name] = dev_score(values, known.dev)
            gain = gain_of(values - base_values, known.dev, seed)
            if scores[name] > scores["base"] and (reason := _objection(values - base_values, gain, known.dev)):
                refused[name] = reason
            findings = check_sources(values - base_values, known.dev.sources)
            if not general["base"] - general[name] <= FORGETTING:
                refused[name] = f"forgets: {general['base']:.3f} -> {general[name]:.3f} on general questions"
            candidates[name] = AdapterSelection(fitted, share, strength, gain=gain, findings=findings)
    refused |= _chances({name: each.gain for name, each in candidates.items() if each.gain is not None}, refused)
    left = [candidates[name] for name in candidates if name not in refused and scores[name] > scores["base"]]
    best = max(left, key=lambda each: each.gain.mean if each.gain is not None else 0.0, default=unchanged)
    return replace(best, scores=scores, refused=refused, general=general)


def _objection(differences: NDArray[np.float64], gain: Difference, dev: DevQuestions) -> str:
    """Why a gain on dev is not believed: where the guard says so, and where one part of dev loses at all."""
    parts = np.asarray(parts_of(dev))
    for part in dict.fromkeys(parts.tolist()):
        chosen = parts == part
        if chosen.sum() >= FEWEST and (mean := float(differences[chosen].mean())) < 0:
            return f"it loses on the dev questions of one kind ({part}: {mean:+.3f})"
    return objection_to(differences, gain, dev)


def _chances(gains: Mapping[str, Difference], refused: Mapping[str, str]) -> dict[str, str]:
    """Candidates whose gain may be one of chance's several tries, and why."""
    # One-sided, as `SURE` is; a loss is no try that could have been taken for a gain, but it was one.
    tries = {name: gain.p_value / 2 if gain.mean > 0 else 1.0 for name, gain in gains.items()}
    return {
        name: f"its gain on dev may be chance where {len(tries)} maps are tried ({gains[name]})"
        for name, p_value in holm(tries).items()
        if p_value > SURE and gains[name].mean > 0 and name not in refused
    }


def _same(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors


def _changed(module: torch.nn.Module, share: float, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        found: NDArray[np.float32] = mapped(module, torch.from_numpy(vectors), share).numpy()
    return found
