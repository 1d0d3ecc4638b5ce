"""`EmbeddingAdapterFinetuneEngine`: a small module over the query vectors of any LlamaIndex embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.compat.adapter_models import AdapterEmbeddingModel
from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, finetune_dataset, question_and_passage
from rag_ft.compat.engine import BaseEmbeddingFinetuneEngine, check_output
from rag_ft.compat.warn import warn
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.errors import InputError
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_ft.compat.adapter_modules import BaseAdapter

SCALE = 20.0
"""Of the cosine in the loss, as in sentence-transformers."""

LEARNING_RATE = 3e-4
"""A matrix that begins as the identity learns next to nothing from steps of 2e-5, the old default. Chosen on held-out
questions of tenk-lyft (4 epochs; .627 without an adapter): .628 at 1e-4, .642 at 3e-4, .611 at 1e-3."""

WORKERS = 8
"""Queries that are embedded side by side, where the embedding has no method for many."""

KNOWN = {
    *("optimizer_class", "optimizer_params", "learning_rate", "warmup_steps", "max_grad_norm"),
    *("epochs", "steps_per_epoch", "show_progress_bar"),
}
"""Training arguments that mean what they meant."""


class EmbeddingAdapterFinetuneEngine(BaseEmbeddingFinetuneEngine):
    """Train an adapter over the queries of an embedding that stays as it is.

    Each text is embedded once, whatever the number of epochs. A part of the questions is held out and chooses after
    which epoch the adapter is best; where it is best untrained, it stays so.

    `rag_ft.train_adapter` is the new way: it also knows which embedding an adapter belongs to.

    Args:
        dataset: what is trained on.
        embed_model: any LlamaIndex embedding.
        batch_size: questions in a batch.
        epochs: passes over the dataset.
        adapter_model: the adapter (`BaseAdapter`); a `LinearLayer` where None.
        dim: numbers of a vector; asked of the embedding where None.
        device: a torch device; the CPU where None, since an adapter is small.
        model_output_path: where the adapter goes.
        model_checkpoint_path: a folder for the adapter as it is along the way (`step_100`, ...).
        checkpoint_save_steps: how often.
        verbose: a progress bar.
        bias: of the `LinearLayer`.
        **train_kwargs: `optimizer_class`, `optimizer_params` (`{"lr": ...}`), `learning_rate`, `warmup_steps`,
            `max_grad_norm`, `steps_per_epoch`.

    Attributes:
        model: the adapter, trained in place.
        loader: a DataLoader whose batches are vectors of (queries, passages).
        dev: after `finetune()`: nDCG@10 on the questions that choose, by candidate (`no adapter`, `untrained`,
            `epoch 1`, ...).

    Raises:
        InputError: where the dataset has no question or the output folder is in the way.
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
        """An engine that goes on from a saved adapter.

        Args:
            dataset: what is trained on.
            embed_model: the embedding below.
            model_path: the adapter's folder.
            model_cls: its class; `LinearLayer` where None.
            **kwargs: as of the class.
        """
        from rag_ft.compat.adapter_modules import LinearLayer

        return cls(dataset, embed_model, adapter_model=(model_cls or LinearLayer).load(str(model_path)), **kwargs)

    def smart_batching_collate(self, batch: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(vectors of questions, vectors of their passages) of pairs of texts, each of shape (pairs, dim)."""
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
        """Embed what is not embedded yet."""
        new = [text for text in dict.fromkeys(passages) if text not in self._vectors["passage"]]
        vectors = self.embed_model.get_text_embedding_batch(new, show_progress=self._verbose) if new else []
        self._vectors["passage"] |= zip(new, vectors, strict=True)
        new = [text for text in dict.fromkeys(queries) if text not in self._vectors["query"]]
        many = getattr(type(self.embed_model), "query_embeddings", None)
        if many is not None:
            vectors = self.embed_model.query_embeddings(new) if new else []  # type: ignore[attr-defined]
        else:
            with ThreadPoolExecutor(max_workers=WORKERS) as pool:
                vectors = list(pool.map(self.embed_model.get_query_embedding, new))
        self._vectors["query"] |= zip(new, vectors, strict=True)

    def finetune(self, **train_kwargs: Any) -> None:
        """Train the adapter in place, and save it.

        Args:
            **train_kwargs: as of the class; these come before those.

        Raises:
            InputError: where there are fewer than two questions, or a number cannot be meant.
        """
        settings = self._train_kwargs | train_kwargs
        unknown = sorted(settings.keys() - KNOWN)
        if unknown:
            warn(f"{', '.join(unknown)} is not used: rag_ft.train_adapter has what is there")
        dataset = hold_out_dev(self._train.to_dataset(first_only=True))
        pairs = {
            split: [
                (dataset.queries[query].text, dataset.passages[passage].text) for query, passage in dataset.pairs(split)
            ]
            for split in dataset.splits
        }
        if len(pairs["train"]) < 2:
            raise InputError(f"the dataset has {len(pairs['train'])} questions to train on: give 2 or more")
        self._embed(*zip(*(pair for some in pairs.values() for pair in some), strict=True))
        dev = (
            _HeldOut(self, pairs["dev"], [pair for some in pairs.values() for pair in some]) if "dev" in pairs else None
        )
        self.model.to(self._target_device)
        self._run(pairs["train"], dev, settings)
        self.model.save(self._model_output_path)
        if dev is not None and max(self.dev.values()) == self.dev["no adapter"] > self.dev[dev.best_name]:
            warn(f"questions that were held out are answered better without the adapter (nDCG@10 {self.dev})")

    def _run(self, pairs: list[tuple[str, str]], dev: _HeldOut | None, settings: dict[str, Any]) -> None:
        import torch
        from tqdm.auto import tqdm

        epochs = int(settings.get("epochs", self._epochs))
        steps_per_epoch = settings.get("steps_per_epoch") or math.ceil(len(pairs) / self.batch_size)
        steps = max(1, int(epochs * steps_per_epoch))
        warmup = int(settings.get("warmup_steps", steps * 0.1))
        parameters = {"lr": settings.get("learning_rate", LEARNING_RATE)} | dict(settings.get("optimizer_params") or {})
        optimizer = (settings.get("optimizer_class") or torch.optim.AdamW)(self.model.parameters(), **parameters)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (warmup + 1), max(0.0, (steps - step) / max(1, steps - warmup)))
        )
        if dev is not None:
            self.dev = {"no adapter": dev.figure(None)}
            dev.weigh("untrained")
        draw = torch.Generator().manual_seed(0)
        shown = settings.get("show_progress_bar", self._verbose)
        with tqdm(total=steps, desc="adapter", unit="step", disable=not shown) as bar:
            for step in range(steps):
                place = step % steps_per_epoch
                if place == 0:
                    order = torch.randperm(len(pairs), generator=draw).tolist()
                    order = order * math.ceil(steps_per_epoch * self.batch_size / len(order))
                self.model.train()
                batch = [pairs[number] for number in order[place * self.batch_size : (place + 1) * self.batch_size]]
                loss = self._loss(batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.get("max_grad_norm", 1.0))
                optimizer.step()
                scheduler.step()
                bar.update(1)
                bar.set_postfix_str(f"loss {float(loss.detach()):.3f}", refresh=False)
                self._checkpoint(step + 1)
                if dev is not None and place == steps_per_epoch - 1:
                    dev.weigh(f"epoch {(step + 1) // steps_per_epoch}")
        self.model.eval()
        if dev is not None:
            self.model.load_state_dict(dev.best_weights)

    def _loss(self, batch: list[tuple[str, str]]) -> torch.Tensor:
        """Cross-entropy of each question among the batch's passages; its own passage twice is no wrong answer."""
        import torch
        import torch.nn.functional as functional

        queries, passages = (vectors.to(self._target_device) for vectors in self.smart_batching_collate(batch))
        scores = SCALE * functional.normalize(self.model(queries), dim=-1) @ functional.normalize(passages, dim=-1).T
        same = torch.tensor([[one[1] == other[1] for other in batch] for one in batch], device=scores.device)
        same.fill_diagonal_(False)
        return functional.cross_entropy(
            scores.masked_fill(same, float("-inf")), torch.arange(len(batch), device=scores.device)
        )

    def _checkpoint(self, step: int) -> None:
        if self._model_checkpoint_path is not None and step % self._checkpoint_save_steps == 0:
            self.model.save(str(Path(self._model_checkpoint_path) / f"step_{step}"))

    def get_finetuned_model(self, **model_kwargs: Any) -> AdapterEmbeddingModel:
        """The embedding with the adapter over its queries.

        Args:
            **model_kwargs: of `AdapterEmbeddingModel`; `adapter_cls` is that of the adapter where it is not given.

        Raises:
            InputError: where `finetune()` was not called yet.
        """
        if not Path(self._model_output_path).is_dir():
            raise InputError(f"{self._model_output_path} holds no adapter yet: call finetune() first")
        model_kwargs.setdefault("adapter_cls", type(self.model))
        return AdapterEmbeddingModel(self.embed_model, self._model_output_path, **model_kwargs)


class _HeldOut:
    """Questions that are not trained on, over all passages that have questions; and the best adapter so far."""

    def __init__(self, engine: EmbeddingAdapterFinetuneEngine, pairs: list[tuple[str, str]], among: Any) -> None:
        self.engine = engine
        vectors = engine._vectors
        texts = list(dict.fromkeys(passage for _, passage in among))
        self.passages = _unit(np.asarray([vectors["passage"][text] for text in texts], dtype=np.float32))
        self.queries = np.asarray([vectors["query"][query] for query, _ in pairs], dtype=np.float32)
        place = {text: str(number) for number, text in enumerate(texts)}
        self.qrels = {str(number): {place[passage]: 1} for number, (_, passage) in enumerate(pairs)}
        self.best, self.best_name = float("-inf"), ""
        self.best_weights: dict[str, torch.Tensor] = {}

    def figure(self, adapter: Any) -> float:
        """nDCG@10 under an adapter; None is none."""
        import torch

        found = self.queries
        if adapter is not None:
            with torch.inference_mode():
                found = adapter.eval()(torch.tensor(found, device=self.engine._target_device)).cpu().numpy()
        top = top_k_rows(_unit(found) @ self.passages.T, 10)
        rankings = {str(number): [str(passage) for passage in row] for number, row in enumerate(top)}
        return float(metrics_per_query(rankings, self.qrels, [HEADLINE])[HEADLINE].mean())

    def weigh(self, name: str) -> None:
        """Measure the adapter as it is; of two that do as well the later one is kept."""
        model = self.engine.model
        figure = self.engine.dev[name] = self.figure(model)
        if figure >= self.best:
            self.best, self.best_name = figure, name
            self.best_weights = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
