"""Prepare a training: choose the recipe, and decide once on training questions, dev set and uncovered documents."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import hash_of
from rag_ft.embedding.encoding import token_limit
from rag_ft.errors import InputError
from rag_ft.training.examples.pairs import without_held_out
from rag_ft.training.examples.train_questions import is_generated
from rag_ft.training.loop.lora import LEARNING_RATE_FACTOR
from rag_ft.training.loop.losses import SHAPE, DataFacts, check_dimensions, check_shape, default_loss
from rag_ft.training.max_length import fitting_max_length
from rag_ft.training.recipe import STORED_NAMES, Recipe, recipe_for
from rag_ft.training.selection.dev_pairs import DevPairs
from rag_ft.training.selection.dev_set import Dev, DevQuestions
from rag_ft.training.selection.select import Rule
from rag_ft.training.selection.uncovered import UncoveredDocuments, uncovered_documents

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from rag_ft.dataset.qa_dataset import QADataset

MARGIN_LOSSES, MARGIN_RATE = ("triplet", "contrastive", "online-contrastive"), 0.2
"""Losses with a margin, and the factor of their learning rate: their gradient is as large for a narrow miss as for a
wide one. At the full rate the dev score fell (triplets on the demo's documents: .523 -> .517, at a fifth .556)."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a training.

    Attributes:
        pairs: maximum number of training pairs; None sets no limit.
        minutes: maximum training time in minutes; None sets no limit.
    """

    pairs: int | None = None
    minutes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The caller's choices for a training.

    Attributes:
        recipe: replaces the default recipe.
        settings: values that replace those of the recipe.
        seed: seeds the default recipe and every other random choice.
        adapt_max_length: derive the model's maximum length from the passage lengths (`fitting_max_length`).
        rule: the proof that a tuned model needs (`Policy`). With `not-worse` a model is trained without dev too.
    """

    recipe: Recipe | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    adapt_max_length: bool = True
    rule: Rule = "significant"

    def sets(self, name: str) -> bool:
        """Return whether the caller chose a value."""
        return self.recipe is not None or bool({name, STORED_NAMES.get(name)} & set(self.settings))


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prepared training: everything that is decided before it is planned.

    Attributes:
        model: the model, with the base weights and the maximum length that it will be trained with.
        teacher: the model to distil from; None without one.
        dataset: the dataset with its dev split, without training pairs that would leak into it.
        dev: the dev set; None if too little can be held out.
        uncovered: the documents without a train or dev question; None if there are few.
        recipe: the recipe with its loss.
        generated: whether `headroom` limits the alphas: most training questions were generated, and the caller set
            neither the alphas nor the rule `dev`. Dev questions generated like them approve of too much.
        budget: limits of the training.
        rule: the proof that a tuned model needs.
        started: when the preparation began, by `time.monotonic`; it counts towards the budget.
    """

    model: SentenceTransformer
    teacher: SentenceTransformer | None
    dataset: QADataset
    dev: Dev | None
    uncovered: UncoveredDocuments | None
    recipe: Recipe
    generated: bool
    budget: Budget
    rule: Rule
    started: float = field(default_factory=time.monotonic)

    @property
    def shape(self) -> str:
        """The shape of data that the loss learns from."""
        return SHAPE[self.recipe.loss or "mnr"]


def prepare(
    dataset: QADataset,
    model: SentenceTransformer,
    choices: Choices,
    *,
    teacher: SentenceTransformer | None = None,
    budget: Budget | None = None,
    trained_on: Collection[str] = (),
) -> Job:
    """Choose the recipe, hold dev out, find uncovered documents, and set the model's maximum length.

    Args:
        dataset: a dataset with a train split or scored pairs; without a dev split one is held out.
        model: the base model.
        choices: the caller's choices.
        teacher: a model to distil from.
        budget: limits of the training.
        trained_on: hashes of questions that the model was tuned on before; they are left out of dev.

    Raises:
        InputError: if the recipe does not fit the data.
    """
    started, budget = time.monotonic(), budget or Budget()
    model.float()  # in 16 bits most small updates would be rounded away
    facts = _facts(dataset, model, teacher)
    recipe = _choose_recipe(facts, model, choices, budget)
    scored = SHAPE[recipe.loss or "mnr"] in ("scored", "binary")
    dev, dataset = hold_out(dataset, scored, choices.seed, trained_on)
    if choices.adapt_max_length and token_limit(model):
        passages = [pair.passage for pair in dataset.scored_pairs] if scored else dataset.positive_texts("train")
        model.max_seq_length = fitting_max_length(model, passages)
    looks_beyond_dev = isinstance(dev, DevQuestions) and not scored and choices.rule == "significant"
    return Job(
        model=model,
        teacher=teacher,
        dataset=dataset,
        dev=dev,
        uncovered=uncovered_documents(dataset, choices.seed) if looks_beyond_dev else None,
        recipe=recipe,
        generated=facts.generated and teacher is None and not choices.sets("alphas") and choices.rule != "dev",
        budget=budget,
        rule=choices.rule,
        started=started,
    )


def _facts(dataset: QADataset, model: SentenceTransformer, teacher: SentenceTransformer | None) -> DataFacts:
    train = dataset.qrels.get("train", {})
    dimensions = [(each.get_embedding_dimension() or 0) if each is not None else 0 for each in (teacher, model)]
    return DataFacts(
        pairs=len(dataset.pairs("train")) if train else len(dataset.scored_pairs),
        has_questions=bool(train),
        generated=is_generated(dataset.questions("train")),
        scores=frozenset(pair.score for pair in dataset.scored_pairs),
        has_negatives=any(map(dataset.negatives.get, train)),
        teacher=teacher is not None,
        same_space=teacher is not None and dimensions[0] >= dimensions[1],
    )


def _choose_recipe(facts: DataFacts, model: SentenceTransformer, choices: Choices, budget: Budget) -> Recipe:
    """Return the recipe with its loss, checked against the model and the data."""
    recipe = choices.recipe
    if recipe is None:
        pairs = min(facts.pairs, budget.pairs or facts.pairs)
        recipe = recipe_for(model, pairs, facts.generated and not facts.teacher, choices.seed)
    recipe = recipe.with_settings(choices.settings)
    loss = recipe.loss or default_loss(facts)
    recipe = replace(recipe, loss=loss)
    if recipe.rounds > 1 and (recipe.mine is None or facts.teacher):
        raise InputError(
            f"rounds is {recipe.rounds}: a later round differs only by the hard negatives that the model of the round "
            "before finds, so set --mine and omit --teacher"
        )
    if loss == "mse" and facts.teacher and not facts.same_space:
        raise InputError(
            "the loss 'mse' needs a teacher with at least as many dimensions as the model: choose 'kl' or 'margin-mse'"
        )
    check_shape(loss, facts, recipe.mine is not None)
    check_dimensions(model, recipe)
    if not choices.sets("learning_rate"):
        rate = recipe.learning_rate * (LEARNING_RATE_FACTOR if recipe.lora else 1)
        recipe = replace(recipe, learning_rate=rate * (MARGIN_RATE if loss in MARGIN_LOSSES else 1))
    if SHAPE[loss] in ("triplets", "rankings") and recipe.negatives < 1:
        raise InputError(f"negatives is 0: the loss {loss!r} needs at least 1")
    return replace(recipe, negatives=1) if SHAPE[loss] == "triplets" else recipe


def hold_out(dataset: QADataset, scored: bool, seed: int, trained_on: Collection[str]) -> tuple[Dev | None, QADataset]:
    """Return the dev set and the dataset without it.

    Scored pairs become the dev set only if they are trained on: next to questions, both may contain the same texts.
    """
    if dataset.qrels.get("train"):
        dataset = hold_out_dev(dataset, seed=seed)
    if dev := dataset.qrels.get("dev"):
        unseen = {
            query: grades for query, grades in dev.items() if hash_of(dataset.queries[query].text) not in trained_on
        }
        dataset = dataset.with_qrels(dataset.qrels | {"dev": unseen})
    pairs = without_held_out(dataset.scored_pairs, [*dataset.texts("dev"), *dataset.texts("test")])
    if dataset.qrels.get("dev"):
        return DevQuestions.of(dataset, seed), dataset.with_scored_pairs(pairs)
    dev_pairs, pairs = DevPairs.hold_out(pairs, seed, trained_on) if scored else (None, pairs)
    return dev_pairs, dataset.with_scored_pairs(pairs)
