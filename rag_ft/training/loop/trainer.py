"""Training with the SentenceTransformers Trainer, which survives a kill, Ctrl-C and a lack of memory."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.device_memory import free_memory, is_out_of_memory
from rag_ft.embedding.encoding import USUAL_CHARACTERS_PER_TOKEN, cut_to_reach, encode, token_limit
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.errors import InputError
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.checkpoints import last_complete
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.losses import has_in_batch_negatives, loss_for, shares_passages
from rag_ft.training.loop.memory_use import MemoryUse
from rag_ft.training.loop.tracking import Tracking, tensorboard_folder
from rag_ft.training.loop.trainer_contexts import (
    preserved_random_state,
    quiet_trainer,
    stop_on_interrupt,
    without_dropout,
)
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.weights import copy_weights

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

LOSS_RECORDS = 50
"""Approximate number of losses that are recorded over a training."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The part of a training that stays the same if memory runs out and it starts again."""

    model: SentenceTransformer
    examples: Sequence[TrainingExample]
    measure_dev: Callable[[], float] | None
    folder: Path
    vectors: NDArray[np.float32] | None
    tracking: Tracking
    max_steps: int


def run_trainer(
    model: SentenceTransformer,
    examples: Sequence[TrainingExample],
    recipe: Recipe,
    measure_dev: Callable[[], float] | None = None,
    *,
    checkpoint_folder: Path | None = None,
    tracking: Tracking | None = None,
    max_steps: int = -1,
) -> FitResult:
    """Train a model in place. The result holds the weights with the best dev score, which the model may not have.

    Args:
        model: with its prompts set.
        examples: equally many negatives in each, and a label in each or in none.
        recipe: its loss fits the examples.
        measure_dev: measures the dev score of the model as it is, after each epoch and within long ones.
        checkpoint_folder: keeps checkpoints, from which a later call with the same arguments continues; None keeps
            none.
        tracking: how progress is shown; None shows none.
        max_steps: ends the training after this many steps, without dev scores; -1 has no limit.

    Raises:
        torch.OutOfMemoryError: if a few texts at a time with gradient checkpointing still do not fit.
    """
    vectors = _positive_vectors(model, examples, recipe)
    before = copy_weights(model)
    memory = MemoryUse(recipe)
    with ExitStack() as stack:
        stack.enter_context(preserved_random_state(model.device))
        # A Trainer and its callbacks refer to each other, which keeps the optimiser's state until it is collected.
        stack.callback(free_memory)
        if checkpoint_folder is None:
            checkpoint_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rag_ft-")))
        job = _Job(
            model=model, examples=examples, measure_dev=measure_dev, folder=checkpoint_folder, vectors=vectors,
            tracking=tracking or Tracking(), max_steps=max_steps,
        )  # fmt: skip
        while True:
            try:
                return _fit(job, memory)
            except RuntimeError as error:
                smaller = memory.reduced(len(examples)) if is_out_of_memory(error) else None
                if smaller is None:
                    raise
                memory = smaller
            free_memory()
            model.load_state_dict(before)  # a checkpoint brings its own weights; GIST's guide is the base


def check_training_device(device: str | None) -> None:
    """Refuse a device that the Trainer would not use, before any work is done.

    Raises:
        InputError: if it is a GPU other than the first.
    """
    if device is not None and device.partition(":")[2] not in ("", "0"):
        raise InputError(
            f"device is {device!r}: training runs on the first GPU it sees, so choose one with CUDA_VISIBLE_DEVICES"
        )


def _positive_vectors(
    model: SentenceTransformer, examples: Sequence[TrainingExample], recipe: Recipe
) -> NDArray[np.float32] | None:
    """Encode the positives, if batches need the similar ones; shape (examples, dimension)."""
    if not has_in_batch_negatives(recipe) or recipe.similar_per_batch == 1 or len(examples) <= recipe.batch_size:
        return None
    passages = list(dict.fromkeys(each.positive for each in examples))
    place = {passage: number for number, passage in enumerate(passages)}
    return encode(model, passages, "document")[[place[each.positive] for each in examples]]


