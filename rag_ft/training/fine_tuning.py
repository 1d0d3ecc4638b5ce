"""QADataset -> model folder: fine-tuning, with the base model as a candidate."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag_ft.dataset.merging import merge_datasets
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import carve_dev
from rag_ft.dataset.text.sketch import sketch_of
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL, load_sentence_transformer
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.embedding.saving import check_output, save_model
from rag_ft.errors import InputError
from rag_ft.evaluation.significance import Difference
from rag_ft.training.checkpoints import Checkpoints
from rag_ft.training.dev import (
    ENOUGH,
    Dev,
    DevQuestions,
    copy_weights,
    dev_triplets,
    mean_over_makings,
    triplet_accuracy,
)
from rag_ft.training.diagnosis import check_level, check_questions
from rag_ft.training.distillation import beside_teacher
from rag_ft.training.guard import Choice
from rag_ft.training.losses import SHAPE
from rag_ft.training.pairs import (
    Pair,
    is_generated,
    question_styles,
    questions_sketch,
)
from rag_ft.training.planning import (
    bounded_shares,
    chosen_recipe,
    examples_for,
    fingerprint_of,
    fitted_into,
    held_out_dev,
    passages_of_training,
    planned_as,
)
from rag_ft.training.recipe import (
    STRONG,
    Recipe,
    fitting_max_length,
    room_to_learn,
)
from rag_ft.training.rounds import tune_in_rounds
from rag_ft.training.trainer import check_trackers
from rag_ft.training.watcher import Tuning

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """What a training left behind.

    Attributes:
        folder: the model folder.
        share: how much of the tuned weights it has; 0 is the base model, unchanged.
        dev: the dev figure by candidate (`base`, `epoch 1`, ..., `share 0.5`): nDCG@10, or Spearman's correlation
            where there are scored pairs alone.
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

    @property
    def findings(self) -> list[str]:
        """What looked wrong, each with what to change."""
        return list(self.record["training"]["findings"])


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
    teacher: str | None = None,
    continue_from: str | Path | None = None,
    earlier: QADataset | None = None,
    replay: float = 0.3,
    recipe: Recipe | None = None,
    seed: int | None = None,
    device: str | None = None,
    show_progress: bool = False,
    report_to: Sequence[str] = (),
    **settings: Any,
) -> TrainedModel:
    """Fine-tune a model on the train split, choose on dev, and save it with its prefixes and contract.

    The loss follows from the data (`rag_ft.training.losses`): for questions with their passages, every other passage
    of the batch is a negative, and no row of a batch shows a passage, or a near-repeat of one, that answers another's
    question. After each epoch, and for weights between the base's and the tuned ones, the dev figure is measured; the
    base model is a candidate too, and stays unless another one is surely better (`rag_ft.training.guard`). The test
    split is not looked at.

    A call that was killed goes on where it was when it is made again. Ctrl-C ends the training and keeps the best
    weights so far.

    Args:
        dataset: with a train split, or with scored pairs; a missing dev split is carved out of it: 15 %
            of the documents, and 10 % of the questions on the others.
        output: the model folder; written beside, then renamed.
        base_model: a hub name, a folder, or `local`.
        query_prefix: put before a query; the base model's own where None.
        passage_prefix: put before a passage; the base model's own where None.
        max_length: tokens to read of a passage; chosen by the passages where None.
        max_pairs: train on so many pairs at most.
        max_minutes: fewer epochs, then fewer pairs, so that training fits this time.
        teacher: a larger model, given like `base_model`, whose vectors or rankings the model learns.
        continue_from: a tuned model to go on from, in place of `base_model`.
        earlier: what that model was tuned on: some of it is trained on again, and its dev questions must agree too.
        replay: share of the earlier questions among all training questions.
        recipe: replaces the default one (`recipe_for`). One of your own, or shares of your own, are not bounded where
            the questions were generated (`room_to_learn`).
        seed: of every draw; the same seed gives the same numbers on the same machine. The recipe's where None.
        device: a torch device; the best there is where None.
        show_progress: a progress bar with time left.
        report_to: trackers: `tensorboard`, `trackio`, `mlflow`, `wandb`, as far as they are installed. TensorBoard's
            files are in a folder beside the model, `NAME.logs`.
        **settings: numbers of the recipe that replace its own: `epochs`, `batch_size`, `learning_rate`, `loss`,
            `mine`, `lora`, `dimensions`, ... (`Recipe`).

    Returns:
        The trained model's folder, its share of tuned weights, and the dev figures.

    Raises:
        InputError: where the dataset has no training question or the output is in the way.
        OutsideError: where the hub cannot be reached or the disk is full.
    """
    output = Path(output)
    check_output(output)
    check_trackers(report_to)
    if device is not None and device.partition(":")[2] not in ("", "0"):
        raise InputError(
            f"device is {device!r}: training runs on the first GPU it sees, so choose one with CUDA_VISIBLE_DEVICES"
        )
    if seed is None:
        seed = recipe.seed if recipe is not None else 0
    elif recipe is not None:
        recipe = replace(recipe, seed=seed)
    before = _earlier_record(continue_from) if continue_from is not None else {}
    base_model = str(continue_from) if continue_from is not None else base_model
    if earlier is not None:
        # Each brings its own dev: merged without, one side alone would choose.
        dataset = merge_datasets(carve_dev(earlier, seed=seed), carve_dev(dataset, seed=seed), replay, seed)
    elif before:
        logger.warning("no earlier dataset is given: nothing tells whether earlier questions are still answered")
    if not dataset.scored_pairs:
        dataset.require("train")
    started = time.monotonic()
    model = load_sentence_transformer(base_model, query_prefix, passage_prefix, max_length, device)
    model.float()  # in 16 bits most of what a small step adds is rounded away
    master = load_sentence_transformer(teacher, device=device) if teacher is not None else None
    # Dev questions like the training ones approve of too much, where those were generated.
    bounded = recipe is None and "shares" not in settings and master is None and is_generated(dataset)
    recipe = chosen_recipe(dataset, model, master, recipe, settings, seed, max_pairs)
    dev, dataset = held_out_dev(dataset, recipe, seed)
    if max_length is None:
        model.max_seq_length = fitting_max_length(model, passages_of_training(dataset, recipe))
    base = copy_weights(model)
    examples = examples_for(dataset, recipe, model, master, max_pairs)
    wanted = fingerprint_of(base, model, master, dataset, recipe, examples, max_minutes)
    if max_minutes is not None and (planned := Checkpoints.plan(output, wanted)) is None:
        recipe, examples = fitted_into(max_minutes, model, recipe, examples)
    elif max_minutes is not None and planned is not None:
        recipe, examples = planned_as(planned, recipe, examples)
    findings = check_questions(dataset) if SHAPE[recipe.loss or "mnr"] in ("pairs", "triplets") else []
    base_values = dev.values(model) if dev is not None else None
    triplets = dev_triplets(dataset, seed)
    accuracy = {"base": triplet_accuracy(model, triplets)} if len(triplets) >= ENOUGH else {}
    level = None
    if isinstance(dev, DevQuestions) and base_values is not None:
        findings += check_level(float(base_values.mean()), dev.chance())
        if bounded:
            level = dev.level(base_values)
            recipe = replace(recipe, shares=bounded_shares(recipe.shares, room_to_learn(level)))
            logger.info(
                "the base model has nDCG@10 %.3f on questions made of the passages: %s", level,
                f"it may take {recipe.shares[0]:.0%} of the tuned weights" if recipe.shares
                else f"it is at home here (over {STRONG}), and generated questions would teach it nothing",
            )  # fmt: skip
    logger.info(
        "training %s on %d pairs: %s, %d epochs of batch %d, %d tokens, learning rate %.1e, %s",
        base_model, len(examples), recipe.loss, recipe.epochs, recipe.batch_size, model.max_seq_length,
        recipe.learning_rate, "bf16" if has_fast_bf16(model.device.type) else "fp32",
    )  # fmt: skip
    scores = {} if dev is None or base_values is None else {"base": mean_over_makings(base_values, dev.makings)}
    choice = Choice(0.0, base, scores)
    tunings: list[Tuning] = []
    if recipe.shares:
        checkpoints = Checkpoints.beside(output, wanted, {"epochs": recipe.epochs, "pairs": len(examples)})
        try:
            choice, tunings, signs = tune_in_rounds(
                model, dataset, examples, recipe, base, dev, base_values, checkpoints, show_progress, report_to,
                output.with_name(output.name + ".logs"),
            )  # fmt: skip
        finally:
            checkpoints.close()
        findings += signs
    if choice.share == 0.0 and recipe.dimensions:
        logger.warning("the base model stays, so its vectors cannot be cut: it was not trained for that")
        recipe = replace(recipe, dimensions=())
    for finding in findings:
        logger.warning("%s", finding)
    training = _record(dataset, examples, dev, choice, tunings, findings, level, started)
    # By which a comparison knows that it would ask what was trained on.
    training["questions"] = questions_sketch(dataset, before.get("training", {}).get("questions", ()))
    if accuracy:
        accuracy["shipped"] = triplet_accuracy(model, triplets)
        training["dev_triplet_accuracy"] = {name: round(share, 4) for name, share in accuracy.items()}
        logger.info("triplets of dev that are told apart: %.3f, before %.3f", accuracy["shipped"], accuracy["base"])
    if master is not None and dev is not None:
        training["teacher"] = beside_teacher(str(teacher), model, master, dev)
    generations = [*before.get("generations", []), _generation(before)] if before else []
    record = {"recipe": recipe.to_dict(), "training": training, "generations": generations}
    contract = save_model(model, output, before.get("base_model", base_model), record)
    if recipe.shares:
        checkpoints.remove()
    return TrainedModel(output, choice.share, choice.scores, contract)


