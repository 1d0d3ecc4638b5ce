"""Plan a training: its examples, the base model's dev score, the allowed alphas, and the estimated time.

Planning does not change the model.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.embedding.encoding import encode, token_limit
from rag_ft.errors import InputError
from rag_ft.training.examples.distillation import NEAR_NEGATIVES, ranking_examples, vector_examples
from rag_ft.training.examples.hard_negatives import MARGIN, mine_negatives
from rag_ft.training.examples.pairs import pair_examples, scored_examples
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.time_budget import apply_limits, estimate_seconds, fit_to_minutes
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import Dev, DevQuestions
from rag_ft.training.selection.diagnostics import UNPROVEN, check_base_score, check_questions
from rag_ft.training.selection.headroom import HIGH_BASE_NDCG, headroom
from rag_ft.training.selection.select import Rule
from rag_ft.training.selection.weights import Weights, copy_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.training.prepare import Job
    from rag_ft.training.recipe import Recipe

logger = logging.getLogger(__name__)

NO_MARGIN = 10.0
"""A margin so large that it excludes no passage."""

MIN_ALPHA = 0.1
"""Minimum allowed weight of the tuned model for which training is worth its time."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a training, complete before its first step.

    Attributes:
        job: the prepared job.
        recipe: the job's recipe with the allowed alphas and, under a time limit, the epochs that fit. Without alphas
            nothing is trained.
        examples: the training examples.
        base: the base model's dev values; None without a dev set.
        seconds: estimated time; None if nothing is trained.
        findings: problems found so far.
        fingerprint: hash of everything that must be the same for a killed training to resume.
    """

    job: Job
    recipe: Recipe
    examples: list[TrainingExample]
    base: BaseOnDev | None
    seconds: float | None
    findings: list[str]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class BaseOnDev:
    """The base model on the dev set.

    Attributes:
        values: its value for each dev unit, shape (units,).
        seconds: how long it took to encode the dev set.
        ndcg: its nDCG@10 on questions generated without an LLM; None if it does not limit the alphas.
        findings: problems of the data that its score shows.
    """

    values: NDArray[np.float64]
    seconds: float
    ndcg: float | None = None
    findings: list[str] = field(default_factory=list)

    def scores(self, dev: Dev) -> dict[str, float]:
        """Return candidate -> dev score, with the base as the only candidate."""
        return {"base": dev_score(self.values, dev)}


def plan_training(job: Job, output: Path) -> Plan:
    """Plan a training.

    Args:
        job: the prepared job.
        output: the model folder; a killed training left its plan beside it.

    Raises:
        InputError: if there is no training example for the loss.
    """
    recipe, examples = job.recipe, examples_for(job)
    fingerprint = fingerprint_of(job, examples)
    if job.budget.minutes is not None:
        if (limits := Checkpoints.read_plan(output, fingerprint)) is not None:
            recipe, examples = apply_limits(limits, recipe, examples)
        else:
            spent = (time.monotonic() - job.started) / 60  # on the dev set, on mining, and on the teacher
            minutes = max(job.budget.minutes / 10, job.budget.minutes - spent)
            recipe, examples = fit_to_minutes(minutes, job.model, recipe, examples)
    base = _base_on_dev(job)
    recipe = replace(recipe, alphas=_allowed_alphas(recipe.alphas, base, job.rule))
    findings = check_questions(job.dataset.texts("train")) if job.shape in ("pairs", "triplets") else []
    if base is not None:
        findings += base.findings
    elif not recipe.alphas:
        findings.append(UNPROVEN)
    findings += job.uncovered.findings if job.uncovered is not None else []
    seconds = None
    if job.dev is not None and base is not None and recipe.alphas:
        uncovered = job.uncovered.questions if job.uncovered is not None else None
        seconds = estimate_seconds(
            recipe, examples, token_limit(job.model), job.dev.texts(), base.seconds,
            uncovered_texts=uncovered.texts() if uncovered is not None else (),
        )  # fmt: skip
    return Plan(
        job=job,
        recipe=recipe,
        examples=examples,
        base=base,
        seconds=seconds,
        findings=findings,
        fingerprint=fingerprint,
    )


def examples_for(job: Job) -> list[TrainingExample]:
    """Return the training examples, in the shape that the loss learns from.

    Raises:
        InputError: if there is none.
    """
    dataset, recipe, teacher, max_pairs = job.dataset, job.recipe, job.teacher, job.budget.pairs
    if job.shape in ("scored", "binary"):
        return scored_examples(dataset.scored_pairs, job.shape == "binary", max_pairs, recipe.seed)
    if job.shape == "vectors" and teacher is not None:
        documents = dataset.documents_of(dataset.require("train"), "train")
        passages = [text for key, text in dataset.passage_texts.items() if dataset.passages[key].document in documents]
        dimension = job.model.get_embedding_dimension() or 0
        return vector_examples(dataset.texts("train"), passages, teacher, dimension, recipe.seed, max_pairs)
    if recipe.mine is not None:
        dataset = dataset.without_mined_negatives()
    count = max(1, recipe.negatives)
    if job.shape == "rankings":
        # Passages close to the answer are allowed here, because the teacher scores how close they are.
        count, recipe = NEAR_NEGATIVES, replace(recipe, negatives=NEAR_NEGATIVES)
    if recipe.mine is not None or job.shape == "rankings":
        dataset = mine_negatives(
            dataset, job.model if teacher is None else teacher, by=recipe.mine or "dense", count=count,
            margin=NO_MARGIN if job.shape == "rankings" else MARGIN,
        )  # fmt: skip
    examples = pair_examples(dataset, recipe, max_pairs)
    if job.shape == "rankings" and teacher is not None:
        examples = ranking_examples(examples, teacher, recipe.seed)
    if not examples:
        raise InputError("the train split has no pair in which both the question and the passage have text")
    if job.shape == "triplets" and not examples[0].negatives:
        raise InputError(
            f"the loss {recipe.loss!r} needs negatives, and those of the training questions are all in documents that "
            "dev or test questions are about: mine negatives (--mine dense)"
        )
    return examples


def fingerprint_of(job: Job, examples: Sequence[TrainingExample]) -> str:
    """Return a hash of everything that must be the same for a training to resume from its checkpoints."""
    model, dataset, dev = job.model, job.dataset, job.dev
    questions = [(query, dataset.queries[query].text, grades) for query, grades in dataset.qrels.get("dev", {}).items()]
    settings = (model.prompts, model.max_seq_length, job.recipe.to_dict(), job.budget.minutes, sorted(questions))
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(repr(dev.passages() if dev is not None else None).encode())  # the dev score depends on the pool
    for example in examples:
        digest.update(repr((example.anchor, example.positive, example.negatives)).encode())
        digest.update(b"" if example.label is None else np.asarray(example.label, dtype=np.float32).tobytes())
        ids = (sorted(map(str, example.positive_ids)), sorted(map(str, example.in_batch_ids)))
        digest.update(repr(ids).encode())
    teacher: Weights = job.teacher.state_dict() if job.teacher is not None else {}
    for weights in (copy_weights(model), teacher):
        _update(digest, weights)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, weights: Mapping[str, object]) -> None:
    for name, tensor in weights.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())  # type: ignore[attr-defined]


def _base_on_dev(job: Job) -> BaseOnDev | None:
    """Measure the base model on dev, and how long that takes."""
    dev = job.dev
    if dev is None:
        return None
    encode(job.model, dev.texts()[:8], "document")  # a warm-up that is not timed
    started = time.monotonic()
    values = dev.values(job.model)
    seconds = time.monotonic() - started
    if not isinstance(dev, DevQuestions):
        return BaseOnDev(values=values, seconds=seconds)
    return BaseOnDev(
        values=values,
        seconds=seconds,
        ndcg=dev.base_ndcg(values) if job.generated else None,
        findings=check_base_score(float(values.mean()), dev.chance()),
    )


def _allowed_alphas(alphas: Sequence[float], base: BaseOnDev | None, rule: Rule) -> tuple[float, ...]:
    """Return the alphas within the headroom of the base model; none if a gain cannot be proven or expected."""
    if base is None:
        return tuple(alphas) if rule == "not-worse" else ()
    if base.ndcg is None:
        return tuple(alphas)
    allowed = scale_alphas(alphas, headroom(base.ndcg))
    logger.info(
        "the base model has nDCG@10 %.3f on questions generated from the passages: %s", base.ndcg,
        f"alpha is at most {allowed[0]:.2f}" if allowed
        else f"no headroom for generated questions (limit {HIGH_BASE_NDCG}), so nothing is trained",
    )  # fmt: skip
    return allowed


def scale_alphas(alphas: Sequence[float], factor: float) -> tuple[float, ...]:
    """Return the alphas times a factor; none if the first one falls below `MIN_ALPHA`.

    Example:
        >>> from rag_ft.training.plan import scale_alphas
        >>> scale_alphas((0.75, 0.5, 0.25), 0.5), scale_alphas((0.75, 0.5), 0.1)
        ((0.38, 0.25, 0.12), ())
    """
    return tuple(round(alpha * factor, 2) for alpha in alphas) if factor * alphas[0] >= MIN_ALPHA else ()
