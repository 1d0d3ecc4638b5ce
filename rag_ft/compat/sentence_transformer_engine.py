"""`SentenceTransformersFinetuneEngine`: all weights of a SentenceTransformers model, by rag_ft's trainer."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, finetune_dataset, question_and_passage
from rag_ft.compat.engine import BaseEmbeddingFinetuneEngine, check_output
from rag_ft.compat.held_out import choose_weights, dev_figure, with_dev
from rag_ft.compat.pickled_models import safe_model_folder
from rag_ft.compat.warn import warn, warn_of_changed
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import sketch_of
from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.embedding.saving import save_model
from rag_ft.errors import InputError
from rag_ft.files import sha256_of
from rag_ft.training.examples.pairs import pair_examples, question_styles, questions_sketch
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.principal_axes import add_rotation, turn_again
from rag_ft.training.loop.trainer import check_training_device, run_trainer
from rag_ft.training.recipe import Recipe, fitting_max_length, recipe_for
from rag_ft.training.selection.dev_set import DevQuestions, copy_weights
from rag_ft.training.selection.diagnostics import check_losses, check_questions

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from rag_ft.training.recipe import Loss

logger = logging.getLogger(__name__)

LOSSES: dict[str, Loss] = {
    "MultipleNegativesRankingLoss": "mnr",
    "CachedMultipleNegativesRankingLoss": "mnr",
    "MultipleNegativesSymmetricRankingLoss": "mnr",
    "CachedMultipleNegativesSymmetricRankingLoss": "mnr",
    "GISTEmbedLoss": "gist",
    "CachedGISTEmbedLoss": "gist",
}
"""Losses of sentence-transformers that learn from questions with their passages -> the recipe's name of them."""

NEW_WAY = "rag_ft.train_model"


