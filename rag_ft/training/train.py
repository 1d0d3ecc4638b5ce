"""QADataset -> model folder: fine-tuning, with the base model as a candidate."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_ft.dataset.merging import merge_datasets
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import hash_of, sketch_of
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL, load_sentence_transformer
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.embedding.saving import check_output, save_model
from rag_ft.errors import InputError
from rag_ft.training.examples.distillation import compare_with_teacher
from rag_ft.training.examples.pairs import question_styles, questions_sketch
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.principal_axes import remove_rotation, turn_again
from rag_ft.training.loop.rounds import tune_in_rounds
from rag_ft.training.loop.time_budget import in_words
from rag_ft.training.loop.trainer import check_trackers, check_training_device
from rag_ft.training.plan import Plan, plan_training
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.dev_set import ENOUGH, dev_triplets, triplet_accuracy
from rag_ft.training.selection.select import Selection, gain_to_dict, why_base

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

    Example:
        >>> from pathlib import Path
        >>> from rag_ft import TrainedModel
        >>> dev = {"base": 0.61, "epoch 1": 0.66, "share 0.5": 0.67}
        >>> trained = TrainedModel(Path("models/acme"), share=0.5, dev=dev, record={"training": {"findings": []}})
        >>> trained.is_base, trained.findings
        (False, [])
    """

    folder: Path
    share: float
    dev: dict[str, float]
    record: dict[str, Any]

    @property
    def is_base(self) -> bool:
        """Whether the base model stays; the record's `training` says why in `base_stays_because`."""
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

    The loss follows from the data (`rag_ft.training.loop.losses`): for questions with their passages, every other passage
    of the batch is a negative, and no row of a batch shows a passage, or a near-repeat of one, that answers another's
    question. After each epoch, and for weights between the base's and the tuned ones, the dev figure is measured; the
    base model is a candidate too, and stays unless another one is surely better (`rag_ft.training.selection.select`). The test
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
            the questions were generated (`headroom`).
        seed: of every draw; the same seed gives the same numbers on the same CPU (a GPU's kernels add up in any order).
            The recipe's where None.
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

    Example:
        >>> import tempfile
        >>> from rag_ft import FineTunedEmbedding, Passage, QADataset, Query, train_model
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form {n} is signed in harbour {n}.") for n in range(8)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Where is form {n} signed?") for n in range(8)}
        >>> dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(8)}})
        >>> trained = train_model(dataset, tempfile.mkdtemp() + "/model", "local", epochs=1, shares=(1.0,))
        >>> trained.is_base  # eight questions are too few to be sure that anything got better
        True
        >>> len(FineTunedEmbedding.load(trained.folder).get_query_embedding("Who signs form 3?"))
        384
    """
    output = Path(output)
    check_output(output)
    check_trackers(report_to)
    check_training_device(device)
    if seed is None:
        seed = recipe.seed if recipe is not None else 0
    elif recipe is not None:
        recipe = replace(recipe, seed=seed)
    before = _earlier_record(continue_from) if continue_from is not None else {}
    base_model = str(continue_from) if continue_from is not None else base_model
    if earlier is not None:
        if earlier.qrels.get("train") and not dataset.qrels.get("train"):
            raise InputError(
                f"the new dataset has {len(dataset.scored_pairs)} scored pairs and no question to train on, the "
                "earlier one has questions: no loss learns from both, so give no earlier dataset, or questions"
            )
        # Each brings its own dev: merged without, one side alone would choose. The earlier one is drawn as it was when
        # the model was tuned, so that dev asks nothing that it has seen.
        own = before.get("recipe", {}).get("seed")
        earlier = hold_out_dev(earlier, seed=own if isinstance(own, int) else seed)
        dataset = merge_datasets(earlier, hold_out_dev(dataset, seed=seed), replay, seed)
    elif before:
        logger.warning("no earlier dataset is given: nothing tells whether earlier questions are still answered")
    if not dataset.scored_pairs:
        dataset.require("train")
    started = time.monotonic()
    model = load_sentence_transformer(base_model, query_prefix, passage_prefix, max_length, device)
    model.float()  # in 16 bits most of what a small step adds is rounded away
    master = load_sentence_transformer(teacher, device=device) if teacher is not None else None
    plan = plan_training(
        dataset, model, master, output, recipe=recipe, settings=settings, seed=seed, max_length=max_length,
        max_pairs=max_pairs, max_minutes=max_minutes, seen=_seen(before, earlier),
    )  # fmt: skip
    recipe = plan.recipe
    logger.info(
        "training %s on %d pairs: %s, %d epochs of batch %d, %d tokens, learning rate %.1e, %s%s",
        base_model, len(plan.examples), recipe.loss, recipe.epochs, recipe.batch_size, token_limit(model),
        recipe.learning_rate, "bf16" if has_fast_bf16(model.device.type) else "fp32",
        f", {in_words(plan.seconds)}" if plan.seconds is not None else "",
    )  # fmt: skip
    with ExitStack() as held:
        checkpoints = None
        if recipe.shares:
            kept = {"epochs": recipe.epochs, "pairs": len(plan.examples)}
            checkpoints = Checkpoints.beside(output, plan.fingerprint, kept)
            held.callback(checkpoints.close)  # not before the model stands: nobody else may go on from them
        trained = _carry_out(
            plan, output, before.get("base_model", base_model), before, teacher, checkpoints, started, show_progress,
            report_to,
        )  # fmt: skip
        if checkpoints is not None:
            checkpoints.remove()
    return trained


def _carry_out(
    plan: Plan,
    output: Path,
    base_model: str,
    before: dict[str, Any],
    teacher: str | None,
    checkpoints: Checkpoints | None,
    started: float,
    show_progress: bool,
    report_to: Sequence[str],
) -> TrainedModel:
    """Train as planned, choose, and save what was chosen."""
    model, recipe = plan.model, plan.recipe
    triplets = dev_triplets(plan.dataset, recipe.seed)
    accuracy = {"base": triplet_accuracy(model, triplets)} if len(triplets) >= ENOUGH else {}
    choice = Selection(0.0, plan.base, plan.base_scores)
    fits: list[FitResult] = []
    findings = plan.findings
    if checkpoints is not None:
        logs = output.with_name(output.name + ".logs")
        if plan.teacher is not None:
            plan.teacher.to("cpu")  # it has labelled all, and the student needs the memory
        choice, fits, signs = tune_in_rounds(plan, checkpoints, show_progress, report_to, logs)
        findings = [*findings, *signs]
    if choice.share == 0.0 and recipe.dimensions:
        logger.warning("the base model stays, so its vectors cannot be cut: it was not trained for that")
        recipe = replace(recipe, dimensions=())
        if plan.rotation is not None:
            remove_rotation(model, plan.rotation)
    if choice.share and recipe.dimensions:
        turn_again(model, list(plan.dataset.passage_texts.values()), plan.dev, recipe.dimensions)
    for finding in findings:
        logger.warning("%s", finding)
    training = _record(plan, choice, fits, findings, started)
    # By which a comparison knows that it would ask what was trained on.
    training["questions"] = questions_sketch(plan.dataset, before.get("training", {}).get("questions", ()))
    if accuracy:
        accuracy["shipped"] = triplet_accuracy(model, triplets)
        training["dev_triplet_accuracy"] = {name: round(share, 4) for name, share in accuracy.items()}
        logger.info("triplets of dev that are told apart: %.3f, before %.3f", accuracy["shipped"], accuracy["base"])
    if plan.teacher is not None and plan.dev is not None:
        training["teacher"] = compare_with_teacher(str(teacher), model, plan.teacher.to(model.device), plan.dev)
    generations = [*before.get("generations", []), _generation(before)] if before else []
    record = {"recipe": recipe.to_dict(), "training": training, "generations": generations}
    contract = save_model(model, output, base_model, record)
    return TrainedModel(output, choice.share, choice.scores, contract)


def _record(
    plan: Plan, choice: Selection, fits: Sequence[FitResult], findings: Sequence[str], started: float
) -> dict[str, Any]:
    """What `rag_ft.json` says of a training."""
    dev, level = plan.dev, plan.level
    return {
        "pairs": len(plan.examples),
        "dev_questions": len(dev.sources) if dev else 0,
        "dev_makings": dict(Counter(dev.sources)) if dev else {},
        "dev_documents": dict(Counter(dev.kinds)) if dev else {},
        f"dev_{dev.metric if dev else 'ndcg@10'}": {name: round(score, 4) for name, score in choice.scores.items()},
        "dev_apart": _apart(plan, choice),
        "gain": gain_to_dict(choice.gain),
        "share": choice.share,
        "base_stays_because": None if choice.share else why_base(dev, plan.recipe.shares, choice.refused),
        "refused": choice.refused,
        "general": {name: round(score, 4) for name, score in choice.general.items()},
        "level": None if level is None else round(level, 4),
        "findings": list(findings),
        "texts_per_second": round(fits[-1].texts_per_second, 1) if fits else None,
        "interrupted": any(fit.interrupted for fit in fits),
        "seconds": round(time.monotonic() - started, 1),
        "question_styles": question_styles(plan.dataset),
        # By which a check-up knows that the model was tuned for a corpus already.
        "corpus": sketch_of(plan.dataset.passage_texts.values()),
    }


def _apart(plan: Plan, choice: Selection) -> dict[str, dict[str, float]]:
    """The dev figures of the base and of what is shipped on each kind of question, where there are several."""
    dev, before = plan.dev, plan.base_values
    if dev is None or before is None:
        return {}
    after = choice.values if choice.values is not None else before
    found = {}
    for words, labels in (("{}", dev.sources), ("on {} documents", dev.kinds)):
        distinct = list(dict.fromkeys(labels))
        for label in distinct if len(distinct) > 1 else []:
            those = np.asarray(labels) == label
            means = {"base": before[those].mean(), "shipped": after[those].mean()}
            found[words.format(label)] = {"questions": int(those.sum())} | {
                name: round(float(mean), 4) for name, mean in means.items()
            }
    return found


def _earlier_record(folder: str | Path) -> dict[str, Any]:
    record = read_model_record(Path(folder))
    if not record:
        raise InputError(f"{folder} was not tuned by rag_ft (no rag_ft.json): give it as --base-model instead")
    return record


def _seen(record: dict[str, Any], earlier: QADataset | None) -> frozenset[str]:
    """The hashes of the questions that a model was tuned on: of them dev must ask none."""
    texts = [earlier.queries[query].text for query in earlier.qrels.get("train", ())] if earlier is not None else []
    return frozenset([*record.get("training", {}).get("questions", ()), *map(hash_of, texts)])


def _generation(record: dict[str, Any]) -> dict[str, Any]:
    """What stays known of a model that another one goes on from."""
    training = record.get("training", {})
    return {key: record.get(key) for key in ("name", "created", "weights_sha256")} | {
        key: training.get(key) for key in ("pairs", "share")
    }
