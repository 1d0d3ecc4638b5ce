"""QADataset -> model folder: contrastive fine-tuning, with the base model as a candidate."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import carve_dev
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL, load_sentence_transformer
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.embedding.saving import save_model
from rag_ft.errors import InputError
from rag_ft.training.losses import check_dimensions
from rag_ft.training.pairs import Pair, is_generated, question_styles, training_pairs
from rag_ft.training.recipe import (
    GENERATED_SHARES,
    STRONG,
    Recipe,
    fitting_max_length,
    recipe_for,
    room_to_learn,
)
from rag_ft.training.selection import DevQuestions, State, copy_weights, mixed_weights
from rag_ft.training.trainer import run_trainer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.1
"""A smaller share of the tuned weights is not worth a training."""


@dataclass(frozen=True)
class TrainedModel:
    """What a training left behind.

    Attributes:
        folder: the model folder.
        share: how much of the tuned weights it has; 0 is the base model, unchanged.
        dev: nDCG@10 on dev by candidate (`base`, `epoch 1`, ..., `share 0.5`).
        record: what `rag_ft.json` says.
    """

    folder: Path
    share: float
    dev: dict[str, float]
    record: dict[str, Any]

    @property
    def is_base(self) -> bool:
        """Whether nothing beat the base model on dev, so that it stays."""
        return self.share == 0.0


def train_model(
    dataset: QADataset,
    output: str | Path,
    base_model: str = DEFAULT_BASE_MODEL,
    *,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
    max_pairs: int | None = None,
    max_minutes: float | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> TrainedModel:
    """Fine-tune a model on the train split, choose on dev, and save it with its prefixes and contract.

    The loss is over in-batch negatives (`rag_ft.training.losses`): every other passage of the batch is a negative, and
    no two rows of a batch have a passage, or a near-repeat of one, in common. After each epoch,
    and for weights between the base's and the tuned ones, dev nDCG@10 is measured; the base model is a candidate
    too. The test split is not looked at.

    Args:
        dataset: with a train split; a missing dev split is carved out of it (15 %, by document).
        output: the model folder; written beside, then renamed.
        base_model: a hub name, a folder, or `local`.
        query_prefix: put before a query; the base model's own where None.
        passage_prefix: put before a passage; the base model's own where None.
        max_length: tokens to read of a passage; chosen by the passages where None.
        max_pairs: train on so many pairs at most.
        max_minutes: fewer epochs, then fewer pairs, so that training fits this time.
        recipe: replaces the default one (`recipe_for`).
        seed: of every draw; the same seed gives the same numbers on the same machine.
        device: a torch device; the best there is where None.
        show_progress: a progress bar with time left.
        **settings: numbers of the recipe that replace its own: `epochs`, `batch_size`, `learning_rate`, `loss`,
            `dimensions`, ... (`Recipe`).

    Returns:
        The trained model's folder, its share of tuned weights, and the dev figures.

    Raises:
        InputError: where the dataset has no training question or the output is in the way.
        OutsideError: where the hub cannot be reached or the disk is full.
    """
    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / "rag_ft.json").exists()):
        raise InputError(
            f"{output} is in the way and no model of rag_ft: choose another --output, nothing is overwritten"
        )
    dataset.require("train")
    dataset = carve_dev(dataset, seed=seed)
    started = time.monotonic()
    model = load_sentence_transformer(base_model, query_prefix, passage_prefix, max_length, device)
    if max_length is None:
        train_passages = dict.fromkeys(passage for _, passage in dataset.pairs("train"))
        model.max_seq_length = fitting_max_length(model, [dataset.passage_texts[p] for p in train_passages])
    if recipe is None:
        recipe = recipe_for(model, len(dataset.pairs("train")), is_generated(dataset), seed)
    recipe = recipe.but(**settings)
    check_dimensions(model, recipe)
    pairs = training_pairs(dataset, recipe, max_pairs)
    if not pairs:
        raise InputError("the train split has no pair of a question and a passage with text in them")
    if max_minutes is not None:
        recipe, pairs = _fit_into(max_minutes, model, recipe, pairs)
    dev = DevQuestions.of(dataset, seed) if dataset.qrels.get("dev") else None
    level = dev.level(model) if dev is not None and recipe.shares == GENERATED_SHARES else None
    if level is not None:
        recipe = replace(recipe, shares=_bounded(recipe.shares, room_to_learn(level)))
        logger.info(
            "the base model has nDCG@10 %.3f on questions made of the passages: %s", level,
            f"it may take {recipe.shares[0]:.0%} of the tuned weights" if recipe.shares
            else f"it is at home here (over {STRONG}), and generated questions would teach it nothing",
        )  # fmt: skip
    logger.info(
        "training %s on %d pairs: %d epochs of batch %d, %d tokens, learning rate %.1e, %s",
        base_model, len(pairs), recipe.epochs, recipe.batch_size, model.max_seq_length, recipe.learning_rate,
        "bf16" if has_fast_bf16(model.device.type) else "fp32",
    )  # fmt: skip
    scores: dict[str, float] = {}
    if recipe.shares:
        share = _tuned(model, pairs, recipe, dev, scores, show_progress)
    else:
        share = 0.0
        scores["base"] = dev.score(model) if dev is not None else 0.0
    if share == 0.0 and recipe.dimensions:
        logger.warning("the base model stays, so its vectors cannot be cut: it was not trained for that")
        recipe = replace(recipe, dimensions=())
    record = {
        "recipe": recipe.to_dict(),
        "training": {
            "pairs": len(pairs),
            "dev_questions": len(dev.query_ids) if dev else 0,
            "dev_ndcg@10": {name: round(score, 4) for name, score in scores.items()},
            "share": share,
            "level": None if level is None else round(level, 4),
            "seconds": round(time.monotonic() - started, 1),
            "question_styles": question_styles(dataset),
        },
    }
    contract = save_model(model, output, base_model, record)
    return TrainedModel(output, share, scores, contract)


def _tuned(
    model: SentenceTransformer,
    pairs: Sequence[Pair],
    recipe: Recipe,
    dev: DevQuestions | None,
    scores: dict[str, float],
    show_progress: bool,
) -> float:
    """Train the model in place, leave the weights in it that dev prefers, and return their share."""
    base = copy_weights(model)
    best = (0.0, 0.0, base)  # dev nDCG@10, share, weights
    if dev is not None:
        scores["base"] = dev.score(model)
        best = (scores["base"], 0.0, base)
    tuned: list[tuple[float, State]] = []

    def after_epoch(epoch: int) -> None:
        score = dev.score(model) if dev is not None else float(epoch)
        if dev is not None:
            scores[f"epoch {epoch}"] = score
        if not tuned or score > tuned[0][0]:
            tuned[:] = [(score, copy_weights(model))]

    run_trainer(model, pairs, recipe, after_epoch, show_progress)
    for share in recipe.shares:
        weights = mixed_weights(base, tuned[0][1], share)
        if dev is None:
            best = (0.0, share, weights)
            break
        model.load_state_dict(weights)
        score = tuned[0][0] if share == 1.0 else dev.score(model)
        scores[f"share {share:g}"] = score
        if score > best[0]:
            best = (score, share, weights)
    model.load_state_dict(best[2])
    return best[1]


def _bounded(shares: Sequence[float], room: float) -> tuple[float, ...]:
    """Shares of the tuned weights within the room there is; none where that is next to nothing."""
    return tuple(round(share * room, 2) for share in shares) if room * shares[0] >= LEAST_SHARE else ()


def _fit_into(
    minutes: float, model: SentenceTransformer, recipe: Recipe, pairs: list[Pair]
) -> tuple[Recipe, list[Pair]]:
    """Fewer epochs, then fewer pairs, so that the steps fit a time; two steps are run to measure one."""
    base = copy_weights(model)
    batch = min(recipe.batch_size, recipe.inner_batch, len(pairs))
    probe = replace(recipe, learning_rate=1e-9, together=1, batch_size=max(2, batch))
    run_trainer(model, pairs, probe, lambda epoch: None, max_steps=1)
    started = time.monotonic()
    run_trainer(model, pairs, probe, lambda epoch: None, max_steps=2)
    per_pair = (time.monotonic() - started) / (2 * batch)
    model.load_state_dict(base)
    budget = int(minutes * 60 * 0.8 / max(per_pair, 1e-9))  # a fifth is for dev, loading and saving
    # Similar passages are found by encoding them once: about a third of an epoch.
    budget -= min(len(pairs), budget // 4) // 3 if recipe.together > 1 else 0
    epochs = max(1, min(recipe.epochs, budget // len(pairs)))
    if budget < len(pairs):
        kept = max(budget, batch)
        pairs = random.Random(recipe.seed).sample(pairs, kept)
    logger.info(
        "%.2f s for 100 pairs: %d epochs over %d pairs fit %g minutes", per_pair * 100, epochs, len(pairs), minutes
    )
    return replace(recipe, epochs=epochs), pairs