class SentenceTransformersFinetuneEngine(BaseEmbeddingFinetuneEngine):
    """Fine-tune a SentenceTransformers model on questions with their passages.

    `finetune()` trains as `rag_ft.train_model` does: with the model's query and passage prefixes, no passage of a
    batch that answers another's question as a negative, at a learning rate that fits the model, and in bfloat16 where
    the processor has it. The weights that do best on `val_dataset` (or, without one, on a part of `dataset` that is
    not trained on) are saved, and the base model's where all others do worse.

    Args:
        dataset: what is trained on: an `EmbeddingQAFinetuneDataset`, ours or the old package's, its JSON file, or a
            `QADataset`.
        model_id: a hub name, a model folder, or `local`.
        model_output_path: where the tuned model goes; another model there is replaced.
        batch_size: questions in a batch.
        val_dataset: what chooses among the weights, and whether any beats the base; asked after each epoch, and within
            long ones.
        loss: the name of a loss of rag_ft (`mnr`, `gist`), or one of sentence-transformers that learns from questions
            with their passages.
        epochs: passes over the dataset.
        show_progress_bar: a progress bar.
        evaluation_steps: not used: the epochs' length says when dev is measured.
        use_all_docs: train on all passages of a question, and not on the first one alone.
        trust_remote_code: not used: code of a model is never run.
        device: a torch device; the best there is where None.
        save_checkpoints: not used: a training that is killed goes on by itself.
        resume_from_checkpoint: not used.
        checkpoint_save_steps: not used.
        checkpoint_save_total_limit: not used.
        query_prefix: put before a query; the model's own where None.
        passage_prefix: put before a passage; the model's own where None.
        max_length: tokens that are read of a text; chosen by the passages where None.
        learning_rate: the peak; chosen by the width of the model where None.
        seed: of every draw.

    Attributes:
        model: the SentenceTransformer; after `finetune()` with the weights that were saved.
        examples: (question, passage) as `InputExample`.
        loader: a DataLoader over them.
        evaluator: an `InformationRetrievalEvaluator` over `val_dataset`, or None.
        loss: the loss.
        dev: after `finetune()`: nDCG@10 on the questions that choose, by candidate (`base`, `epoch 1`, `share 0.5`).

    Raises:
        InputError: where the dataset has no question, or the model or the output folder is wrong.
        OutsideError: where the hub cannot be reached.
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
        self.dataset = dataset
        self._train = finetune_dataset(dataset)
        self.val_dataset = val_dataset
        self._val = finetune_dataset(val_dataset, "val_dataset") if val_dataset is not None else None
        self.model_id = str(model_id)
        self.model_output_path = str(model_output_path)
        check_output(self.model_output_path, "modules.json", "rag_ft.json", "config_sentence_transformers.json")
        checkpoints = "a training that is killed goes on where it was when the same call is made again"
        warn_of_changed(
            {
                "evaluation_steps": (evaluation_steps, 50, "the epochs' length says when val_dataset is asked"),
                "trust_remote_code": (trust_remote_code, False, "code that comes with a model is never run"),
                "save_checkpoints": (save_checkpoints, False, checkpoints),
                "resume_from_checkpoint": (resume_from_checkpoint, False, checkpoints),
                "checkpoint_save_steps": (checkpoint_save_steps, 500, checkpoints),
                "checkpoint_save_total_limit": (checkpoint_save_total_limit, 0, checkpoints),
            }
        )
        check_training_device(str(device) if device is not None else None)
        self._loss_name, dimensions = _loss(loss)
        self._dimensions = dimensions
        with safe_model_folder(self.model_id) as name:
            self.model: SentenceTransformer = load_sentence_transformer(
                name, query_prefix, passage_prefix, max_length, str(device) if device is not None else None
            )
        self.model.float()
        self._max_length = max_length
        self.use_all_docs = use_all_docs
        self.batch_size = batch_size
        self.epochs = epochs
        self.show_progress_bar = show_progress_bar
        self.evaluation_steps = evaluation_steps
        self.learning_rate = learning_rate
        self.seed = seed
        self.examples = self._examples()
        self.loader = self._loader()
        self.loss = loss if loss is not None and not isinstance(loss, str) else self._default_loss()
        self.warmup_steps = int(len(self.loader) * epochs * 0.1)
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
        """An `InformationRetrievalEvaluator` over `val_dataset`; None without one."""
        if self._val is None:
            return None
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        relevant = {query: set(passages) for query, passages in self._val.relevant_docs.items()}
        return InformationRetrievalEvaluator(self._val.queries, self._val.corpus, relevant)

    def finetune(self, **train_kwargs: Any) -> None:
        """Train, choose among base and tuned weights, and save.

        Args:
            **train_kwargs: `learning_rate`, or `optimizer_params={"lr": ...}` as `SentenceTransformer.fit` has it;
                `epochs`, `batch_size`, `warmup_steps`; any other number of `rag_ft.Recipe`.

        Raises:
            InputError: where a number cannot be meant, or the folder is being trained by another process.
        """
        started = time.monotonic()
        output = check_output(
            self.model_output_path, "modules.json", "rag_ft.json", "config_sentence_transformers.json"
        )
        recipe = self._recipe(train_kwargs)
        dataset = hold_out_dev(with_dev(self._train, self._val, self.use_all_docs), seed=self.seed)
        if self._max_length is None and token_limit(self.model):
            self.model.max_seq_length = fitting_max_length(self.model, [example.texts[1] for example in self.examples])
        pairs = pair_examples(dataset, recipe)
        if len(pairs) < 2:
            raise InputError(f"the dataset has {len(pairs)} questions to train on: give 2 or more")
        dev = DevQuestions.of(dataset, self.seed) if dataset.qrels.get("dev") else None
        if recipe.dimensions:
            add_rotation(self.model, [pair.anchor for pair in pairs], list(dataset.passage_texts.values()))
        base = copy_weights(self.model)
        wanted = sha256_of(*map(repr, (self.model_id, self.model.max_seq_length, self.model.prompts, recipe, pairs)))
        checkpoints = Checkpoints.beside(output, wanted, {"epochs": recipe.epochs, "pairs": len(pairs)})
        try:
            fit = run_trainer(
                self.model,
                pairs,
                recipe,
                (lambda: dev_figure(dev, self.model)) if dev is not None else None,
                folder=checkpoints.stage("round-1"),
                show_progress=self.show_progress_bar,
            )
            chosen = choose_weights(self.model, base, fit, recipe, dev)
            self.dev = chosen.dev
            if chosen.share and recipe.dimensions:
                turn_again(self.model, list(dataset.passage_texts.values()), dev, recipe.dimensions)
            findings = check_questions(dataset) + check_losses(fit.losses)
            for finding in findings:
                logger.warning("%s", finding)
            training = {
                "pairs": len(pairs),
                "dev_questions": len(dev.sources) if dev else 0,
                "dev_makings": dict(Counter(dev.sources)) if dev else {},
                "dev_ndcg@10": {name: round(value, 4) for name, value in chosen.dev.items()},
                "share": chosen.share,
                "findings": findings,
                "interrupted": fit.interrupted,
                "seconds": round(time.monotonic() - started, 1),
                "question_styles": question_styles(dataset),
                "corpus": sketch_of(dataset.passage_texts.values()),
                "questions": questions_sketch(dataset),
            }
            save_model(self.model, output, self.model_id, {"recipe": recipe.to_dict(), "training": training})
            checkpoints.remove()
        finally:
            checkpoints.close()  # not before the model stands: nobody else may go on from them
        if chosen.share == 0.0:
            warn(
                f"no tuned weights did as well as {self.model_id} on {len(dev.sources) if dev else 0} held-out "
                f"questions (nDCG@10 {chosen.dev}), so {output} holds the base model: train on more questions, or "
                "with a smaller learning_rate"
            )

    def _recipe(self, given: dict[str, Any]) -> Recipe:
        """The recipe with the numbers of the constructor, then those of `finetune`."""
        given = dict(given)
        recipe = recipe_for(self.model, len(self.examples), False, self.seed)
        if self.learning_rate is not None:
            recipe = recipe.but(learning_rate=self.learning_rate)
        settings: dict[str, Any] = {
            "epochs": self.epochs,
            "batch_size": max(2, self.batch_size),
            "loss": self._loss_name,
            "dimensions": self._dimensions,
        }
        optimizer = dict(given.pop("optimizer_params", None) or {})
        if "lr" in optimizer:
            settings["learning_rate"] = optimizer.pop("lr")
        steps = given.pop("warmup_steps", None)
        known = set(recipe.to_dict())
        settings |= {name: value for name, value in given.items() if name in known}
        unknown = sorted((given.keys() - known) | {f"optimizer_params[{name!r}]" for name in optimizer})
        if unknown:
            warn(
                f"{', '.join(unknown)} of finetune() is not used: {NEW_WAY}(..., recipe=Recipe(...)) has what is there"
            )
        recipe = recipe.but(**settings)
        if steps is None and hasattr(self, "warmup_steps"):
            steps = self.warmup_steps
        if steps:
            all_steps = max(1, recipe.epochs * -(-len(self.examples) // recipe.batch_size))
            recipe = replace(recipe, warmup=min(0.99, steps / all_steps if steps >= 1 else steps))
        return recipe

    def get_finetuned_model(self, **model_kwargs: Any) -> FineTunedEmbedding:
        """The tuned model as a LlamaIndex embedding that applies its prefixes.

        Args:
            **model_kwargs: fields of `FineTunedEmbedding`; `query_instruction` and `text_instruction` of
                `HuggingFaceEmbedding` too.

        Raises:
            InputError: where `finetune()` was not called yet.
        """
        if not (Path(self.model_output_path) / "modules.json").is_file():
            raise InputError(f"{self.model_output_path} holds no model yet: call finetune() first")
        for old, new in (("query_instruction", "query_prefix"), ("text_instruction", "passage_prefix")):
            if old in model_kwargs:
                instruction = model_kwargs.pop(old)
                model_kwargs[new] = f"{instruction} " if instruction else instruction
        return FineTunedEmbedding.load(self.model_output_path, **model_kwargs)


def _loss(loss: Any) -> tuple[Loss | None, tuple[int, ...]]:
    """(the recipe's name of a loss, the dimensions of a Matryoshka loss around it)."""
    if loss is None or isinstance(loss, str):
        return loss or None, ()  # type: ignore[return-value]
    name = type(loss).__name__
    if name == "MatryoshkaLoss":
        return _loss(loss.loss)[0], tuple(loss.matryoshka_dims)
    if name not in LOSSES:
        warn(
            f"loss {name} does not learn from questions with their passages alone, so 'mnr' takes its place: give "
            f"scored pairs or negatives to {NEW_WAY}(..., loss=...)"
        )
    return LOSSES.get(name), ()
