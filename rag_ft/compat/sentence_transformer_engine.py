"""`SentenceTransformersFinetuneEngine`: fine-tunes a SentenceTransformers model with rag_ft's trainer."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, finetune_dataset, question_and_passage
from rag_ft.compat.engine import BaseEmbeddingFinetuneEngine, check_output, check_pairs
from rag_ft.compat.held_out import with_dev
from rag_ft.compat.pickled_models import safe_model_folder
from rag_ft.compat.warn import warn, warn_of_unused
from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.errors import InputError
from rag_ft.training.loop.tracking import Tracking
from rag_ft.training.loop.trainer import check_training_device
from rag_ft.training.max_length import fitting_max_length
from rag_ft.training.plan import plan_training
from rag_ft.training.prepare import Choices, prepare
from rag_ft.training.recipe import STORED_NAMES, Recipe, recipe_for
from rag_ft.training.train import Training, checkpoints_of

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from rag_ft.training.recipe import Loss

LOSSES: dict[str, Loss] = {
    "MultipleNegativesRankingLoss": "mnr",
    "CachedMultipleNegativesRankingLoss": "mnr",
    "MultipleNegativesSymmetricRankingLoss": "mnr",
    "CachedMultipleNegativesSymmetricRankingLoss": "mnr",
    "GISTEmbedLoss": "gist",
    "CachedGISTEmbedLoss": "gist",
}
"""Loss of sentence-transformers for pairs of a question and a passage -> its name in a recipe."""

RESUMES = "repeat the call to resume a killed training"

MODEL_FILES = ("modules.json", "rag_ft.json", "config_sentence_transformers.json")
"""Files that identify a model folder, which may be replaced."""


class SentenceTransformersFinetuneEngine(BaseEmbeddingFinetuneEngine):
    """Fine-tune a SentenceTransformers model on questions and the passages that answer them.

    `finetune()` trains as `rag_ft.train_model` does: with the model's query and passage prefixes, without false
    negatives in a batch, with a learning rate that fits the model, and in bfloat16 if the hardware supports it. It
    saves the weights with the best score on `val_dataset`, or on held-out questions of `dataset` if there is none. If
    the base model scores higher than all tuned weights, it saves the base model.

    Args:
        dataset: the training questions: an `EmbeddingQAFinetuneDataset` of this module or of the old package, its JSON
            file, or a `QADataset`.
        model_id: a hub name, a model folder, or `local`.
        model_output_path: the folder for the tuned model; an existing model is replaced.
        batch_size: number of questions in a batch.
        val_dataset: the questions that select the weights, after each epoch and within long ones.
        loss: the name of a loss of rag_ft (`mnr`, `gist`), or a loss of sentence-transformers for pairs of a question
            and a passage.
        epochs: number of passes over the dataset.
        show_progress_bar: show a progress bar.
        evaluation_steps: not used; the length of an epoch determines when dev is evaluated.
        use_all_docs: train on all passages of a question instead of the first one.
        trust_remote_code: not used; code in a model is never run.
        device: a torch device; the best one available if None.
        save_checkpoints: not used; repeat the call to resume a killed training.
        resume_from_checkpoint: not used.
        checkpoint_save_steps: not used.
        checkpoint_save_total_limit: not used.
        query_prefix: text before each query; that of the model if None.
        passage_prefix: text before each passage; that of the model if None.
        max_length: maximum number of tokens per text; derived from the passage lengths if None.
        learning_rate: the peak learning rate; chosen by the width of the model if None.
        seed: seeds every random choice.

    Attributes:
        model: the SentenceTransformer; after `finetune()` it has the saved weights.
        examples: (question, passage) pairs as `InputExample`.
        loader: a DataLoader over the examples.
        evaluator: an `InformationRetrievalEvaluator` over `val_dataset`, or None.
        loss: the loss.
        dev: after `finetune()`, nDCG@10 on the held-out questions by candidate (`base`, `epoch 1`, `alpha 0.5`).

    Raises:
        InputError: if the dataset has no question, or the model or the output folder cannot be used.
        OutsideError: if the hub cannot be reached.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        model_id: str = "BAAI/bge-small-en",
        model_output_path: str = "exp_finetune",
        batch_size: int = 10,
        val_dataset: EmbeddingQAFinetuneDataset | None = None,
        loss: Any | None = None,
        epochs: int = 2,
        show_progress_bar: bool = True,
        evaluation_steps: int = 50,
        use_all_docs: bool = False,
        trust_remote_code: bool = False,
        device: str | torch.device | None = None,
        save_checkpoints: bool = False,
        resume_from_checkpoint: bool = False,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        *,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        max_length: int | None = None,
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        self.dataset, self.val_dataset = dataset, val_dataset
        self._train = finetune_dataset(dataset)
        self._val = finetune_dataset(val_dataset, "val_dataset") if val_dataset is not None else None
        self.model_id, self.model_output_path = str(model_id), str(model_output_path)
        check_output(self.model_output_path, *MODEL_FILES)
        warn_of_unused({
            "evaluation_steps": (evaluation_steps, 50, "the length of an epoch determines when dev is evaluated"),
            "trust_remote_code": (trust_remote_code, False, "code in a model is never run"),
            "save_checkpoints": (save_checkpoints, False, RESUMES),
            "resume_from_checkpoint": (resume_from_checkpoint, False, RESUMES),
            "checkpoint_save_steps": (checkpoint_save_steps, 500, RESUMES),
            "checkpoint_save_total_limit": (checkpoint_save_total_limit, 0, RESUMES),
        })  # fmt: skip
        self._loss_name, self._dimensions = _loss(loss)
        device = str(device) if device is not None else None
        check_training_device(device)
        with safe_model_folder(self.model_id) as name:
            self.model: SentenceTransformer = load_sentence_transformer(
                name, query_prefix, passage_prefix, max_length, device
            ).float()
        self._max_length, self.use_all_docs, self.seed = max_length, use_all_docs, seed
        self.batch_size, self.epochs, self.learning_rate = batch_size, epochs, learning_rate
        self.examples = self._examples()
        self.loader = self._loader()
        self.loss = loss if loss is not None and not isinstance(loss, str) else self._default_loss()
        self.warmup_steps = int(len(self.loader) * epochs * 0.1)
        self.show_progress_bar, self.evaluation_steps = show_progress_bar, evaluation_steps
        self.checkpoint_path = str(Path("checkpoints") / self.model_output_path) if save_checkpoints else None
        self.resume_from_checkpoint = resume_from_checkpoint
        self.checkpoint_save_steps = checkpoint_save_steps
        self.checkpoint_save_total_limit = checkpoint_save_total_limit
        self.dev: dict[str, float] = {}

    def _examples(self) -> list[Any]:
        from sentence_transformers import InputExample

        return [InputExample(texts=list(pair)) for pair in question_and_passage(self._train, self.use_all_docs)]

    def _loader(self) -> Any:
        from torch.utils.data import DataLoader

        return DataLoader(self.examples, batch_size=self.batch_size, collate_fn=list)  # type: ignore[arg-type]

    def _default_loss(self) -> Any:
        from rag_ft.training.loop.losses import loss_for

        return loss_for(self.model, self._recipe({}))

    @cached_property
    def evaluator(self) -> Any:
        """An `InformationRetrievalEvaluator` over `val_dataset`; None if there is no `val_dataset`."""
        if self._val is None:
            return None
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        relevant = {query: set(passages) for query, passages in self._val.relevant_docs.items()}
        return InformationRetrievalEvaluator(self._val.queries, self._val.corpus, relevant)

    def finetune(self, **train_kwargs: Any) -> None:
        """Train, select between the base model and the tuned weights, and save.

        Args:
            **train_kwargs: settings of `rag_ft.Recipe`, such as `epochs` and `learning_rate`; `warmup_steps` and
                `optimizer_params={"lr": ...}` as in `SentenceTransformer.fit`.

        Raises:
            InputError: if a setting is invalid, or another process is training into the folder.
        """
        started = time.monotonic()
        output = check_output(self.model_output_path, *MODEL_FILES)
        choices = Choices(recipe=self._recipe(train_kwargs), seed=self.seed, adapt_max_length=False, rule="not-worse")
        check_pairs(len(self.examples))
        if self._max_length is None and token_limit(self.model):
            self.model.max_seq_length = fitting_max_length(self.model, [example.texts[1] for example in self.examples])
        job = prepare(with_dev(self._train, self._val, self.use_all_docs), self.model, choices)
        plan = plan_training(job, output)
        check_pairs(len(plan.examples))
        if job.dev is None:
            warn("too few questions for a held-out set: the tuned model cannot be validated")
        with checkpoints_of(plan, output) as checkpoints:
            training = Training(plan=plan, started=started)
            if checkpoints is not None:
                training.run(checkpoints, Tracking(show_progress=self.show_progress_bar))
            trained = training.save(output, self.model_id)
        self.dev = trained.dev
        if trained.is_base:
            held_out = trained.record["training"]["dev_questions"]
            warn(
                f"no tuned weights did as well as {self.model_id} on {held_out} held-out questions "
                f"(nDCG@10 {self.dev}), so {output} holds the base model: train on more questions, or with a lower "
                "learning_rate"
            )

    def _recipe(self, train_kwargs: dict[str, Any]) -> Recipe:
        """Return the recipe with the settings of the constructor, overridden by those of `finetune`."""
        train_kwargs = dict(train_kwargs)
        optimizer = dict(train_kwargs.pop("optimizer_params", None) or {})
        warmup_steps = train_kwargs.pop("warmup_steps", getattr(self, "warmup_steps", None))
        settings: dict[str, Any] = {
            "epochs": self.epochs,
            "batch_size": max(2, self.batch_size),
            "loss": self._loss_name,
            "dimensions": self._dimensions,
        }
        if self.learning_rate is not None:
            settings["learning_rate"] = self.learning_rate
        if "lr" in optimizer:
            settings["learning_rate"] = optimizer.pop("lr")
        recipe = recipe_for(self.model, len(self.examples), False, self.seed)
        known = {*vars(recipe), *STORED_NAMES.values()}
        settings |= {name: value for name, value in train_kwargs.items() if name in known}
        unknown = sorted((train_kwargs.keys() - known) | {f"optimizer_params[{name!r}]" for name in optimizer})
        if unknown:
            warn(f"{', '.join(unknown)} of finetune() is not used: rag_ft.Recipe lists the settings of rag_ft")
        recipe = recipe.with_settings(settings)
        if not warmup_steps:
            return recipe
        steps = max(1, recipe.epochs * math.ceil(len(self.examples) / recipe.batch_size))
        return replace(recipe, warmup=min(0.99, warmup_steps / steps if warmup_steps >= 1 else warmup_steps))

    def get_finetuned_model(self, **model_kwargs: Any) -> FineTunedEmbedding:
        """Return the tuned model as a LlamaIndex embedding that applies its prefixes.

        Args:
            **model_kwargs: fields of `FineTunedEmbedding`, and `query_instruction` and `text_instruction` of
                `HuggingFaceEmbedding`.

        Raises:
            InputError: if `finetune()` has not been called yet.
        """
        if not (Path(self.model_output_path) / "modules.json").is_file():
            raise InputError(f"{self.model_output_path} does not contain a model yet: call finetune() first")
        for old, new in (("query_instruction", "query_prefix"), ("text_instruction", "passage_prefix")):
            if old in model_kwargs:
                instruction = model_kwargs.pop(old)
                model_kwargs[new] = f"{instruction} " if instruction else instruction
        embedding = FineTunedEmbedding(model_name=str(self.model_output_path), **model_kwargs)
        embedding.sentence_transformer  # noqa: B018  # load the model now
        return embedding


def _loss(loss: Any) -> tuple[Loss | None, tuple[int, ...]]:
    """Return (name of a loss in a recipe, dimensions of the Matryoshka loss around it)."""
    if loss is None or isinstance(loss, str):
        return loss or None, ()  # type: ignore[return-value]
    name = type(loss).__name__
    if name == "MatryoshkaLoss":
        return _loss(loss.loss)[0], tuple(loss.matryoshka_dims)
    if name not in LOSSES:
        warn(
            f"loss {name} needs more than pairs of a question and a passage and is replaced by 'mnr': pass scored "
            "pairs or negatives to rag_ft.train_model(..., settings={'loss': ...})"
        )
    return LOSSES.get(name), ()
