"""Fit a model as planned, in one or more rounds. A later round mines its negatives with the model of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.embedding.encoding import encode
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.lora import add_lora, remove_lora
from rag_ft.training.loop.rotation import add_rotation
from rag_ft.training.loop.time_budget import apply_limits
from rag_ft.training.loop.tracking import Tracking
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.plan import Plan, examples_for
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.diagnostics import check_losses, check_sources, check_vectors
from rag_ft.training.selection.weights import Weights, copy_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    from rag_ft.training.examples.training_example import TrainingExample
    from rag_ft.training.loop.checkpoints import Checkpoints
    from rag_ft.training.selection.dev_set import Dev

MAX_CHECKED = 64
"""Maximum number of passages whose vectors are checked for change and collapse."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round of training.

    Attributes:
        result: the result of the Trainer.
        weights: the weights with the best dev score; the last ones without a dev set.
        values: their dev values, shape (units,); None without a dev set.
    """

    result: FitResult
    weights: Weights
    values: NDArray[np.float64] | None


@dataclass(kw_only=True)
class FittedModel:
    """A fitted model, before the selection.

    Attributes:
        base: the weights that training started from.
        rotation: the module that rotates vectors onto their principal axes, if they may be cut.
        rounds: the rounds of training.
        findings: problems that were found.
    """

    base: Weights
    rotation: Dense | None = None
    rounds: list[Round] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped the training."""
        return any(each.result.interrupted for each in self.rounds)


def fit_model(plan: Plan, checkpoints: Checkpoints, tracking: Tracking | None = None) -> FittedModel:
    """Train a model as planned.

    Args:
        plan: the plan. Its model holds arbitrary weights afterwards; use those of the result.
        checkpoints: the checkpoints that a killed training resumes from.
        tracking: progress bar and trackers.
    """
    model, recipe, dev = plan.job.model, plan.recipe, plan.job.dev
    rotation = _add_rotation(plan)
    fitted = FittedModel(base=copy_weights(model), rotation=rotation)
    passages = dev.passages()[:MAX_CHECKED] if dev is not None else []
    base_vectors = encode(model, passages, "document") if passages else None
    examples: Sequence[TrainingExample] = plan.examples
    for number in range(1, recipe.rounds + 1):
        if number > 1:
            model.load_state_dict(fitted.rounds[-1].weights)
            mined = examples_for(plan.job)
            _, examples = apply_limits({"epochs": recipe.epochs, "pairs": len(plan.examples)}, recipe, mined)
            model.load_state_dict(fitted.base)
        last = _fit_round(plan, fitted.base, examples, checkpoints.stage(f"round-{number}"), tracking)
        fitted.rounds.append(last)
        fitted.findings += check_losses(last.result.losses)
        if base_vectors is not None:
            model.load_state_dict(last.weights)
            fitted.findings += check_vectors(base_vectors, encode(model, passages, "document"))
        if dev is not None and plan.base is not None and last.values is not None:
            fitted.findings += check_sources(last.values - plan.base.values, dev.sources)
        if last.result.interrupted:
            break
    fitted.findings = list(dict.fromkeys(fitted.findings))
    return fitted


def _add_rotation(plan: Plan) -> Dense | None:
    """Rotate vectors that may be cut onto their principal axes, unless a teacher's vectors define the axes."""
    if not plan.recipe.dimensions or plan.job.shape == "vectors":
        return None
    anchors = [example.anchor for example in plan.examples]
    return add_rotation(plan.job.model, anchors, list(plan.job.dataset.passage_texts.values()))


def _fit_round(
    plan: Plan, base: Weights, examples: Sequence[TrainingExample], folder: Path, tracking: Tracking | None
) -> Round:
    model, recipe, dev = plan.job.model, plan.recipe, plan.job.dev
    best = _BestOnDev(dev, model) if dev is not None else None
    if recipe.lora:
        add_lora(model, recipe.lora, recipe.seed)
    try:
        result = run_trainer(
            model,
            examples,
            recipe,
            best.measure if best is not None else None,
            checkpoint_folder=folder,
            tracking=tracking or Tracking(),
        )
    finally:
        if recipe.lora:
            remove_lora(model)
    # Without a finite dev score no weights are better than the base's.
    weights = result.weights or (base if dev is not None else copy_weights(model))
    if dev is None or best is None:
        return Round(result=result, weights=weights, values=None)
    if best.values is None or best.score != max(result.scores.values(), default=None):
        # A checkpoint restores the best weights and their score, but not the values of the units.
        model.load_state_dict(weights)
        return Round(result=result, weights=weights, values=dev.values(model))
    return Round(result=result, weights=weights, values=best.values)


class _BestOnDev:
    """The dev score of a model during training, and the values behind the best one."""

    def __init__(self, dev: Dev, model: SentenceTransformer) -> None:
        self.dev, self.model = dev, model
        self.score = float("-inf")
        self.values: NDArray[np.float64] | None = None

    def measure(self) -> float:
        values = self.dev.values(self.model)
        score = dev_score(values, self.dev)
        if score > self.score:
            self.score, self.values = score, values
        return score
