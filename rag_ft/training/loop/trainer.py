"""Training with the SentenceTransformers Trainer that survives a kill, Ctrl-C and running out of memory."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.device_memory import free_memory, is_out_of_memory
from rag_ft.embedding.encoding import USUAL_CHARACTERS_PER_TOKEN, cut_to_readable, encode, token_limit
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.errors import InputError
from rag_ft.quiet import quiet_libraries
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.losses import has_in_batch_negatives, loss_for, shares_passages
from rag_ft.training.loop.memory_use import MemoryUse, enable_gradient_checkpointing
from rag_ft.training.loop.tracking import Tracking, tensorboard_folder
from rag_ft.training.loop.trainer_contexts import preserved_random_state, stop_on_interrupt, without_dropout
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.weights import copy_weights

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

LOSS_RECORDS = 50
"""Approximate number of losses that are recorded over a training."""


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
        model: a model with its prompts set.
        examples: the training examples. All have the same number of negatives, and all or none have a label.
        recipe: the recipe; its loss must fit the examples.
        measure_dev: a function that returns the model's current dev score; called after each epoch and within long
            ones.
        checkpoint_folder: a folder for checkpoints, from which a later call with the same arguments resumes; None keeps
            none.
        tracking: how progress is shown; None shows none.
        max_steps: number of steps after which the training ends, without dev scores; -1 sets no limit.

    Raises:
        torch.OutOfMemoryError: if even a few texts at a time with gradient checkpointing do not fit.
    """
    before = copy_weights(model)
    memory = MemoryUse(recipe)
    with ExitStack() as stack:
        stack.enter_context(preserved_random_state(model.device))
        # A Trainer and its callbacks refer to each other, so the optimizer's state stays until garbage collection.
        stack.callback(free_memory)
        if checkpoint_folder is None:
            checkpoint_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rag_ft-")))
        while True:
            try:
                return _fit(
                    model, examples, memory, measure_dev,
                    folder=checkpoint_folder, tracking=tracking or Tracking(), max_steps=max_steps,
                )  # fmt: skip
            except RuntimeError as error:
                smaller = memory.reduced(len(examples)) if is_out_of_memory(error) else None
                if smaller is None:
                    raise
                memory = smaller
            free_memory()
            model.load_state_dict(before)  # GIST's guide is the base; a checkpoint restores its own weights


def check_training_device(device: str | None) -> None:
    """Raise an `InputError` if a device is a GPU other than the first, which the Trainer would not use."""
    if device is not None and device.partition(":")[2] not in ("", "0"):
        raise InputError(
            f"device is {device!r}, but training runs on the first visible GPU: choose it with CUDA_VISIBLE_DEVICES"
        )


def _fit(
    model: SentenceTransformer,
    examples: Sequence[TrainingExample],
    memory: MemoryUse,
    measure_dev: Callable[[], float] | None,
    *,
    folder: Path,
    tracking: Tracking,
    max_steps: int,
) -> FitResult:
    from rag_ft.training.loop.plain_trainer import PlainTrainer
    from rag_ft.training.loop.training_monitor import TrainingMonitor

    recipe = memory.recipe
    monitor = TrainingMonitor(model, measure_dev, recipe, show_progress=tracking.show_progress, keep_best=max_steps < 0)
    checkpoint = monitor.resume(folder)
    if monitor.is_out_of_patience:
        return monitor.result  # this training was complete, and the process was killed afterwards
    batch_size = min(recipe.batch_size, len(examples)) // memory.parts
    data, sampler = _columns(examples, model), _batch_sampler(model, examples, recipe)
    texts = [name for name in data.column_names if name != "label"]
    if memory.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    # rag_ft writes its own model card, so keep the Trainer from sampling examples and querying the hub for one.
    model.model_card_data.widget = [{"text": ""}]
    model.model_card_data.local_files_only = True
    with (
        quiet_libraries(),
        without_dropout(model, recipe.dropout),
        stop_on_interrupt(monitor.request_stop),
        tensorboard_folder(tracking.logs),
    ):
        arguments = _arguments(
            recipe, str(folder), batch_size, model.device.type,
            max_steps=max_steps,
            gradient_accumulation_steps=memory.parts,
            batch_sampler=sampler,
            prompts={name: model.prompts["query" if name == "anchor" else "document"] for name in texts},
            logging_steps=max(1, recipe.epochs * len(examples) // (memory.parts * batch_size) // LOSS_RECORDS),
            report_to=list(tracking.report_to) or "none",
        )  # fmt: skip
        trainer = PlainTrainer(
            model=model, args=arguments, train_dataset=data, loss=loss_for(model, recipe), callbacks=[monitor]
        )
        monitor.log = trainer.log
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model.eval()
    result = monitor.result
    result.texts_per_second = trainer.texts / max(monitor.seconds, 1e-9)
    result.inner_batch = min(recipe.inner_batch, batch_size)
    return result


def _arguments(recipe: Recipe, folder: str, batch_size: int, device: str, **others: Any) -> Any:
    """Return the arguments of a Trainer that neither saves nor evaluates by itself."""
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
        **others,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs would multiply the batch size of the recipe
    return arguments


def _batch_sampler(
    model: SentenceTransformer, examples: Sequence[TrainingExample], recipe: Recipe
) -> Callable[..., Any]:
    """Return the sampler of a recipe: batches of similar passages and lengths, without false negatives."""
    from rag_ft.training.examples.batch_sampler import NoFalseNegativesBatchSampler, SamplerRows

    in_batch, vectors = has_in_batch_negatives(recipe), None
    if in_batch and recipe.similar_per_batch > 1 and len(examples) > recipe.batch_size:
        passages = list(dict.fromkeys(each.positive for each in examples))
        index_of = {passage: index for index, passage in enumerate(passages)}
        vectors = encode(model, passages, "document")[[index_of[each.positive] for each in examples]]
    max_characters = USUAL_CHARACTERS_PER_TOKEN * (token_limit(model) or 512)
    rows = SamplerRows(
        # Without in-batch negatives there are no false negatives.
        positive_ids=[each.positive_ids if in_batch else frozenset() for each in examples],
        in_batch_ids=[each.in_batch_ids or each.positive_ids if in_batch else frozenset() for each in examples],
        passages=[each.positive for each in examples] if shares_passages(recipe, examples) else [],
        vectors=vectors,
        similar_per_batch=recipe.similar_per_batch,
        lengths=[min(max_characters, max(map(len, (each.positive, *each.negatives)))) for each in examples],
    )
    return partial(NoFalseNegativesBatchSampler, rows=rows)


def _columns(examples: Sequence[TrainingExample], model: SentenceTransformer) -> Dataset:
    """Return the examples as a dataset for the Trainer, with texts cut to what the model reads."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {
        "anchor": cut_to_readable(model, [each.anchor for each in examples]),
        "positive": cut_to_readable(model, [each.positive for each in examples]),
    }
    for number in range(len(examples[0].negatives)):
        columns[f"negative_{number + 1}"] = cut_to_readable(model, [each.negatives[number] for each in examples])
    if examples[0].label is not None:
        columns["label"] = [each.label for each in examples]
    return Dataset.from_dict(columns)
