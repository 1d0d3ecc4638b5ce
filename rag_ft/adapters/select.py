"""Fit a map for each pull towards the identity, and select one of them or none."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from rag_ft.adapters.fitting import fit_path
from rag_ft.adapters.recipe import AdapterRecipe
from rag_ft.adapters.vectors import AdapterVectors
from rag_ft.embedding.adapter_maps import apply_map
from rag_ft.training.selection.diagnostics import check_sources
from rag_ft.training.selection.forgetting import ForgettingProbe
from rag_ft.training.selection.select import BASE, Candidate, Policy, Selection, select

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FORGETTING = 0.1
"""Maximum drop of the score on general questions."""


@dataclass(frozen=True, kw_only=True)
class FittedMap:
    """A candidate's map.

    Attributes:
        module: the map.
        pull: the pull that it was fitted with; None for the identity.
        findings: warnings from its dev scores.
    """

    module: torch.nn.Module
    pull: float | None = None
    findings: tuple[str, ...] = ()


def select_map(
    vectors: AdapterVectors, identity: torch.nn.Module, alphas: Sequence[float], recipe: AdapterRecipe
) -> tuple[Selection, FittedMap]:
    """Fit the map for each pull, and select the one with the best dev score if its gain is more than chance.

    Args:
        vectors: the vectors of the dataset.
        identity: the map before training.
        alphas: weights of the fitted map to try; if empty, nothing is fitted.
        recipe: the recipe.
    """
    unchanged = FittedMap(module=copy.deepcopy(identity).cpu())
    general = ForgettingProbe.score_of(*vectors.general)
    if vectors.dev is None:
        return Selection(general={BASE: general}), unchanged
    base = Candidate(name=BASE, alpha=0.0, values=vectors.values(vectors.queries, vectors.passages), general=general)
    maps: dict[str, FittedMap] = {BASE: unchanged}

    def candidates() -> Iterator[Candidate]:
        for pull, module in fit_path(copy.deepcopy(identity), vectors.examples, recipe if alphas else None):
            fitted = copy.deepcopy(module).cpu().eval()
            for alpha in alphas:
                candidate = _measure(vectors, fitted, f"pull {pull:g}", alpha, recipe.map_passages)
                assert vectors.dev is not None
                findings = check_sources(candidate.values - base.values, vectors.dev.sources)
                maps[candidate.name] = FittedMap(module=fitted, pull=pull, findings=tuple(findings))
                yield candidate

    policy = Policy(max_forgetting=MAX_FORGETTING, reject_any_loss=True, correct_for_multiple=True, seed=recipe.seed)
    selection = select(base, candidates(), vectors.dev, policy)
    return selection, maps[selection.name]


def _measure(
    vectors: AdapterVectors, module: torch.nn.Module, name: str, alpha: float, map_passages: bool
) -> Candidate:
    query_map = partial(_map, module, alpha)
    passage_map = query_map if map_passages else _identity
    return Candidate(
        name=name if alpha == 1 else f"{name} (alpha {alpha:g})",
        alpha=alpha,
        values=vectors.values(query_map(vectors.queries), passage_map(vectors.passages)),
        general=ForgettingProbe.score_of(query_map(vectors.general[0]), passage_map(vectors.general[1])),
    )


def _identity(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors


def _map(module: torch.nn.Module, alpha: float, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(apply_map(module, torch.from_numpy(vectors), alpha))
