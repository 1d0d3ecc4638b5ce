"""Train a model: prepare, plan, fit, select, save."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL, load_sentence_transformer
from rag_ft.embedding.model_spec import ModelSpec
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.embedding.saving import check_output, save_model
from rag_ft.embedding.training_summary import TrainingResult
from rag_ft.errors import InputError
from rag_ft.training.continuing import EarlierTraining, continue_training
from rag_ft.training.examples.distillation import compare_with_teacher
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.fit import FittedModel, fit_model
from rag_ft.training.loop.rotation import realign_rotation, remove_rotation
from rag_ft.training.loop.time_budget import in_words
from rag_ft.training.loop.tracking import Tracking, check_trackers
from rag_ft.training.loop.trainer import check_training_device
from rag_ft.training.plan import Plan, plan_training
from rag_ft.training.prepare import Budget, Choices, prepare
from rag_ft.training.recipe import Recipe, check_settings
from rag_ft.training.record import dataset_record, parts_record, selection_record
from rag_ft.training.selection.dev_set import MIN_UNITS
from rag_ft.training.selection.select import Policy, Rule, SelectBy, Selection
from rag_ft.training.selection.select_weights import Tuned, WeightSelection
from rag_ft.training.selection.triplets import Triplet, dev_triplets, triplet_accuracy

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel(TrainingResult):
    """The result of a training.

    Attributes:
        folder: the model folder.
        alpha: weight of the tuned model in the shipped weights; 0 is the base model, unchanged.
        dev: dev score by candidate (`base`, `epoch 1`, ..., `alpha 0.5`): nDCG@10, or Spearman's correlation if there
            are only scored pairs.
        record: the content of `rag_ft.json`.

    Example:
        >>> from pathlib import Path
        >>> from rag_ft import TrainedModel
        >>> dev = {"base": 0.61, "epoch 1": 0.66, "alpha 0.5": 0.67}
        >>> training = {
        ...     "share": 0.5, "gain": {"mean": 0.06, "ci95": [0.03, 0.09]}, "findings": [],
        ...     "dev_questions": 90, "dev_ndcg@10": {"base": 0.61, "epoch 1": 0.66, "share 0.5": 0.67},
        ... }
        >>> trained = TrainedModel(Path("models/acme"), alpha=0.5, dev=dev, record={"training": training})
        >>> trained.is_base, trained.findings
        (False, [])
        >>> print(trained)  # or trained.summary, with the parts of this text
        Training selected the tuned model at alpha 0.5: dev nDCG@10 0.610 -> 0.670 (+0.060 [+0.030, +0.090]).
        dev nDCG@10 on 90 questions: base 0.610, epoch 1 0.660, alpha 0.5 0.670
    """

    folder: Path
    alpha: float
    dev: dict[str, float]
    record: dict[str, Any]

    @property
    def is_base(self) -> bool:
        """Whether the base model stays; `summary` says why."""
        return self.alpha == 0.0


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
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    show_progress: bool = False,
    report_to: Sequence[str] = (),
    select: SelectBy = "safe",
) -> TrainedModel:
    """Fine-tune a model on the train split, select on dev, and save it with its prefixes and contract.

    The loss follows from the data (`rag_ft.training.loop.losses`). For questions with their passages, every other
    passage of the batch is a negative, and no example brings a passage into a batch that answers another example's
    question, or nearly repeats one that does. The dev score is measured after each epoch, and for weights between the
    base's and the tuned ones. The base model is a candidate too, and stays unless another one is significantly better
    (`rag_ft.training.selection.select`). The test split is not used.

    If the process is killed, the same call resumes from the last checkpoint. Ctrl-C ends the training and keeps the
    best weights so far.

    Args:
        dataset: a dataset with a train split, or with scored pairs. If it has no dev split, one is held out: 15 % of
            the documents, and 10 % of the questions about the others.
        output: the model folder; it appears when it is complete.
        base_model: a hub name, a folder, or `local`.
        query_prefix: text put before a query; None uses the base model's own prefix.
        passage_prefix: text put before a passage; None uses the base model's own prefix.
        max_length: maximum number of tokens read per passage; None derives it from the passage lengths.
        max_pairs: maximum number of training pairs.
        max_minutes: maximum training time in minutes. If necessary, it reduces the epochs first, then the pairs.
        teacher: a larger model, named like `base_model`, whose vectors or rankings the model learns.
        continue_from: a tuned model to continue from, instead of `base_model`.
        earlier: the dataset that this model was tuned on. Some of its questions are trained on again, and a candidate
            must not lose on its dev questions.
        replay: fraction of earlier questions among all training questions.
        recipe: replaces the default recipe (`recipe_for`). Its alphas are not limited by `headroom`.
        settings: values that replace those of the recipe, such as `{"epochs": 1, "loss": "gist"}` (`Recipe`).
        seed: seeds every random choice; None uses the recipe's seed. The same seed gives the same numbers on the same
            CPU, but not on a GPU, whose kernels sum in any order.
        device: a torch device; None picks the best one available.
        show_progress: show a progress bar with the time left.
        report_to: installed trackers to use: `tensorboard`, `trackio`, `mlflow`, `wandb`. TensorBoard's files are
            written into a folder beside the model, `NAME.logs`.
        select: `safe` ships a tuned model only with proof that it is better and with no sign of harm elsewhere; `dev`
            ships the one with the best dev score, and generated questions do not limit alpha.

    Returns:
        The model's folder, the selected alpha, and the dev scores.

    Raises:
        InputError: if the dataset has no training question, `output` exists and is not a model folder, or an argument
            is invalid.
        OutsideError: if the hub cannot be reached, or the disk is full.

    Example:
        >>> import tempfile
        >>> from rag_ft import FineTunedEmbedding, Passage, QADataset, Query, train_model
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form {n} is signed in harbour {n}.") for n in range(8)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Where is form {n} signed?") for n in range(8)}
        >>> dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(8)}})
        >>> trained = train_model(dataset, tempfile.mkdtemp() + "/model", "local", settings={"epochs": 1})
        >>> trained.is_base  # eight questions are too few to prove a gain
        True
        >>> len(FineTunedEmbedding.load(trained.folder).get_query_embedding("Who signs form 3?"))
        384
    """
    output, started = Path(output), time.monotonic()
    check_output(output)
    check_trackers(report_to)
    check_training_device(device)
    choices = _choices(recipe, settings, seed, adapt_max_length=max_length is None)
    choices = replace(choices, rule=rule_for(select))
    dataset, before = continue_training(dataset, continue_from, earlier, replay, choices.seed)
    if not dataset.scored_pairs:
        dataset.require("train")
    spec = ModelSpec(
        name=continue_from or base_model, query_prefix=query_prefix, passage_prefix=passage_prefix,
        max_length=max_length, device=device,
    )  # fmt: skip
    job = prepare(
        dataset, spec.load(), choices,
        teacher=load_sentence_transformer(teacher, device=device) if teacher is not None else None,
        budget=Budget(pairs=max_pairs, minutes=max_minutes),
        trained_on=before.trained_on,
    )  # fmt: skip
    plan = plan_training(job, output)
    _log_plan(plan, str(spec.name))
    tracking = Tracking(show_progress=show_progress, report_to=report_to, logs=output.with_name(output.name + ".logs"))
    with checkpoints_of(plan, output) as checkpoints:
        training = Training(plan=plan, before=before, teacher=teacher, started=started)
        if checkpoints is not None:
            training.run(checkpoints, tracking)
        name = before.record.get("base_model", str(spec.name))
        return training.save(output, name)


def _choices(
    recipe: Recipe | None, settings: Mapping[str, Any] | None, seed: int | None, adapt_max_length: bool
) -> Choices:
    check_settings(settings or {})
    if seed is None:
        seed = recipe.seed if recipe is not None else 0
    elif recipe is not None:
        recipe = replace(recipe, seed=seed)
    return Choices(recipe=recipe, settings=settings or {}, seed=seed, adapt_max_length=adapt_max_length)


def rule_for(select: str) -> Rule:
    """Return the rule of a way to select.

    Raises:
        InputError: if it is neither `safe` nor `dev`.
    """
    if select not in get_args(SelectBy):
        raise InputError(f"select is {select!r}: choose one of {', '.join(get_args(SelectBy))}")
    return "dev" if select == "dev" else "significant"


def _log_plan(plan: Plan, name: str) -> None:
    recipe, model = plan.recipe, plan.job.model
    logger.info(
        "training %s on %d pairs: %s, %d epochs of batch %d, %d tokens, learning rate %.1e, %s%s",
        name, len(plan.examples), recipe.loss, recipe.epochs, recipe.batch_size, token_limit(model),
        recipe.learning_rate, "bf16" if has_fast_bf16(model.device.type) else "fp32",
        f", {in_words(plan.seconds)}" if plan.seconds is not None else "",
    )  # fmt: skip


@contextmanager
def checkpoints_of(plan: Plan, output: Path) -> Iterator[Checkpoints | None]:
    """Open the checkpoints of a training, and remove them when the model is saved; None if nothing is trained.

    They stay locked until then, so that no other process resumes from them.
    """
    if not plan.recipe.alphas:
        yield None
        return
    checkpoints = Checkpoints.open(
        output, plan.fingerprint, {"epochs": plan.recipe.epochs, "pairs": len(plan.examples)}
    )
    try:
        yield checkpoints
        checkpoints.remove()
    finally:
        checkpoints.close()


class Training:
    """A planned training: `run` fits and selects, `save` writes the selected model.

    Args:
        plan: the plan.
        before: the record of the model that training continues from.
        teacher: the teacher's name.
        started: start time, by `time.monotonic`.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        before: EarlierTraining | None = None,
        teacher: str | None = None,
        started: float | None = None,
    ) -> None:
        self.plan, self.before, self.teacher = plan, before or EarlierTraining(), teacher
        self.started = time.monotonic() if started is None else started
        self.policy = Policy(rule=plan.job.rule, max_forgetting=plan.recipe.max_forgetting)
        self.recipe = plan.recipe
        self.fitted: FittedModel | None = None
        dev = plan.job.dev
        self.selection = Selection(scores=plan.base.scores(dev) if plan.base is not None and dev is not None else {})
        triplets = dev_triplets(plan.job.dataset, plan.recipe.seed)
        self._triplets: list[Triplet] = triplets if len(triplets) >= MIN_UNITS else []
        self._base_accuracy = triplet_accuracy(plan.job.model, self._triplets) if self._triplets else 0.0

    def run(self, checkpoints: Checkpoints, tracking: Tracking | None = None) -> None:
        """Fit, select, and leave the selected weights in the model."""
        job = self.plan.job
        if job.teacher is not None:
            job.teacher.to("cpu")  # the labels exist, and the student needs the memory
        self.fitted = fit_model(self.plan, checkpoints, tracking)
        self.selection = self._select(self.fitted)
        if self.selection.alpha and self.recipe.dimensions:
            realign_rotation(job.model, list(job.dataset.passage_texts.values()), job.dev, self.recipe.dimensions)

    def _select(self, fitted: FittedModel) -> Selection:
        job, base = self.plan.job, self.plan.base
        if job.dev is None or base is None:
            job.model.load_state_dict(fitted.rounds[-1].weights)
            return Selection(name="alpha 1", alpha=1.0)
        several, alphas = self.recipe.rounds > 1, self.recipe.alphas
        if self.policy.rule == "not-worse":
            alphas = tuple(sorted(alphas, reverse=True))  # of equal scores the largest alpha is selected
        tuned = [
            Tuned(
                weights=each.weights, values=each.values, alphas=alphas,
                prefix=f"round {number} " if several else "",
            )
            for number, each in enumerate(fitted.rounds, 1)
            if each.values is not None
        ]  # fmt: skip
        selection = WeightSelection(job.model, fitted.base, job.dev, job.uncovered).select(
            base.values, tuned, self.policy
        )
        epochs = {
            each.prefix + name: score
            for each, fitted_round in zip(tuned, fitted.rounds, strict=True)
            for name, score in fitted_round.result.scores.items()
        }
        scores = {"base": selection.scores["base"]} | epochs | selection.scores
        return replace(selection, scores=scores)

    def save(self, output: Path, base_model: str) -> TrainedModel:
        """Save the model with its record.

        Args:
            output: the model folder.
            base_model: the base model's name.
        """
        for finding in self.findings:
            logger.warning("%s", finding)
        if not self.selection.alpha and self.recipe.dimensions:
            logger.warning("the base model stays, and it was not trained for cut vectors: use its full dimension")
            self.recipe = replace(self.recipe, dimensions=())
            if self.fitted is not None and self.fitted.rotation is not None:
                remove_rotation(self.plan.job.model, self.fitted.rotation)
        record = {"recipe": self.recipe.to_dict(), "training": self._record(), "generations": self.before.generations}
        contract = save_model(self.plan.job.model, output, base_model, record)
        return TrainedModel(output, self.selection.alpha, self.selection.scores, contract)

    @property
    def findings(self) -> list[str]:
        """Problems found before and during the training."""
        return [*self.plan.findings, *(self.fitted.findings if self.fitted is not None else [])]

    def _record(self) -> dict[str, Any]:
        plan, job = self.plan, self.plan.job
        base, rounds = plan.base, self.fitted.rounds if self.fitted is not None else []
        content = {
            "pairs": len(plan.examples),
            **selection_record(self.selection, job.dev, plan.recipe.alphas),
            "select": "safe" if job.rule == "significant" else job.rule,
            "dev_apart": parts_record(job.dev, base.values if base is not None else None, self.selection.values),
            "level": None if base is None or base.ndcg is None else round(base.ndcg, 4),
            "findings": self.findings,
            "texts_per_second": round(rounds[-1].result.texts_per_second, 1) if rounds else None,
            "interrupted": self.fitted is not None and self.fitted.interrupted,
            "seconds": round(time.monotonic() - self.started, 1),
            **dataset_record(job.dataset, self.before.questions),
        }
        if self._triplets:
            content["dev_triplet_accuracy"] = self._triplet_accuracy()
        if job.teacher is not None and job.dev is not None:
            teacher = job.teacher.to(job.model.device)
            content["teacher"] = compare_with_teacher(str(self.teacher), job.model, teacher, job.dev)
        return content

    def _triplet_accuracy(self) -> dict[str, float]:
        shipped = triplet_accuracy(self.plan.job.model, self._triplets)
        logger.info("dev triplet accuracy: %.3f -> %.3f", self._base_accuracy, shipped)
        return {"base": round(self._base_accuracy, 4), "shipped": round(shipped, 4)}
