"""`EmbeddingAdapterFinetuneEngine`: trains an adapter for the query vectors of any LlamaIndex embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.compat.adapter_models import AdapterEmbeddingModel
from rag_ft.compat.adapter_selection import AdapterSelection
from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, finetune_dataset, question_and_passage
from rag_ft.compat.engine import BaseEmbeddingFinetuneEngine, check_output, check_pairs
from rag_ft.compat.warn import warn
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.errors import InputError

if TYPE_CHECKING:
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_ft.compat.adapter_modules import BaseAdapter

SCALE = 20.0
"""Scale of the cosine in the loss (1 / temperature), as in sentence-transformers."""

LEARNING_RATE = 3e-4
"""Default learning rate. At 2e-5, the old default, an adapter that starts as the identity hardly learns. nDCG@10 on
held-out questions of tenk-lyft (4 epochs; .627 without an adapter): .628 at 1e-4, .642 at 3e-4, .611 at 1e-3."""

MAX_WORKERS = 8
"""Number of queries embedded concurrently if the embedding cannot embed queries in batches."""

TRAIN_KWARGS = {
    *("optimizer_class", "optimizer_params", "learning_rate", "warmup_steps", "max_grad_norm"),
    *("epochs", "steps_per_epoch", "show_progress_bar"),
}
"""Training arguments that have the same effect as in the old package."""


class EmbeddingAdapterFinetuneEngine(BaseEmbeddingFinetuneEngine):
    """Train an adapter that maps the query vectors of an embedding. The embedding itself does not change.

    Each text is embedded only once. Some questions are held out to select the epoch with the best adapter. If no epoch
    improves it, the untrained adapter is saved.

    `rag_ft.adapters.train_adapter` is the replacement; its adapters also record their embedding.

    Args:
        dataset: the training questions.
        embed_model: any LlamaIndex embedding.
        batch_size: number of questions in a batch.
        epochs: number of passes over the dataset.
        adapter_model: the adapter (`BaseAdapter`); a `LinearLayer` if None.
        dim: dimension of the vectors; that of the embedding if None.
        device: a torch device; the CPU if None, because an adapter is small.
        model_output_path: the folder for the adapter.
        model_checkpoint_path: a folder for checkpoints (`step_100`, ...).
        checkpoint_save_steps: number of steps between checkpoints.
        verbose: show a progress bar.
        bias: whether the `LinearLayer` has a bias.
        **train_kwargs: `optimizer_class`, `optimizer_params` (`{"lr": ...}`), `learning_rate`, `warmup_steps`,
            `max_grad_norm`, `steps_per_epoch`.

    Attributes:
        model: the adapter, trained in place.
        loader: a DataLoader whose batches are the vectors of (queries, passages).
        dev: after `finetune()`, nDCG@10 on the held-out questions by candidate (`no adapter`, `untrained`, `epoch 1`,
            ...).

    Raises:
        InputError: if the dataset has no question, or the output folder is not empty and not a model.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        embed_model: BaseEmbedding,
        batch_size: int = 10,
        epochs: int = 1,
        adapter_model: BaseAdapter | None = None,
        dim: int | None = None,
        device: str | torch.device | None = None,
        model_output_path: str = "model_output",
        model_checkpoint_path: str | None = None,
        checkpoint_save_steps: int = 100,
        verbose: bool = False,
        bias: bool = False,
        **train_kwargs: Any,
    ) -> None:
        import torch

        from rag_ft.compat.adapter_modules import LinearLayer

        self.dataset = dataset
        self._train = finetune_dataset(dataset)
        self.embed_model = embed_model
        self.dim = dim if dim is not None else len(embed_model.get_text_embedding("hello world"))
        self.batch_size = batch_size
        self._vectors: dict[str, dict[str, list[float]]] = {"query": {}, "passage": {}}
        self.loader = self._get_data_loader(self._train)
        self._target_device = torch.device(device or "cpu")
        self.model: Any = adapter_model if adapter_model is not None else LinearLayer(self.dim, self.dim, bias=bias)
        self._model_output_path = str(model_output_path)
        check_output(self._model_output_path, "config.json", "pytorch_model.bin")
        self._model_checkpoint_path = model_checkpoint_path
        self._checkpoint_save_steps = checkpoint_save_steps
        self._epochs = epochs
        self._train_kwargs = train_kwargs
        self._verbose = verbose
        self.dev: dict[str, float] = {}

    @classmethod
    def from_model_path(
        cls,
        dataset: EmbeddingQAFinetuneDataset,
        embed_model: BaseEmbedding,
        model_path: str | PathLike[str],
        model_cls: type[Any] | None = None,
        **kwargs: Any,
    ) -> EmbeddingAdapterFinetuneEngine:
        """Create an engine that continues training a saved adapter.

        Args:
            dataset: the training questions.
            embed_model: the embedding of the adapter.
            model_path: the folder of the adapter.
            model_cls: the class of the adapter; `LinearLayer` if None.
            **kwargs: the arguments of the constructor.
        """
        from rag_ft.compat.adapter_modules import LinearLayer

        return cls(dataset, embed_model, adapter_model=(model_cls or LinearLayer).load(str(model_path)), **kwargs)

    def smart_batching_collate(self, batch: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors of the questions and of the passages of pairs of texts, each of shape (pairs, dim)."""
        import torch

        queries, passages = [pair[0] for pair in batch], [pair[1] for pair in batch]
        self._embed(queries, passages)
        return (
            torch.tensor([self._vectors["query"][text] for text in queries], dtype=torch.float32),
            torch.tensor([self._vectors["passage"][text] for text in passages], dtype=torch.float32),
        )

    def _get_data_loader(self, dataset: EmbeddingQAFinetuneDataset) -> Any:
        from torch.utils.data import DataLoader

        pairs: Any = question_and_passage(dataset)
        return DataLoader(pairs, batch_size=self.batch_size, collate_fn=self.smart_batching_collate)

    def _embed(self, queries: Sequence[str], passages: Sequence[str]) -> None:
        """Embed the texts that have no vector yet."""
        new = [text for text in dict.fromkeys(passages) if text not in self._vectors["passage"]]
        vectors = self.embed_model.get_text_embedding_batch(new, show_progress=self._verbose) if new else []
        self._vectors["passage"] |= zip(new, vectors, strict=True)
        new = [text for text in dict.fromkeys(queries) if text not in self._vectors["query"]]
        if hasattr(type(self.embed_model), "query_embeddings"):
            vectors = self.embed_model.query_embeddings(new) if new else []  # type: ignore[attr-defined]
        else:
            with ThreadPoolExecutor(max_workers=MAX_WORKERS) as pool:
                vectors = list(pool.map(self.embed_model.get_query_embedding, new))
        self._vectors["query"] |= zip(new, vectors, strict=True)

    def finetune(self, **train_kwargs: Any) -> None:
        """Train the adapter in place, and save it.

        Args:
            **train_kwargs: training arguments, which override those of the constructor.

        Raises:
            InputError: if there are fewer than two questions.
        """
        settings = self._train_kwargs | train_kwargs
        unknown = sorted(settings.keys() - TRAIN_KWARGS)
        if unknown:
            warn(f"{', '.join(unknown)} is not used: rag_ft.adapters.AdapterRecipe lists the settings of rag_ft")
        dataset = hold_out_dev(self._train.to_dataset(first_only=True))
        pairs = {
            split: [
                (dataset.queries[query].text, dataset.passages[passage].text) for query, passage in dataset.pairs(split)
            ]
            for split in dataset.splits
        }
        check_pairs(len(pairs["train"]))
        queries, passages = zip(*(pair for split in pairs.values() for pair in split), strict=True)
        self._embed(queries, passages)
        self.model.to(self._target_device)
        selection = None
        if "dev" in pairs:
            selection = AdapterSelection(
                adapter=self.model, device=self._target_device, pairs=pairs["dev"], passages=passages,
                vectors=self._vectors,
            )  # fmt: skip
            self.dev = selection.scores
        self._fit(pairs["train"], selection, settings)
        self.model.save(self._model_output_path)
        if selection is not None and selection.is_worse_than_none:
            warn(f"the embedding does better on held-out questions without the adapter (nDCG@10 {self.dev})")

    def _fit(
        self, pairs: list[tuple[str, str]], selection: AdapterSelection | None, settings: Mapping[str, Any]
    ) -> None:
        """Train, evaluate after each epoch, and load the selected weights into the adapter."""
        import torch
        from tqdm.auto import tqdm

        steps_per_epoch = settings.get("steps_per_epoch") or math.ceil(len(pairs) / self.batch_size)
        steps = max(1, int(settings.get("epochs", self._epochs)) * steps_per_epoch)
        optimizer, scheduler = _optimizer(self.model, steps, settings)
        batches = islice(_batches(pairs, self.batch_size, steps_per_epoch), steps)
        show_progress = settings.get("show_progress_bar", self._verbose)
        with tqdm(batches, desc="adapter", unit="step", total=steps, disable=not show_progress) as bar:
            for step, batch in enumerate(bar, 1):
                self.model.train()
                loss = self._loss(batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.get("max_grad_norm", 1.0))
                optimizer.step()
                scheduler.step()
                bar.set_postfix_str(f"loss {float(loss.detach()):.3f}", refresh=False)
                self._save_checkpoint(step)
                if selection is not None and step % steps_per_epoch == 0:
                    selection.measure(f"epoch {step // steps_per_epoch}")
        self.model.eval()
        if selection is not None:
            self.model.load_state_dict(selection.weights)

    def _loss(self, batch: list[tuple[str, str]]) -> torch.Tensor:
        """Return the cross-entropy with in-batch negatives; duplicates of the positive are not negatives."""
        import torch
        import torch.nn.functional as functional

        queries, passages = (vectors.to(self._target_device) for vectors in self.smart_batching_collate(batch))
        scores = SCALE * functional.normalize(self.model(queries), dim=-1) @ functional.normalize(passages, dim=-1).T
        is_duplicate = torch.tensor([[row[1] == column[1] for column in batch] for row in batch], device=scores.device)
        is_duplicate.fill_diagonal_(False)
        return functional.cross_entropy(
            scores.masked_fill(is_duplicate, float("-inf")), torch.arange(len(batch), device=scores.device)
        )

    def _save_checkpoint(self, step: int) -> None:
        if self._model_checkpoint_path is not None and step % self._checkpoint_save_steps == 0:
            self.model.save(str(Path(self._model_checkpoint_path) / f"step_{step}"))

    def get_finetuned_model(self, **model_kwargs: Any) -> AdapterEmbeddingModel:
        """Return the embedding with the adapter.

        Args:
            **model_kwargs: arguments of `AdapterEmbeddingModel`; `adapter_cls` is the class of the trained adapter by
                default.

        Raises:
            InputError: if `finetune()` has not been called yet.
        """
        if not Path(self._model_output_path).is_dir():
            raise InputError(f"{self._model_output_path} does not contain an adapter yet: call finetune() first")
        model_kwargs.setdefault("adapter_cls", type(self.model))
        return AdapterEmbeddingModel(self.embed_model, self._model_output_path, **model_kwargs)


def _optimizer(model: Any, steps: int, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the optimizer and its schedule: a linear warm-up and a linear decay to 0."""
    import torch

    warmup = int(settings.get("warmup_steps", steps * 0.1))
    parameters = {"lr": settings.get("learning_rate", LEARNING_RATE)} | dict(settings.get("optimizer_params") or {})
    optimizer = (settings.get("optimizer_class") or torch.optim.AdamW)(model.parameters(), **parameters)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (warmup + 1), max(0.0, (steps - step) / max(1, steps - warmup)))
    )
    return optimizer, scheduler


def _batches(pairs: list[tuple[str, str]], batch_size: int, steps_per_epoch: int) -> Iterator[list[tuple[str, str]]]:
    """Yield batches without end. Each epoch has its own order, which is repeated if it is too short."""
    import torch

    rng = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(pairs), generator=rng).tolist()
        order *= math.ceil(steps_per_epoch * batch_size / len(order))
        for start in range(0, steps_per_epoch * batch_size, batch_size):
            yield [pairs[index] for index in order[start : start + batch_size]]
