"""`rag-ft mine`, `train` and `export`."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import named_fields, recipe_settings, request_policy
from rag_ft.cli.options import (
    Dataset,
    Device,
    EmbedUrl,
    Fields,
    MaxCost,
    MaxLength,
    MaxMinutes,
    MaxPairs,
    PassagePrefix,
    QueryPrefix,
    Quiet,
    RequestsPerMinute,
    Seed,
    Set,
)
from rag_ft.cli.train_adapter import refuse_other_options, train_an_adapter
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.errors import InputError


class Loss(StrEnum):
    """What teaches a model (`rag_ft.training.loop.losses`)."""

    MNR = "mnr"
    GIST = "gist"
    TRIPLET = "triplet"
    COSENT = "cosent"
    COSINE = "cosine"
    ONLINE_CONTRASTIVE = "online-contrastive"
    CONTRASTIVE = "contrastive"
    MSE = "mse"
    MARGIN_MSE = "margin-mse"
    KL = "kl"


class Miner(StrEnum):
    """Who finds hard negatives."""

    DENSE = "dense"
    BM25 = "bm25"
    BOTH = "both"
    MIX = "mix"


class Focus(StrEnum):
    """Which of the questions are trained on."""

    BM25_MISSES = "bm25-misses"


class Adapter(StrEnum):
    """The map that an adapter is (`rag_ft.embedding.adapter_maps`)."""

    AUTO = "auto"
    LINEAR = "linear"
    LOW_RANK = "low-rank"
    RESIDUAL = "residual"


class Backend(StrEnum):
    """What computes vectors in place of torch."""

    ONNX = "onnx"
    OPENVINO = "openvino"


@app.command()
def mine(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="The dataset with its negatives; may be the same folder.")],
    by: Annotated[Miner, typer.Option(help="Who finds them.")] = Miner.BOTH,
    model: Annotated[str, typer.Option(metavar="M", help="Finds the dense ones: a folder, a hub name, or 'local'.")] = (
        DEFAULT_BASE_MODEL
    ),
    count: Annotated[int, typer.Option(metavar="N", min=1, help="For each question, at most.")] = 3,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the right passage's score that a negative may have.")
    ] = 0.95,
    cross_encoder: Annotated[
        str | None, typer.Option(metavar="M", help="A reranker that drops what it holds for an answer.")
    ] = None,
    field: Fields = None,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Find passages that look like answers and are none, among those that training sees.

    A dataset without a dev split gets one: what is looked for there must not be a negative.
    """
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.beir import check_output, write_beir
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.splitting import hold_out_dev
    from rag_ft.embedding.loading import load_sentence_transformer
    from rag_ft.training.examples.hard_negatives import load_cross_encoder, mine_negatives

    check_output(output)
    mined = mine_negatives(
        hold_out_dev(load_dataset(dataset, fields=named_fields(field)), seed=seed),
        load_sentence_transformer(model, device=device) if by is not Miner.BM25 else None,
        by=by.value,
        count=count,
        margin=margin,
        cross_encoder=load_cross_encoder(cross_encoder, device) if cross_encoder is not None else None,
        show_progress=show_progress,
    )
    write_beir(mined, output)
    found = Counter(source for sources in mined.negative_sources.values() for source in sources.values())
    named = ", ".join(f"{count} by {source}" for source, count in sorted(found.items())) or "none"
    out.print(f"negatives: {named}, of {len(mined.require('train'))} questions\n{escape(str(output))}", highlight=False)


