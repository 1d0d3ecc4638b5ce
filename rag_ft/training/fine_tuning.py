"""QADataset -> model folder: fine-tuning, with the base model as a candidate."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rag_ft.dataset.merging import merge_datasets
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import carve_dev
from rag_ft.dataset.text.sketch import sketch_of
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.encoding import encode
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
    DevScores,
    State,
    copy_weights,
    dev_triplets,
    mean_over_makings,
    triplet_accuracy,
)
from rag_ft.training.diagnosis import check_level, check_losses, check_makings, check_questions, check_vectors
from rag_ft.training.distillation import CANDIDATES, ranked_pairs, vector_pairs
from rag_ft.training.focus import what_bm25_misses
from rag_ft.training.guard import Choice, choose_share
from rag_ft.training.hard_negatives import mine_negatives
from rag_ft.training.lora import DEFAULT_RATE, add_lora, remove_lora
from rag_ft.training.losses import SHAPE, check_dimensions, check_shape, loss_that_fits
from rag_ft.training.pairs import (
    Pair,
    is_generated,
    question_styles,
    scored_pairs,
    training_pairs,
    without_held_out,
)
from rag_ft.training.recipe import (
    STRONG,
    Recipe,
    fitting_max_length,
    recipe_for,
    room_to_learn,
)
from rag_ft.training.trainer import Tuning, check_trackers, run_trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

T = TypeVar("T")

MARGIN_LOSSES, MARGIN_RATE = ("triplet", "contrastive", "online-contrastive"), 0.2
"""Times the rate of other losses: a margin pulls as hard whether it is missed by much or by little. At the full rate
the dev figure fell (triplets on the demo's documents: .523 -> .517, at a fifth .556)."""

LEAST_SHARE = 0.1
"""A smaller share of the tuned weights is not worth a training."""


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
    recipe = _recipe(dataset, model, master, recipe, settings, seed, max_pairs)
    dev, dataset = _dev(dataset, recipe, seed)
    if max_length is None:
        model.max_seq_length = fitting_max_length(model, _passages_of_training(dataset, recipe))
    base = copy_weights(model)
    examples = _examples(dataset, recipe, model, master, max_pairs)
    wanted = _fingerprint(base, model, master, dataset, recipe, examples, max_minutes)
    if max_minutes is not None and (planned := Checkpoints.plan(output, wanted)) is None:
        recipe, examples = _fit_into(max_minutes, model, recipe, examples)
    elif max_minutes is not None and planned is not None:
        recipe, examples = _planned(planned, recipe, examples)
    findings = check_questions(dataset) if SHAPE[recipe.loss or "mnr"] in ("pairs", "triplets") else []
    base_values = dev.values(model) if dev is not None else None
    triplets = dev_triplets(dataset, seed)
    accuracy = {"base": triplet_accuracy(model, triplets)} if len(triplets) >= ENOUGH else {}
    level = None
    if isinstance(dev, DevQuestions) and base_values is not None:
        findings += check_level(float(base_values.mean()), dev.chance())
        if bounded:
            level = dev.level(base_values)
            recipe = replace(recipe, shares=_bounded(recipe.shares, room_to_learn(level)))
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
            choice, tunings, signs = _tune(
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
    training: dict[str, Any] = {
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
        "findings": findings,
        "texts_per_second": round(tunings[-1].texts_per_second, 1) if tunings else None,
        "interrupted": any(tuning.interrupted for tuning in tunings),
        "seconds": round(time.monotonic() - started, 1),
        "question_styles": question_styles(dataset),
        # By which a check-up knows that the model was tuned for a corpus already.
        "corpus": sketch_of(dataset.passage_texts.values()),
    }
    if accuracy:
        accuracy["shipped"] = triplet_accuracy(model, triplets)
        training["dev_triplet_accuracy"] = {name: round(share, 4) for name, share in accuracy.items()}
        logger.info("triplets of dev that are told apart: %.3f, before %.3f", accuracy["shipped"], accuracy["base"])
    if master is not None and dev is not None:
        training["teacher"] = _beside_teacher(str(teacher), model, master, dev)
    generations = [*before.get("generations", []), _generation(before)] if before else []
    record = {"recipe": recipe.to_dict(), "training": training, "generations": generations}
    contract = save_model(model, output, before.get("base_model", base_model), record)
    if recipe.shares:
        checkpoints.remove()
    return TrainedModel(output, choice.share, choice.scores, contract)


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


def _recipe(
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


def _dev(dataset: QADataset, recipe: Recipe, seed: int) -> tuple[Dev | None, QADataset]:
    """(what chooses, the dataset without it)."""
    if dataset.qrels.get("train"):
        dataset = carve_dev(dataset, seed=seed)
    dataset = without_held_out(dataset)
    if dataset.qrels.get("dev"):
        return DevQuestions.of(dataset, seed), dataset
    return DevScores.carved(dataset, seed)


def _passages_of_training(dataset: QADataset, recipe: Recipe) -> list[str]:
    if SHAPE[recipe.loss or "mnr"] in ("scored", "binary"):
        return [pair.passage for pair in dataset.scored_pairs]
    texts = dataset.passage_texts
    return [texts[passage] for passage in dict.fromkeys(passage for _, passage in dataset.pairs("train"))]


def _examples(
    dataset: QADataset,
    recipe: Recipe,
    model: SentenceTransformer,
    teacher: SentenceTransformer | None,
    max_pairs: int | None,
) -> list[Pair]:
    """What is trained on, in the shape that the loss learns from."""
    shape = SHAPE[recipe.loss or "mnr"]
    if shape in ("scored", "binary"):
        return scored_pairs(dataset, shape == "binary", max_pairs, recipe.seed)
    if recipe.focus is not None:
        dataset = what_bm25_misses(dataset)
    if shape == "vectors" and teacher is not None:
        examples = vector_pairs(dataset, teacher, model.get_embedding_dimension() or 0, recipe.seed)
        return examples[:max_pairs]
    if shape == "rankings" and teacher is not None:
        # What is near to the answer is not wrong here: the teacher says how near.
        dataset = mine_negatives(dataset, teacher, by=recipe.mine or "dense", count=CANDIDATES, margin=10.0)
        recipe = replace(recipe, negatives=CANDIDATES)
        examples = ranked_pairs(training_pairs(dataset, recipe, max_pairs), teacher)
    elif recipe.mine is not None:
        dataset = mine_negatives(dataset, model, by=recipe.mine, count=max(1, recipe.negatives))
        examples = training_pairs(dataset, recipe, max_pairs)
    else:
        examples = training_pairs(dataset, recipe, max_pairs)
    if not examples:
        raise InputError("the train split has no pair of a question and a passage with text in them")
    return examples


def _fingerprint(
    base: State,
    model: SentenceTransformer,
    teacher: SentenceTransformer | None,
    dataset: QADataset,
    recipe: Recipe,
    examples: Sequence[Pair],
    max_minutes: float | None,
) -> str:
    """What must be the same for a training to go on."""
    digest = hashlib.sha256()
    dev = [(query, dataset.queries[query].text, grades) for query, grades in dataset.qrels.get("dev", {}).items()]
    digest.update(repr((model.prompts, model.max_seq_length, recipe.to_dict(), max_minutes, sorted(dev))).encode())
    for pair in examples:
        digest.update(repr((pair.query, pair.passage, pair.negatives, pair.label)).encode())
    for weights in (base, teacher.state_dict() if teacher is not None else {}):
        for name, tensor in weights.items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _tune(
    model: SentenceTransformer,
    dataset: QADataset,
    examples: list[Pair],
    recipe: Recipe,
    base: State,
    dev: Dev | None,
    base_values: NDArray[np.float64] | None,
    checkpoints: Checkpoints,
    show_progress: bool,
    report_to: Sequence[str],
    logs: Path,
) -> tuple[Choice, list[Tuning], list[str]]:
    """Train in rounds; (the best choice of the guard, which the model has then, the trainings, what looked wrong)."""
    best: Choice | None = None
    tunings: list[Tuning] = []
    findings: list[str] = []
    passages = dev.passages()[:200] if dev is not None else [pair.passage for pair in examples[:200]]
    base_vectors = encode(model, passages, "document")
    for number in range(1, recipe.rounds + 1):
        if number > 1:
            model.load_state_dict(tunings[-1].weights or base)
            examples = _examples(dataset, recipe, model, None, len(examples))
            model.load_state_dict(base)
        seen = _BestValues(dev, model)
        if recipe.lora:
            add_lora(model, recipe.lora)
        try:
            tuning = run_trainer(
                model,
                examples,
                recipe,
                seen.measure if dev is not None else None,
                folder=checkpoints.stage(f"round-{number}"),
                show_progress=show_progress,
                report_to=report_to,
                logs=logs,
            )
        finally:
            if recipe.lora:
                remove_lora(model)
        tunings.append(tuning)
        tuned = tuning.weights or base
        # A checkpoint brings back the best weights and their figure, not the single values that it is the mean of.
        known = seen.values if seen.best == max(tuning.scores.values(), default=None) else None
        choice = choose_share(model, base, tuned, recipe.shares, dev, recipe.forgetting, base_values, known)
        prefix = f"round {number} " if recipe.rounds > 1 else ""
        along = {prefix + name: score for name, score in tuning.scores.items()}
        scores = {"base": choice.scores["base"]} | along if dev is not None else {}
        choice = replace(
            choice,
            scores=scores | _named(choice.scores, prefix),
            refused=_named(choice.refused, prefix),
            general=_named(choice.general, prefix),
        )
        model.load_state_dict(tuned)
        vectors = encode(model, passages, "document")
        findings += check_losses(tuning.losses) + check_vectors(base_vectors, vectors)
        if known is not None and base_values is not None and dev is not None:
            findings += check_makings(known - base_values, dev.makings)
        best = choice if best is None else _better(best, choice)
        if tuning.interrupted:
            break
    assert best is not None
    model.load_state_dict(best.weights)
    return best, tunings, list(dict.fromkeys(findings))


def _named(found: Mapping[str, T], prefix: str) -> dict[str, T]:
    """With the round before each name but the base's."""
    return {prefix * (name != "base") + name: value for name, value in found.items()}


class _BestValues:
    """The dev figure of a model, and the single values of its best time."""

    def __init__(self, dev: Dev | None, model: SentenceTransformer) -> None:
        self.dev, self.model = dev, model
        self.best = float("-inf")
        self.values: NDArray[np.float64] | None = None

    def measure(self) -> float:
        assert self.dev is not None
        values = self.dev.values(self.model)
        score = mean_over_makings(values, self.dev.makings)
        if score > self.best:
            self.best, self.values = score, values
        return score


def _better(one: Choice, other: Choice) -> Choice:
    """The choice with the larger gain on dev, with what is known of both."""
    # Without dev the later round is taken, as the later epoch is.
    winner = one if (other.gain.mean if other.gain else 0.0) < (one.gain.mean if one.gain else 0.0) else other
    return replace(
        winner,
        scores=one.scores | other.scores,
        refused=one.refused | other.refused,
        general=one.general | other.general,
    )


def _interval(gain: Difference | None) -> dict[str, Any] | None:
    if gain is None:
        return None
    return {"mean": round(gain.mean, 4), "ci95": [round(bound, 4) for bound in gain.ci95]}


def _beside_teacher(name: str, model: SentenceTransformer, teacher: SentenceTransformer, dev: Dev) -> dict[str, Any]:
    """The teacher's dev figure beside the student's, and how much faster the student reads the same passages."""
    seconds = []
    for each in (teacher, model):
        encode(each, dev.passages()[:8], "document")  # what is loaded at first use is not counted
        began = time.monotonic()
        encode(each, dev.passages(), "document")
        seconds.append(time.monotonic() - began)
    return {
        "name": name,
        f"dev_{dev.metric}": round(mean_over_makings(dev.values(teacher), dev.makings), 4),
        "student": round(mean_over_makings(dev.values(model), dev.makings), 4),
        "times_faster": round(seconds[0] / max(seconds[1], 1e-9), 1),
    }


def _bounded(shares: Sequence[float], room: float) -> tuple[float, ...]:
    """Shares of the tuned weights within the room there is; none where that is next to nothing."""
    return tuple(round(share * room, 2) for share in shares) if room * shares[0] >= LEAST_SHARE else ()


def _fit_into(
    minutes: float, model: SentenceTransformer, recipe: Recipe, pairs: list[Pair]
) -> tuple[Recipe, list[Pair]]:
    """Fewer epochs, then fewer pairs, so that the steps fit a time; a few steps are run to measure one.

    Raises:
        KeyboardInterrupt: where somebody stops it.
    """
    base = copy_weights(model)
    batch = min(recipe.batch_size, recipe.inner_batch, len(pairs))
    probe = replace(recipe, learning_rate=1e-9, together=1, batch_size=max(2, batch), rounds=1)
    few = pairs[: 4 * batch]
    run_trainer(model, few, probe, max_steps=1)  # what is loaded at first use is not counted
    measured = run_trainer(model, few, probe, max_steps=2)
    model.load_state_dict(base)
    if measured.interrupted:
        raise KeyboardInterrupt
    per_pair = (2 + len(pairs[0].negatives)) / max(measured.texts_per_second, 1e-9)
    budget = int(minutes * 60 * 0.8 / per_pair) // recipe.rounds  # a fifth is for dev, loading and saving
    # Similar passages are found by encoding them once: about a third of an epoch.
    budget -= min(len(pairs), budget // 4) // 3 if recipe.together > 1 else 0
    plan = {"epochs": max(1, min(recipe.epochs, budget // len(pairs))), "pairs": min(len(pairs), max(budget, batch))}
    logger.info(
        "%.2f s for 100 pairs: %d epochs over %d of %d pairs fit %g minutes",
        per_pair * 100, plan["epochs"], plan["pairs"], len(pairs), minutes,
    )  # fmt: skip
    return _planned(plan, recipe, pairs)


def _planned(plan: dict[str, int], recipe: Recipe, pairs: list[Pair]) -> tuple[Recipe, list[Pair]]:
    """What fits a time."""
    if plan["pairs"] < len(pairs):
        pairs = random.Random(recipe.seed).sample(pairs, plan["pairs"])
    return replace(recipe, epochs=plan["epochs"]), pairs
