"""What a training does, before it begins: its recipe, its dev and its examples."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import hash_of
from rag_ft.embedding.encoding import encode, token_limit
from rag_ft.errors import InputError
from rag_ft.training.examples.distillation import NEAR, ranking_examples, vector_examples
from rag_ft.training.examples.hard_negatives import mine_negatives, without_mined
from rag_ft.training.examples.pairs import (
    TrainingExample,
    is_generated,
    pair_examples,
    scored_examples,
    without_held_out,
)
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.lora import DEFAULT_RATE
from rag_ft.training.loop.losses import SHAPE, check_dimensions, check_shape, loss_that_fits
from rag_ft.training.loop.principal_axes import add_rotation
from rag_ft.training.loop.time_budget import estimated_seconds, fitted_into, planned_as
from rag_ft.training.recipe import Recipe, fitting_max_length, recipe_for
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import Dev, DevQuestions, DevScores, State, copy_weights
from rag_ft.training.selection.diagnostics import UNPROVEN, check_level, check_questions
from rag_ft.training.selection.headroom import HIGH_BASE_NDCG, headroom
from rag_ft.training.selection.uncovered import UncoveredDocuments, uncovered_documents

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

logger = logging.getLogger(__name__)

MARGIN_LOSSES, MARGIN_RATE = ("triplet", "contrastive", "online-contrastive"), 0.2
"""Times the rate of other losses: a margin pulls as hard whether it is missed by much or by little. At the full rate
the dev figure fell (triplets on the demo's documents: .523 -> .517, at a fifth .556)."""

LEAST_SHARE = 0.1
"""A smaller share of the tuned weights is not worth a training."""


@dataclass(frozen=True)
class Plan:
    """All that is known of a training before its first step.

    Attributes:
        model: with the base's weights, reading as many tokens as it will.
        base: a copy of these weights.
        teacher: whose vectors or rankings are learned, if any.
        dataset: with its dev split, and without training pairs that it would leak into.
        recipe: with its loss, its shares and, under a time limit, its epochs chosen.
        examples: what is trained on, in the shape that the loss learns from.
        dev: what chooses; None where nothing can be held out, so that nothing is trained.
        uncovered: the documents that neither train nor dev asks about; None where they are few.
        base_values: the base's figure for each dev question.
        level: its nDCG@10 on questions made of the passages, where this bounds the shares.
        seconds: how long it will take, about; None where nothing is trained.
        findings: what looks wrong already.
        fingerprint: what must be the same for a killed training to go on.
        max_pairs: of the dataset that may make examples.
        rotation: that the model ends with, where its vectors may be cut; the base has none of its own.
    """

    model: SentenceTransformer
    base: State
    teacher: SentenceTransformer | None
    dataset: QADataset
    recipe: Recipe
    examples: list[TrainingExample]
    dev: Dev | None
    fingerprint: str
    max_pairs: int | None = None
    rotation: Dense | None = None
    uncovered: UncoveredDocuments | None = None
    base_values: NDArray[np.float64] | None = None
    level: float | None = None
    seconds: float | None = None
    findings: list[str] = field(default_factory=list)

    @property
    def base_scores(self) -> dict[str, float]:
        """The base's dev figure, as the first of the candidates."""
        if self.dev is None or self.base_values is None:
            return {}
        return {"base": dev_score(self.base_values, self.dev)}


def plan_training(
    dataset: QADataset,
    model: SentenceTransformer,
    teacher: SentenceTransformer | None,
    output: Path,
    *,
    recipe: Recipe | None,
    settings: dict[str, Any],
    seed: int,
    max_length: int | None,
    max_pairs: int | None,
    max_minutes: float | None,
    seen: Collection[str] = (),
) -> Plan:
    """Choose the recipe, hold dev out, make the examples, and look at the base model; see `train_model`."""
    started = time.monotonic()
    # Dev questions like the training ones approve of too much, where those were generated.
    bounded = recipe is None and "shares" not in settings and teacher is None and is_generated(dataset)
    recipe = chosen_recipe(dataset, model, teacher, recipe, settings, seed, max_pairs)
    shape = SHAPE[recipe.loss or "mnr"]
    dev, dataset = held_out_dev(dataset, shape in ("scored", "binary"), seed, seen)
    if max_length is None and token_limit(model):
        model.max_seq_length = fitting_max_length(model, passages_of_training(dataset, recipe))
    base = copy_weights(model)
    examples = examples_for(dataset, recipe, model, teacher, max_pairs)
    fingerprint = fingerprint_of(base, model, teacher, dataset, dev, recipe, examples, max_minutes)
    if max_minutes is not None:
        planned = Checkpoints.plan(output, fingerprint)
        if planned is None:
            spent = (time.monotonic() - started) / 60  # looking for negatives, and asking a teacher
            recipe, examples = fitted_into(max(max_minutes / 10, max_minutes - spent), model, recipe, examples)
        else:
            recipe, examples = planned_as(planned, recipe, examples)
    findings = check_questions(dataset) if shape in ("pairs", "triplets") else []
    shares, level, uncovered = recipe.shares, None, None
    if dev is not None:
        encode(model, dev.texts()[:8], "document")  # what is loaded at first use is not counted
    asked = time.monotonic()
    base_values = dev.values(model) if dev is not None else None
    dev_seconds = time.monotonic() - asked
    if dev is None:
        shares = ()
        findings.append(UNPROVEN)
    if isinstance(dev, DevQuestions) and base_values is not None:
        findings += check_level(float(base_values.mean()), dev.chance())
        uncovered = uncovered_documents(dataset, seed) if shape not in ("scored", "binary") else None
        findings += uncovered.findings if uncovered is not None else []
        if bounded:
            level = dev.level(base_values)
            shares = bounded_shares(shares, headroom(level))
            _say_level(level, shares)
    rotation = None
    if recipe.dimensions and shares and shape != "vectors":  # a teacher's vectors have axes of their own
        rotation = add_rotation(model, [example.anchor for example in examples], list(dataset.passage_texts.values()))
        base = copy_weights(model)
    recipe = replace(recipe, shares=shares)
    seconds = None
    if dev is not None and shares:
        seconds = estimated_seconds(recipe, examples, token_limit(model), dev.texts(), dev_seconds)
    return Plan(
        model, base, teacher, dataset, recipe, examples, dev, fingerprint, max_pairs, rotation, uncovered, base_values,
        level, seconds, findings,
    )  # fmt: skip


def _say_level(level: float, shares: Sequence[float]) -> None:
    logger.info(
        "the base model has nDCG@10 %.3f on questions made of the passages: %s", level,
        f"it may take {shares[0]:.0%} of the tuned weights" if shares
        else f"it is at home here (over {HIGH_BASE_NDCG}), and generated questions would teach it nothing",
    )  # fmt: skip


def chosen_recipe(
    dataset: QADataset,
    model: SentenceTransformer,
    teacher: SentenceTransformer | None,
    recipe: Recipe | None,
    settings: dict[str, Any],
    seed: int,
    max_pairs: int | None = None,
) -> Recipe:
    """The recipe with its loss chosen, fitting the model and the data."""
    chosen = recipe
    if chosen is None:
        count = len(dataset.pairs("train")) if dataset.qrels.get("train") else len(dataset.scored_pairs)
        count = min(count, max_pairs or count)
        chosen = recipe_for(model, count, is_generated(dataset) and teacher is None, seed)
    chosen = chosen.but(**settings)
    if chosen.loss is None:
        wide = teacher is not None and wide_enough(teacher, model)
        chosen = replace(chosen, loss=loss_that_fits(dataset, teacher is not None, wide))
    loss = chosen.loss or "mnr"
    if chosen.rounds > 1 and (chosen.mine is None or teacher is not None):
        raise InputError(
            f"rounds is {chosen.rounds}: a later round differs by the hard negatives that the model of the one before "
            "finds, so give --mine, and no --teacher"
        )
    if loss == "mse" and teacher is not None and not wide_enough(teacher, model):
        raise InputError("the loss 'mse' needs a teacher of as many dimensions or more: take 'kl' or 'margin-mse'")
    check_shape(loss, dataset, teacher is not None, chosen.mine is not None)
    check_dimensions(model, chosen)
    if chosen.lora and recipe is None and "learning_rate" not in settings:
        chosen = replace(chosen, learning_rate=chosen.learning_rate * DEFAULT_RATE)
    if loss in MARGIN_LOSSES and recipe is None and "learning_rate" not in settings:
        chosen = replace(chosen, learning_rate=chosen.learning_rate * MARGIN_RATE)
    if SHAPE[loss] in ("triplets", "rankings") and chosen.negatives < 1:
        raise InputError(f"negatives is 0: the loss {loss!r} needs one or more")
    if SHAPE[loss] == "triplets":
        chosen = replace(chosen, negatives=1)
    return chosen


def wide_enough(teacher: SentenceTransformer, model: SentenceTransformer) -> bool:
    """Whether a teacher's vectors can be cut to a model's dimension."""
    return (teacher.get_embedding_dimension() or 0) >= (model.get_embedding_dimension() or 0)


def held_out_dev(
    dataset: QADataset, scored: bool, seed: int, seen: Collection[str] = ()
) -> tuple[Dev | None, QADataset]:
    """(what chooses, the dataset without it).

    Args:
        dataset: with a dev split, or with something to take it from.
        scored: whether scored pairs are trained on, so that some of them tell what was learned. Beside questions the
            same texts may stand in both.
        seed: of the draw.
        seen: hashes of questions that the model was tuned on before, of which dev asks none.
    """
    if dataset.qrels.get("train"):
        dataset = hold_out_dev(dataset, seed=seed)
    if asked := dataset.qrels.get("dev"):
        new = {query: found for query, found in asked.items() if hash_of(dataset.queries[query].text) not in seen}
        dataset = dataset.with_qrels(dataset.qrels | {"dev": new})
    dataset = without_held_out(dataset)
    if dataset.qrels.get("dev"):
        return DevQuestions.of(dataset, seed), dataset
    return DevScores.carved(dataset, seed, seen) if scored else (None, dataset)


def passages_of_training(dataset: QADataset, recipe: Recipe) -> list[str]:
    if SHAPE[recipe.loss or "mnr"] in ("scored", "binary"):
        return [pair.passage for pair in dataset.scored_pairs]
    texts = dataset.passage_texts
    return [texts[passage] for passage in dict.fromkeys(passage for _, passage in dataset.pairs("train"))]


def examples_for(
    dataset: QADataset,
    recipe: Recipe,
    model: SentenceTransformer,
    teacher: SentenceTransformer | None,
    max_pairs: int | None,
) -> list[TrainingExample]:
    """What is trained on, in the shape that the loss learns from."""
    shape = SHAPE[recipe.loss or "mnr"]
    if shape in ("scored", "binary"):
        return scored_examples(dataset, shape == "binary", max_pairs, recipe.seed)
    if recipe.mine is not None:
        dataset = without_mined(dataset)
    if shape == "vectors" and teacher is not None:
        return vector_examples(dataset, teacher, model.get_embedding_dimension() or 0, recipe.seed, max_pairs)
    if shape == "rankings" and teacher is not None:
        # What is near to the answer is not wrong here: the teacher says how near.
        dataset = mine_negatives(dataset, teacher, by=recipe.mine or "dense", count=NEAR, margin=10.0)
        recipe = replace(recipe, negatives=NEAR)
        examples = ranking_examples(pair_examples(dataset, recipe, max_pairs), teacher, recipe.seed)
    elif recipe.mine is not None:
        dataset = mine_negatives(dataset, model, by=recipe.mine, count=max(1, recipe.negatives))
        examples = pair_examples(dataset, recipe, max_pairs)
    else:
        examples = pair_examples(dataset, recipe, max_pairs)
    if not examples:
        raise InputError("the train split has no pair of a question and a passage with text in them")
    if shape == "triplets" and not examples[0].negatives:
        raise InputError(
            f"the loss {recipe.loss!r} needs negatives, and those of the training questions are all in documents that "
            "dev or test ask about: mine some (--mine dense)"
        )
    return examples


def fingerprint_of(
    base: State,
    model: SentenceTransformer,
    teacher: SentenceTransformer | None,
    dataset: QADataset,
    dev: Dev | None,
    recipe: Recipe,
    examples: Sequence[TrainingExample],
    max_minutes: float | None,
) -> str:
    """What must be the same for a training to go on."""
    digest = hashlib.sha256()
    asked = [(query, dataset.queries[query].text, grades) for query, grades in dataset.qrels.get("dev", {}).items()]
    digest.update(repr((model.prompts, model.max_seq_length, recipe.to_dict(), max_minutes, sorted(asked))).encode())
    digest.update(repr(dev.passages() if dev is not None else None).encode())  # a figure is one among these
    for row in examples:
        digest.update(repr((row.anchor, row.positive, row.negatives)).encode())
        digest.update(b"" if row.label is None else np.asarray(row.label, dtype=np.float32).tobytes())
        digest.update(repr((sorted(map(str, row.positive_ids)), sorted(map(str, row.in_batch_ids)))).encode())
    for weights in (base, teacher.state_dict() if teacher is not None else {}):
        for name, tensor in weights.items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def bounded_shares(shares: Sequence[float], room: float) -> tuple[float, ...]:
    """Shares of the tuned weights within the room there is; none where that is next to nothing."""
    return tuple(round(share * room, 2) for share in shares) if room * shares[0] >= LEAST_SHARE else ()
