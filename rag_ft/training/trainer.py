"""The SentenceTransformers Trainer over pairs, fast and quiet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_ft.embedding.encoding import encode
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.training.pairs import Pair
from rag_ft.training.recipe import Recipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def run_trainer(
    model: SentenceTransformer,
    pairs: Sequence[Pair],
    recipe: Recipe,
    after_epoch: Callable[[int], None],
    show_progress: bool = False,
    max_steps: int = -1,
) -> None:
    """Run the SentenceTransformers Trainer over pairs; `after_epoch(n)` is called after each one."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from transformers import TrainerCallback

    from rag_ft.training.batching import apart
    from rag_ft.training.losses import loss_for
    from rag_ft.training.progress import ProgressBar, quiet_trainer

    class AfterEpoch(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            after_epoch(round(state.epoch))
            model.train()

    vectors = None
    if recipe.together > 1 and len(pairs) > recipe.batch_size:
        passages = list(dict.fromkeys(pair.passage for pair in pairs))
        place = {passage: number for number, passage in enumerate(passages)}
        vectors = encode(model, passages, "document")[[place[pair.passage] for pair in pairs]]
    data = Dataset.from_dict({"anchor": [pair.query for pair in pairs], "positive": [pair.passage for pair in pairs]})
    device = model.device.type
    with (
        tempfile.TemporaryDirectory(prefix="rag_ft-") as scratch,
        quiet_trainer(),
        without_dropout(model, recipe.dropout),
    ):
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            num_train_epochs=recipe.epochs,
            max_steps=max_steps,
            per_device_train_batch_size=min(recipe.batch_size, len(pairs)),
            learning_rate=recipe.learning_rate,
            warmup_steps=recipe.warmup,
            seed=recipe.seed,
            data_seed=recipe.seed,
            bf16=has_fast_bf16(device),
            use_cpu=device == "cpu",
            batch_sampler=apart([pair.keys for pair in pairs], vectors, recipe.together),
            prompts={"anchor": model.prompts["query"], "positive": model.prompts["document"]},
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device == "cuda",
        )
        # The card is ours: the Trainer need not draw examples for its own, nor ask the hub about the base model.
        model.model_card_data.widget = [{"text": ""}]
        model.model_card_data.local_files_only = True
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=loss_for(model, recipe),
            callbacks=[AfterEpoch(), *([ProgressBar("training")] if show_progress else [])],
        )
        trainer.train()
    model.eval()


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
