"""The SentenceTransformers Trainer over pairs: fast, quiet, and going on after a kill, a Ctrl-C or a full memory."""

from __future__ import annotations

import logging
import os
import random
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.embedding.device_memory import free_memory, is_out_of_memory
from rag_ft.embedding.encoding import USUAL_CHARACTERS_PER_TOKEN, encode, token_limit, within_reach
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.errors import InputError
from rag_ft.training.examples.pairs import TrainingExample
from rag_ft.training.loop.checkpoints import last_complete, spared
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.losses import by_row, in_batch, loss_for, passages_are_shared
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.dev_set import copy_weights

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

LEAST_INNER_BATCH = 4
LOSSES_SEEN = 50


def run_trainer(
    model: SentenceTransformer,
    pairs: Sequence[TrainingExample],
    recipe: Recipe,
    measure: Callable[[], float] | None = None,
    *,
    folder: Path | None = None,
    show_progress: bool = False,
    report_to: Sequence[str] = (),
    logs: Path | None = None,
    max_steps: int = -1,
) -> FitResult:
    """Train a model in place. What dev liked best is in what comes back; the weights that it has then are no result.

    Args:
        model: with its prompts set.
        pairs: as many negatives in each, and a label in each or in none.
        recipe: its loss fits the pairs.
        measure: the dev figure of the model as it is; asked after each epoch, and within long ones.
        folder: for checkpoints, which a later call with the same arguments goes on from; none are kept where None.
        show_progress: a progress bar with time left and the dev figure.
        report_to: trackers that the Trainer knows: `tensorboard`, `trackio`, `mlflow`, `wandb`, ...
        logs: a folder for TensorBoard's files.
        max_steps: ends after so many.

    Raises:
        torch.OutOfMemoryError: where not even a few texts at a time with gradient checkpointing fit.
    """
    vectors = None
    if in_batch(recipe) and recipe.similar_per_batch > 1 and len(pairs) > recipe.batch_size:
        passages = list(dict.fromkeys(pair.positive for pair in pairs))
        place = {passage: number for number, passage in enumerate(passages)}
        vectors = encode(model, passages, "document")[[place[pair.positive] for pair in pairs]]
    before = copy_weights(model)
    gradient_checkpointing, parts = False, 1
    with ExitStack() as stack:
        stack.enter_context(own_randomness(model.device))
        # A Trainer and its callbacks hold each other, and with them the optimiser's state, until somebody looks.
        stack.callback(free_memory)
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rag_ft-")))
        while True:
            try:
                return _run(
                    model, pairs, recipe, measure, folder, vectors, show_progress, report_to, logs, max_steps,
                    gradient_checkpointing, parts,
                )  # fmt: skip
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                batch_size = min(recipe.batch_size, len(pairs))
                at_once = min(recipe.inner_batch, batch_size) if in_batch(recipe) else batch_size // parts
                if at_once // 2 >= LEAST_INNER_BATCH and (in_batch(recipe) or by_row(recipe)):
                    if in_batch(recipe):
                        recipe = replace(recipe, inner_batch=at_once // 2)
                    else:
                        parts *= 2
                    logger.warning("out of memory: going on with %d pairs in memory at once", at_once // 2)
                elif not gradient_checkpointing:
                    gradient_checkpointing = True
                    logger.warning("out of memory: going on with gradient checkpointing, which is slower")
                else:
                    raise
            free_memory()
            model.load_state_dict(before)  # a checkpoint brings its own weights; GIST's guide is the base


def check_training_device(device: str | None) -> None:
    """Refuse a device that the Trainer would not take, before any work is done.

    Raises:
        InputError: where it is a GPU other than the first.
    """
    if device is not None and device.partition(":")[2] not in ("", "0"):
        raise InputError(
            f"device is {device!r}: training runs on the first GPU it sees, so choose one with CUDA_VISIBLE_DEVICES"
        )


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker before any work is done.

    Raises:
        InputError: where the Trainer does not know one, or its package is missing.
    """
    if not names:
        return
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(f"there is no tracker {name!r}: give one of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}")
        if name not in get_available_reporting_integrations():
            raise InputError(f"--report-to {name} needs its package: pip install {name}")


def _run(
    model: SentenceTransformer,
    pairs: Sequence[TrainingExample],
    recipe: Recipe,
    measure: Callable[[], float] | None,
    folder: Path,
    vectors: Any,
    show_progress: bool,
    report_to: Sequence[str],
    logs: Path | None,
    max_steps: int,
    gradient_checkpointing: bool,
    parts: int,
) -> FitResult:
    from rag_ft.training.loop.quiet_trainer import quiet_trainer
    from rag_ft.training.loop.training_monitor import TrainingMonitor

    watcher = TrainingMonitor(model, measure, recipe, show_progress, keeps=max_steps < 0)
    checkpoint = last_complete(folder)
    if checkpoint is not None:
        watcher.go_on(checkpoint)
        logger.info("going on from step %s", checkpoint.name.rsplit("-", 1)[1])
        if watcher.waited >= recipe.patience:
            return watcher.fit  # it had ended, and was killed afterwards
    data = _columns(pairs, model)
    prompts = {name: model.prompts["query" if name == "anchor" else "document"] for name in data.column_names}
    prompts.pop("label", None)
    batch_size = min(recipe.batch_size, len(pairs)) // parts
    if gradient_checkpointing and (inner := getattr(model[0], "auto_model", None)) is not None:
        # Its name from transformers 5.20 on, and the one before.
        getattr(inner, "activation_checkpointing_enable", inner.gradient_checkpointing_enable)()
    with quiet_trainer(), without_dropout(model, recipe.dropout), _interruptible(watcher), _tensorboard_in(logs):
        arguments = _arguments(
            recipe, str(folder), batch_size, model.device.type,
            max_steps=max_steps,
            gradient_accumulation_steps=parts,
            batch_sampler=_batches(pairs, recipe, vectors, token_limit(model) or 512),
            prompts=prompts,
            logging_steps=max(1, recipe.epochs * len(pairs) // (parts * batch_size) // LOSSES_SEEN),
            report_to=list(report_to) or "none",
        )  # fmt: skip
        # The card is ours: the Trainer need not draw examples for its own, nor ask the hub about the base model.
        model.model_card_data.widget = [{"text": ""}]
        model.model_card_data.local_files_only = True
        trainer = _trainer_class()(
            model=model, args=arguments, train_dataset=data, loss=loss_for(model, recipe), callbacks=[watcher]
        )
        watcher.log = trainer.log
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model.eval()
    fit = watcher.fit
    fit.texts_per_second = trainer.texts / max(watcher.working, 1e-9)
    fit.inner_batch = min(recipe.inner_batch, batch_size)
    return fit


def _trainer_class() -> Any:
    """The Trainer that counts what it reads, with checkpoints of plain weights: none of a module's own code runs."""
    from sentence_transformers import SentenceTransformerTrainer

    class Trainer(SentenceTransformerTrainer):
        texts = 0

        def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            # A model of word vectors alone has the ids of all texts in one row, and where each of them begins.
            parts = [name.removesuffix("_input_ids") for name in inputs if name.endswith("_input_ids")]
            self.texts += sum(len(inputs.get(f"{part}_offsets", inputs[f"{part}_input_ids"])) for part in parts)
            return super().training_step(model, inputs, *args, **kwargs)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            from safetensors.torch import save_file

            target = Path(output_dir or self.args.output_dir)
            target.mkdir(parents=True, exist_ok=True)
            # Copies: weights that are tied share their memory, which the format refuses.
            weights = {name: tensor.to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, target / "weights.safetensors")

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            with spared(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"):
                super()._save_checkpoint(*args, **kwargs)

        def _load_from_checkpoint(self, checkpoint_path: str, *args: Any, **kwargs: Any) -> None:
            from safetensors.torch import load_file

            self.model.load_state_dict(load_file(Path(checkpoint_path) / "weights.safetensors"))

    return Trainer


def _batches(pairs: Sequence[TrainingExample], recipe: Recipe, vectors: Any, max_length: int) -> Any:
    """The sampler: similar passages and like lengths together, and answers of one row away from the others'."""
    from rag_ft.training.examples.batch_sampler import batch_sampler_factory

    most = USUAL_CHARACTERS_PER_TOKEN * max_length
    # Where other rows are no negatives, nothing need be kept apart.
    keys = [pair.positive_ids if in_batch(recipe) else frozenset() for pair in pairs]
    shown = [pair.in_batch_ids or pair.positive_ids if in_batch(recipe) else frozenset() for pair in pairs]
    passages = [pair.positive for pair in pairs] if passages_are_shared(recipe, pairs) else []
    lengths = [min(most, max(map(len, (pair.positive, *pair.negatives)))) for pair in pairs]
    return batch_sampler_factory(keys, vectors, recipe.similar_per_batch, shown, lengths, passages)


def _arguments(recipe: Recipe, folder: str, batch_size: int, device: str, **more: Any) -> Any:
    """What the Trainer is told: it neither saves nor measures of itself."""
    from sentence_transformers import SentenceTransformerTrainingArguments

    arguments = SentenceTransformerTrainingArguments(
        output_dir=folder,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        seed=recipe.seed,
        data_seed=recipe.seed,
        bf16=has_fast_bf16(device),
        optim="adamw_torch_fused",
        use_cpu=device == "cpu",
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=2,
        logging_strategy="steps",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        **more,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several would multiply the batch behind the recipe's back
    return arguments


def _columns(pairs: Sequence[TrainingExample], model: SentenceTransformer) -> Dataset:
    from datasets import Dataset

    columns: dict[str, list[Any]] = {
        "anchor": within_reach(model, [pair.anchor for pair in pairs]),
        "positive": within_reach(model, [pair.positive for pair in pairs]),
    }
    for place in range(len(pairs[0].negatives)):
        columns[f"negative_{place + 1}"] = within_reach(model, [pair.negatives[place] for pair in pairs])
    if pairs[0].label is not None:
        columns["label"] = [pair.label for pair in pairs]
    return Dataset.from_dict(columns)


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Give everybody's generators back as they were: the Trainer seeds all of them."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _tensorboard_in(folder: Path | None) -> Iterator[None]:
    """The checkpoints' folder, where the Trainer would put TensorBoard's files, is thrown away in the end."""
    name = "TENSORBOARD_LOGGING_DIR"
    if folder is None or name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def _interruptible(watcher: Any) -> Iterator[None]:
    """The first Ctrl-C ends the training after its step and keeps the best weights; the second one ends the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        watcher.stop = True
        logger.warning("stopping after this step; the best weights so far are kept (Ctrl-C again ends at once)")
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def without_dropout(model: SentenceTransformer, keep: bool) -> Iterator[None]:
    """Switch every dropout layer off while the block runs, unless they are to be kept."""
    import torch

    layers = [] if keep else [layer for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    before = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, probability in zip(layers, before, strict=True):
            layer.p = probability
