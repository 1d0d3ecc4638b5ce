"""`rag-ft train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import named_fields, recipe_settings, request_policy
from rag_ft.cli.train_adapter import AdapterTraining, show_decision
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from rag_ft.training.train import TrainedModel

TUNING_OPTIONS = (
    "query_prefix", "passage_prefix", "max_length", "max_minutes", "teacher", "continue_from", "earlier", "loss",
    "mine", "negatives", "rounds", "lora", "epochs", "batch_size", "learning_rate", "dimension", "set_", "report_to",
    "push_to_hub",
)  # fmt: skip
"""Parameters of `train` that do not apply to an adapter."""


def train(
    context: typer.Context,
    dataset: options.Dataset,
    output: options.OutputModel,
    base_model: options.BaseModel = DEFAULT_BASE_MODEL,
    max_minutes: options.MaxMinutes = None,
    teacher: options.Teacher = None,
    continue_from: options.ContinueFrom = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    query_prefix: options.QueryPrefix = None,
    passage_prefix: options.PassagePrefix = None,
    max_length: options.MaxLength = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    loss: options.TrainingLoss = None,
    lora: options.Lora = None,
    dimension: options.Dimensions = None,
    max_pairs: options.MaxPairs = None,
    set_: options.Settings = None,
    select: options.Select = "safe",
    seed: options.RecipeSeed = 0,
    mine: options.Mine = None,
    negatives: options.Negatives = None,
    rounds: options.Rounds = None,
    earlier: options.Earlier = None,
    replay: options.Replay = 0.3,
    report_to: options.ReportTo = None,
    push_to_hub: options.PushToHub = None,
    field: options.Fields = None,
    adapter: options.Adapter = None,
    both_sides: options.HiddenBothSides = False,
    batch: options.HiddenBatch = False,
    embed_url: options.HiddenEmbedUrl = None,
    max_cost: options.HiddenMaxCost = 5.0,
    requests_per_minute: options.HiddenRequestsPerMinute = None,
    focus: options.Focus = None,
) -> None:
    """Fine-tune a model on the train split and select weights on dev. The test split is not used.

    If it is killed, run the same command to resume. Ctrl-C stops training and keeps the best weights so far.
    """
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.embedding.openai_api import is_openai_name

    check_removed_options(adapter, focus)
    if adapter is not None or is_openai_name(base_model):
        train_adapter_instead(context.params, show_progress)
        return
    if both_sides or batch or embed_url:
        raise InputError("--both-sides, --batch and --embed-url apply to adapters only: use rag-ft train-adapter")
    from rag_ft.training.train import train_model

    chosen = {"loss": loss, "mine": mine, "negatives": negatives, "rounds": rounds, "lora": lora, "epochs": epochs,
              "batch_size": batch_size, "learning_rate": learning_rate, "dimensions": dimension}  # fmt: skip
    trained = train_model(
        load_dataset(dataset, fields=named_fields(field)), output, base_model, query_prefix=query_prefix,
        passage_prefix=passage_prefix, max_length=max_length, max_pairs=max_pairs, max_minutes=max_minutes,
        teacher=teacher, continue_from=continue_from, earlier=load_dataset(earlier) if earlier is not None else None,
        replay=replay, settings=settings_of(chosen) | recipe_settings(set_), seed=seed, device=device,
        show_progress=show_progress, report_to=report_to or (), select=select,
    )  # fmt: skip
    show_trained(trained)
    publish(output, push_to_hub)


def check_removed_options(adapter: str | None, focus: str | None) -> None:
    """Raise an `InputError` with a replacement if a removed option is used."""
    if focus is not None:
        raise InputError(
            "--focus was removed, since training on all questions did better: omit it, and use a hybrid retriever to "
            "combine the model with BM25"
        )
    if adapter in ("low-rank", "residual"):
        raise InputError(
            f"--adapter {adapter} was removed, since a linear map did best: use rag-ft train-adapter, which trains one"
        )


def train_adapter_instead(params: dict[str, Any], show_progress: bool) -> None:
    """Train an adapter with the options of `train`, as before `train-adapter` existed.

    Raises:
        InputError: if an option was given that does not apply to an adapter.
    """
    from rag_ft.dataset.formats.load import load_dataset

    for name in TUNING_OPTIONS:
        if params[name]:
            option = name.rstrip("_").replace("_", "-")
            raise InputError(f"--{option} is for tuning a model's weights, and this command trains an adapter: omit it")
    training = AdapterTraining(
        base_model=params["base_model"],
        both_sides=params["both_sides"],
        max_pairs=params["max_pairs"],
        url=params["embed_url"],
        device=params["device"],
        seed=params["seed"],
    )
    policy = request_policy(params["max_cost"], params["requests_per_minute"], params["batch"])
    dataset = load_dataset(params["dataset"], fields=named_fields(params["field"]))
    training.run(dataset, params["output"], policy, show_progress)


def settings_of(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the recipe that have their own options."""
    settings = {name: value for name, value in chosen.items() if value is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def show_trained(trained: TrainedModel) -> None:
    """Print the dev scores, and which candidate was selected and why."""
    from rag_ft.embedding.stored_names import displayed_name

    training, summary = trained.record["training"], trained.summary
    if trained.dev:
        metric = next(name.removeprefix("dev_") for name in training if name.startswith(("dev_ndcg", "dev_spearman")))
        say(f"dev {metric}: {summary.scores_text}")
    for name, group in training["dev_apart"].items():
        say(f"  {displayed_name(name)} ({group['questions']:g}): {group['base']:.3f} -> {group['shipped']:.3f}")
    if teaching := training.get("teacher"):
        score = next(value for name, value in teaching.items() if name.startswith("dev_"))
        say(f"teacher {score:.3f}, student {teaching['student']:.3f}, {teaching['times_faster']:g} times as fast")
    if accuracy := training.get("dev_triplet_accuracy"):
        say(f"dev triplet accuracy: {accuracy['base']:.3f} -> {accuracy['shipped']:.3f}")
    show_decision(summary)


def publish(folder: Path, repository: str | None) -> None:
    """Print the path of the model, and upload it if a repository is given."""
    say(f"model   {folder}")
    if repository is not None:
        from rag_ft.embedding import hub

        say(f"hub     {hub.push_to_hub(folder, repository)}")