def _record(
    dataset: QADataset,
    examples: Sequence[Pair],
    dev: Dev | None,
    choice: Choice,
    tunings: Sequence[Tuning],
    findings: Sequence[str],
    level: float | None,
    started: float,
) -> dict[str, Any]:
    """What `rag_ft.json` says of a training."""
    return {
        "pairs": len(examples),
        "dev_questions": len(dev.makings) if dev else 0,
        "dev_makings": dict(Counter(dev.makings)) if dev else {},
        "dev_documents": dict(Counter(dev.kinds)) if dev else {},
        f"dev_{dev.metric if dev else 'ndcg@10'}": {name: round(score, 4) for name, score in choice.scores.items()},
        "gain": _interval(choice.gain),
        "share": choice.share,
        "refused": choice.refused,
        "general": {name: round(score, 4) for name, score in choice.general.items()},
        "level": None if level is None else round(level, 4),
        "findings": list(findings),
        "texts_per_second": round(tunings[-1].texts_per_second, 1) if tunings else None,
        "interrupted": any(tuning.interrupted for tuning in tunings),
        "seconds": round(time.monotonic() - started, 1),
        "question_styles": question_styles(dataset),
        # By which a check-up knows that the model was tuned for a corpus already.
        "corpus": sketch_of(dataset.passage_texts.values()),
    }


def _earlier_record(folder: str | Path) -> dict[str, Any]:
    record = read_model_record(Path(folder))
    if not record:
        raise InputError(f"{folder} was not tuned by rag_ft (no rag_ft.json): give it as --base-model instead")
    return record


def _generation(record: dict[str, Any]) -> dict[str, Any]:
    """What stays known of a model that another one goes on from."""
    training = record.get("training", {})
    return {key: record.get(key) for key in ("name", "created", "weights_sha256")} | {
        key: training.get(key) for key in ("pairs", "share")
    }


def _interval(gain: Difference | None) -> dict[str, Any] | None:
    if gain is None:
        return None
    return {"mean": round(gain.mean, 4), "ci95": [round(bound, 4) for bound in gain.ci95]}