@app.command()
def train(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="The model folder.")],
    base_model: Annotated[
        str,
        typer.Option(help="A hub name, a model folder, 'local', or openai:NAME, which gets an adapter."),
    ] = DEFAULT_BASE_MODEL,
    field: Fields = None,
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
    max_length: MaxLength = None,
    max_pairs: MaxPairs = None,
    max_minutes: MaxMinutes = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="M", help="A larger model to learn from (distillation).")
    ] = None,
    continue_from: Annotated[
        Path | None, typer.Option(metavar="M", help="A tuned model to go on from, in place of the base model.")
    ] = None,
    earlier: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="What that model was tuned on, so that it is not forgotten.")
    ] = None,
    replay: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the earlier questions among those trained on.")
    ] = 0.3,
    loss: Annotated[Loss | None, typer.Option(help="What teaches; the one that fits the data by default.")] = None,
    mine: Annotated[
        Miner | None, typer.Option(help="Who mines hard negatives; the dataset's own are taken by default.")
    ] = None,
    negatives: Annotated[int | None, typer.Option(metavar="N", min=0, help="Hard negatives of a question.")] = None,
    focus: Annotated[
        Focus | None, typer.Option(help="Train on what BM25 does not find, for a retriever that mixes both.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of mining and training.")] = None,
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", min=1, help="Train low-rank updates, and merge them in the end.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Passes over the pairs.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Pairs in a batch; a large one is cached.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", min=0, help="The peak, after the warm-up.")
    ] = None,
    dimension: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, help="A length that vectors may be cut to; may be given several times."),
    ] = None,
    set_: Set = None,
    report_to: Annotated[
        list[str] | None, typer.Option(metavar="TRACKER", help="tensorboard, trackio, mlflow, wandb, ...")
    ] = None,
    adapter: Annotated[
        Adapter | None,
        typer.Option(help="Train a small map of the vectors, and leave the weights; 'auto' over openai:NAME."),
    ] = None,
    both_sides: Annotated[
        bool, typer.Option("--both-sides", help="The adapter changes passages too: rebuild the index with it.")
    ] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the model in the end; private where it is new.")
    ] = None,
    embed_url: EmbedUrl = None,
    max_cost: MaxCost = 5.0,
    requests_per_minute: RequestsPerMinute = None,
    batch: Annotated[bool, typer.Option("--batch", help="Embed through the OpenAI Batch API: half the price.")] = False,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fine-tune on the train split and select on dev; test is never looked at.

    Killed, the same command goes on where it was. Ctrl-C ends the training and keeps the best weights so far.
    """
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.embedding.openai_api import is_openai_name
    from rag_ft.training.train import train_model

    if adapter is not None or is_openai_name(base_model):
        refuse_other_options({
            "--query-prefix": query_prefix, "--passage-prefix": passage_prefix, "--max-length": max_length,
            "--max-minutes": max_minutes, "--teacher": teacher, "--continue-from": continue_from, "--earlier": earlier,
            "--loss": loss, "--mine": mine, "--focus": focus, "--negatives": negatives, "--rounds": rounds,
            "--lora": lora,
            "--epochs": epochs, "--batch-size": batch_size, "--learning-rate": learning_rate,
            "--dimension": dimension, "--set": set_, "--report-to": report_to, "--push-to-hub": push_to_hub,
        })  # fmt: skip
        train_an_adapter(
            load_dataset(dataset, fields=named_fields(field)), base_model, output, (adapter or Adapter.AUTO).value,
            both_sides, embed_url, request_policy(max_cost, requests_per_minute, batch), max_pairs, seed, device,
            show_progress,
        )  # fmt: skip
        return
    if both_sides or batch or embed_url:
        raise InputError("--both-sides, --batch and --embed-url are for an adapter: give --adapter, or openai:MODEL")
    settings: dict[str, Any] = {
        "loss": loss.value if loss is not None else None,
        "mine": mine.value if mine is not None else None,
        "focus": focus.value if focus is not None else None,
        "negatives": negatives,
        "rounds": rounds,
        "lora": lora,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "dimensions": tuple(dimension) if dimension else None,
    }
    trained = train_model(
        load_dataset(dataset, fields=named_fields(field)),
        output,
        base_model,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_length=max_length,
        max_pairs=max_pairs,
        max_minutes=max_minutes,
        teacher=teacher,
        continue_from=continue_from,
        earlier=load_dataset(earlier) if earlier is not None else None,
        replay=replay,
        seed=seed,
        device=device,
        show_progress=show_progress,
        report_to=report_to or (),
        **{name: value for name, value in settings.items() if value is not None} | recipe_settings(set_),
    )
    figures = ", ".join(f"{name} {score:.3f}" for name, score in trained.dev.items())
    training = trained.record["training"]
    if figures:
        metric = next(name.removeprefix("dev_") for name in training if name.startswith(("dev_ndcg", "dev_spearman")))
        out.print(f"dev {metric}: {figures}", highlight=False)
    for kind, found in training["dev_apart"].items():
        out.print(
            f"  {escape(kind)} ({found['questions']:g}): {found['base']:.3f} -> {found['shipped']:.3f}", highlight=False
        )
    if teaching := training.get("teacher"):
        said = next(value for name, value in teaching.items() if name.startswith("dev_"))
        out.print(
            f"teacher {said:.3f}, student {teaching['student']:.3f}, {teaching['times_faster']:g} times as fast",
            highlight=False,
        )
    for name, reason in training["refused"].items():
        out.print(f"[yellow]{escape(name)} is not taken: {escape(reason)}[/]", highlight=False)
    if trained.is_base:
        out.print(
            f"[yellow]{training['base_stays_because']}: the model folder holds the base model[/]", highlight=False
        )
    if accuracy := training.get("dev_triplet_accuracy"):
        out.print(f"dev triplets told apart: {accuracy['base']:.3f} -> {accuracy['shipped']:.3f}", highlight=False)
    out.print(f"model   {escape(str(output))}", highlight=False)
    if push_to_hub is not None:
        from rag_ft.embedding import hub

        out.print(f"hub     {escape(hub.push_to_hub(output, push_to_hub))}", highlight=False)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model folder of your own.")],
    backend: Annotated[Backend, typer.Option(help="What computes the vectors afterwards.")] = Backend.ONNX,
    int8: Annotated[bool, typer.Option("--int8", help="Weights and activations in 8 bits.")] = False,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Its dev questions tell what it costs in quality.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a faster form of a model into its folder, and measure what it costs."""
    begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.splitting import hold_out_dev
    from rag_ft.embedding.backends import export_model
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.evaluation.fidelity import measure_fidelity

    questions = hold_out_dev(load_dataset(dataset)) if dataset is not None else None
    calibration = [] if questions is None else list(questions.passage_texts.values())
    file = export_model(model, backend.value, int8, calibration)
    out.print(f"{escape(str(file))} ({file.stat().st_size / 1e6:.0f} MB)", highlight=False)
    if questions is None:
        return
    exported = FineTunedEmbedding.load(model, backend=backend.value, int8=int8)
    found = measure_fidelity(FineTunedEmbedding.load(model, precision="fp32", device="cpu"), exported, questions, "dev")
    out.print(str(found), highlight=False)
