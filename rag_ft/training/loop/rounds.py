"""Training in rounds, each with the negatives that the model of the one before finds, and the guard's choice of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rag_ft.embedding.encoding import encode
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.lora import add_lora, remove_lora
from rag_ft.training.loop.time_budget import planned_as
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.plan import Plan, examples_for
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import Dev
from rag_ft.training.selection.diagnostics import check_losses, check_sources, check_vectors
from rag_ft.training.selection.select import Selection, select

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

LOOKED_AT = 64
"""Passages whose vectors tell whether training changed anything, or all became one."""

T = TypeVar("T")


def tune_in_rounds(
    plan: Plan, checkpoints: Checkpoints, show_progress: bool, report_to: Sequence[str], logs: Path
) -> tuple[Selection, list[FitResult], list[str]]:
    """Train in rounds; (the best choice of the guard, which the model has then, the trainings, what looked wrong)."""
    model, base, recipe, dev, base_values = plan.model, plan.base, plan.recipe, plan.dev, plan.base_values
    assert dev is not None, "nothing is trained where nothing can tell what it is good for"
    assert base_values is not None
    examples = plan.examples
    best: Selection | None = None
    fits: list[FitResult] = []
    findings: list[str] = []
    passages = dev.passages()[:LOOKED_AT]
    base_vectors = encode(model, passages, "document")
    for number in range(1, recipe.rounds + 1):
        if number > 1:
            model.load_state_dict(fits[-1].weights or base)
            found = examples_for(plan.dataset, recipe, model, None, plan.max_pairs)
            _, examples = planned_as({"epochs": recipe.epochs, "pairs": len(plan.examples)}, recipe, found)
            model.load_state_dict(base)
        seen = _BestValues(dev, model)
        if recipe.lora:
            add_lora(model, recipe.lora, recipe.seed)
        try:
            fit = run_trainer(
                model,
                examples,
                recipe,
                seen.measure,
                folder=checkpoints.stage(f"round-{number}"),
                show_progress=show_progress,
                report_to=report_to,
                logs=logs,
            )
        finally:
            if recipe.lora:
                remove_lora(model)
        fits.append(fit)
        tuned = fit.weights or base
        known = seen.values
        if known is None or seen.best != max(fit.scores.values(), default=None):
            # A checkpoint brings back the best weights and their figure, not the single values that it is the mean of.
            model.load_state_dict(tuned)
            known = dev.values(model)
        choice = select(model, base, tuned, recipe.shares, dev, recipe.forgetting, base_values, known, plan.uncovered)
        prefix = f"round {number} " if recipe.rounds > 1 else ""
        along = {prefix + name: score for name, score in fit.scores.items()}
        choice = replace(
            choice,
            scores={"base": choice.scores["base"]} | along | _named(choice.scores, prefix),
            refused=_named(choice.refused, prefix),
            general=_named(choice.general, prefix),
        )
        model.load_state_dict(tuned)
        vectors = encode(model, passages, "document")
        findings += check_losses(fit.losses) + check_vectors(base_vectors, vectors)
        findings += check_sources(known - base_values, dev.sources)
        best = choice if best is None else _better(best, choice)
        if fit.interrupted:
            break
    assert best is not None
    model.load_state_dict(best.weights)
    return best, fits, list(dict.fromkeys(findings))


def _named(found: Mapping[str, T], prefix: str) -> dict[str, T]:
    """With the round before each name but the base's."""
    return {prefix * (name != "base") + name: value for name, value in found.items()}


class _BestValues:
    """The dev figure of a model, and the single values of its best time."""

    def __init__(self, dev: Dev, model: SentenceTransformer) -> None:
        self.dev, self.model = dev, model
        self.best = float("-inf")
        self.values: NDArray[np.float64] | None = None

    def measure(self) -> float:
        values = self.dev.values(self.model)
        score = dev_score(values, self.dev)
        if score > self.best:
            self.best, self.values = score, values
        return score


def _better(one: Selection, other: Selection) -> Selection:
    """The choice with the larger gain on dev, with what is known of both."""
    winner = one if (other.gain.mean if other.gain else 0.0) < (one.gain.mean if one.gain else 0.0) else other
    return replace(
        winner,
        scores=one.scores | other.scores,
        refused=one.refused | other.refused,
        general=one.general | other.general,
    )