def _fit(job: _Job, memory: MemoryUse) -> FitResult:
    from rag_ft.training.loop.plain_trainer import PlainTrainer
    from rag_ft.training.loop.training_monitor import TrainingMonitor

    model, recipe = job.model, memory.recipe
    monitor = TrainingMonitor(
        model, job.measure_dev, recipe, show_progress=job.tracking.show_progress, keep_best=job.max_steps < 0
    )
    checkpoint = last_complete(job.folder)
    if checkpoint is not None:
        monitor.resume(checkpoint)
        logger.info("going on from step %s", checkpoint.name.rsplit("-", 1)[1])
        if monitor.is_out_of_patience:
            return monitor.result  # it had ended, and was killed afterwards
    batch_size = min(recipe.batch_size, len(job.examples)) // memory.parts
    if memory.gradient_checkpointing and (inner := getattr(model[0], "auto_model", None)) is not None:
        # The first name is that of transformers 5.20 and later.
        getattr(inner, "activation_checkpointing_enable", inner.gradient_checkpointing_enable)()
    # The model card is our own: the Trainer need not draw examples for one, nor ask the hub about the base model.
    model.model_card_data.widget = [{"text": ""}]
    model.model_card_data.local_files_only = True
    with (
        quiet_trainer(),
        without_dropout(model, recipe.dropout),
        stop_on_interrupt(monitor.request_stop),
        tensorboard_folder(job.tracking.logs),
    ):
        trainer = PlainTrainer(
            model=model, args=_arguments(job, memory, batch_size), train_dataset=_columns(job.examples, model),
            loss=loss_for(model, recipe), callbacks=[monitor],
        )  # fmt: skip
        monitor.log = trainer.log
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model.eval()
    result = monitor.result
    result.texts_per_second = trainer.texts / max(monitor.seconds, 1e-9)
    result.inner_batch = min(recipe.inner_batch, batch_size)
    return result


def _arguments(job: _Job, memory: MemoryUse, batch_size: int) -> Any:
    """The Trainer's arguments: it neither saves nor evaluates on its own."""
    from sentence_transformers import SentenceTransformerTrainingArguments

    recipe, device, prompts = memory.recipe, job.model.device.type, job.model.prompts
    negatives = [f"negative_{number + 1}" for number in range(len(job.examples[0].negatives))]
    steps = recipe.epochs * len(job.examples) // (memory.parts * batch_size)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(job.folder),
        num_train_epochs=recipe.epochs,
        max_steps=job.max_steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=memory.parts,
        batch_sampler=_batch_sampler(job, recipe),
        prompts={"anchor": prompts["query"]} | dict.fromkeys(("positive", *negatives), prompts["document"]),
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
        logging_steps=max(1, steps // LOSS_RECORDS),
        logging_nan_inf_filter=False,
        report_to=list(job.tracking.report_to) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs would multiply the batch size of the recipe
    return arguments


def _batch_sampler(job: _Job, recipe: Recipe) -> Callable[..., Any]:
    """The sampler of a recipe: similar passages and lengths share a batch, and false negatives do not."""
    from rag_ft.training.examples.batch_sampler import NoFalseNegativesBatchSampler, SamplerRows

    examples, in_batch = job.examples, has_in_batch_negatives(recipe)
    max_characters = USUAL_CHARACTERS_PER_TOKEN * (token_limit(job.model) or 512)
    rows = SamplerRows(
        # Without in-batch negatives there are no false ones.
        positive_ids=[each.positive_ids if in_batch else frozenset() for each in examples],
        in_batch_ids=[each.in_batch_ids or each.positive_ids if in_batch else frozenset() for each in examples],
        passages=[each.positive for each in examples] if shares_passages(recipe, examples) else [],
        vectors=job.vectors,
        similar_per_batch=recipe.similar_per_batch,
        lengths=[min(max_characters, max(map(len, (each.positive, *each.negatives)))) for each in examples],
    )
    return partial(NoFalseNegativesBatchSampler, rows=rows)


def _columns(examples: Sequence[TrainingExample], model: SentenceTransformer) -> Dataset:
    """The examples as the Trainer's data, with texts cut to what the model reads."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {
        "anchor": cut_to_reach(model, [each.anchor for each in examples]),
        "positive": cut_to_reach(model, [each.positive for each in examples]),
    }
    for number in range(len(examples[0].negatives)):
        columns[f"negative_{number + 1}"] = cut_to_reach(model, [each.negatives[number] for each in examples])
    if examples[0].label is not None:
        columns["label"] = [each.label for each in examples]
    return Dataset.from_dict(columns)
