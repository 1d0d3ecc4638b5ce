"""Train an adapter: embed, fit, select, save."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag_ft.adapters.recipe import AdapterRecipe
from rag_ft.adapters.select import FittedMap, select_map
from rag_ft.adapters.vectors import AdapterVectors, limit_passages
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.embedding.adapter import AdapterEmbedding
from rag_ft.embedding.adapter_maps import RANK, make_map
from rag_ft.embedding.adapter_saving import save_adapter
from rag_ft.embedding.cached import CachedEmbedding
from rag_ft.embedding.client import EmbeddingClient, open_cache
from rag_ft.embedding.contract import contract_of
from rag_ft.embedding.request_sender import RequestPolicy
from rag_ft.embedding.saving import check_output
from rag_ft.embedding.training_summary import TrainingResult
from rag_ft.training.examples.train_questions import is_generated
from rag_ft.training.plan import scale_alphas
from rag_ft.training.record import dataset_record, selection_record
from rag_ft.training.selection.diagnostics import UNPROVEN, check_base_score, check_questions
from rag_ft.training.selection.headroom import HIGH_BASE_NDCG, headroom

if TYPE_CHECKING:
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.embedding.vector_cache import VectorCache
    from rag_ft.training.selection.select import Selection

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedAdapter(TrainingResult):
    """The result of training an adapter.

    Attributes:
        folder: the adapter's folder.
        alpha: weight of the fitted map against the identity; 0 changes nothing.
        pull: the pull towards the identity that dev selected; None if the identity stays.
        dev: nDCG@10 on dev by candidate (`base`, `pull 10`, `pull 10 (alpha 0.6)`, ...).
        record: the content of `rag_ft.json`.
        base: the embedding that it was trained over.
        module: your own module that was trained, if any.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.adapters import train_adapter
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form {n} is signed in harbour {n}.") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Where is form {n} signed?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> trained = train_adapter(dataset, MockEmbedding(embed_dim=8), tempfile.mkdtemp() + "/adapter", cache=False)
        >>> trained.alpha, len(trained.embed_model().get_query_embedding("Where is form 3 signed?"))
        (0.0, 8)
    """

    folder: Path
    alpha: float
    pull: float | None
    dev: dict[str, float]
    record: dict[str, Any]
    base: BaseEmbedding = field(repr=False)
    module: torch.nn.Module | None = field(default=None, repr=False)

    @property
    def is_base(self) -> bool:
        """Whether no adapter beat the embedding on dev, so that this one changes nothing; `summary` says why."""
        return self.alpha == 0.0

    def embed_model(self, embed_model: BaseEmbedding | None = None) -> AdapterEmbedding:
        """Return the embedding with its adapter.

        Args:
            embed_model: the embedding to adapt; None uses the one that the adapter was trained over.
        """
        return AdapterEmbedding.load(self.folder, embed_model or self.base, module=self.module)


def train_adapter(
    dataset: QADataset,
    embed_model: BaseEmbedding | None = None,
    folder: str | Path = "adapter",
    *,
    recipe: AdapterRecipe | None = None,
    cache: VectorCache | str | Path | Literal[False] | None = None,
    request_policy: RequestPolicy | None = None,
    show_progress: bool = False,
) -> TrainedAdapter:
    """Train a small map over an embedding's vectors, for models whose weights cannot be changed, and select on dev.

    Vectors are computed once and cached on disk, so a repeated call does not pay for them again. The map starts as the
    identity and is pulled towards it, with several strengths. The identity is a candidate too, and stays unless another
    one is significantly better (`rag_ft.training.selection.select`) and loses neither on seen nor on unseen documents.
    The test split is not used.

    Args:
        dataset: a dataset with a train split. If it has no dev split, one is held out: 15 % of the documents, and 10 %
            of the questions about the others.
        embed_model: any LlamaIndex embedding; None uses `Settings.embed_model`.
        folder: the adapter's folder; it appears when it is complete.
        recipe: the training settings.
        cache: a file for the vectors; None uses the one in the user's cache folder, False disables the cache.
        request_policy: how texts are sent to a server, and who approves the cost.
        show_progress: show progress bars.

    Raises:
        InputError: if the dataset has no training question, or `folder` exists and is not an adapter's folder.
        OutsideError: if the embedding fails. Vectors computed so far stay in the cache.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.adapters import train_adapter
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form {n} is signed in harbour {n}.") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Where is form {n} signed?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> where = tempfile.mkdtemp()
        >>> train_adapter(dataset, MockEmbedding(embed_dim=8), where + "/adapter", cache=False).is_base
        True
    """
    folder, recipe = Path(folder), recipe or AdapterRecipe()
    check_output(folder)
    if embed_model is None:
        from llama_index.core import Settings

        embed_model = Settings.embed_model
    dataset.require("train")
    started = time.monotonic()
    generated = is_generated(dataset.questions("train"))
    dataset = limit_passages(hold_out_dev(dataset, seed=recipe.seed), recipe.seed)
    client = _client(embed_model, cache, request_policy)
    vectors = AdapterVectors.embed(dataset, client, recipe, show_progress)
    embedded = time.monotonic()
    findings, alphas, base_ndcg = _limits(dataset, vectors, generated, recipe.seed)
    identity = recipe.module if recipe.module is not None else _linear_map(vectors.dimension, recipe.seed)
    selection, fitted = select_map(vectors, identity, alphas, recipe)
    findings += fitted.findings
    for finding in findings:
        logger.warning("%s", finding)
    training = {
        "pairs": len(vectors.examples.queries),
        "passages": len(vectors.passages),
        **selection_record(selection, vectors.dev, alphas),
        "level": None if base_ndcg is None else round(base_ndcg, 4),
        "findings": findings,
        "seconds": round(time.monotonic() - embedded, 1),
        "seconds_of_vectors": round(embedded - started, 1),
        **dataset_record(dataset),
    }
    record = save_adapter(
        fitted.module,
        folder,
        contract_of(embed_model, vectors.dimension),
        _innermost(embed_model),
        vectors.reference_vectors,
        _adapter_record(recipe, selection, fitted),
        training,
    )
    return TrainedAdapter(
        folder, selection.alpha, fitted.pull, selection.scores, record, embed_model, module=recipe.module
    )


def _client(
    embed_model: BaseEmbedding,
    cache: VectorCache | str | Path | Literal[False] | None,
    request_policy: RequestPolicy | None,
) -> EmbeddingClient:
    if isinstance(embed_model, CachedEmbedding) and cache is None and request_policy is None:
        return embed_model.vectors
    return EmbeddingClient(_innermost(embed_model), open_cache(cache), request_policy or RequestPolicy())


def _limits(
    dataset: QADataset, vectors: AdapterVectors, generated: bool, seed: int
) -> tuple[list[str], tuple[float, ...], float | None]:
    """Return problems of the data, the allowed alphas, and the embedding's nDCG@10 if it limits them."""
    findings = check_questions(dataset.texts("train"))
    if vectors.dev is None:
        return [*findings, UNPROVEN], (), None
    score = float(vectors.values(vectors.queries, vectors.passages).mean())
    findings += check_base_score(score, vectors.dev.chance())
    if not generated:
        return findings, (1.0,), None
    base_ndcg = vectors.base_ndcg(dataset, seed)
    alphas = scale_alphas((1.0,), headroom(base_ndcg))
    logger.info(
        "the embedding has nDCG@10 %.3f on questions generated from the passages: %s", base_ndcg,
        f"alpha is at most {alphas[0]:.2f}" if alphas
        else f"no headroom for generated questions (limit {HIGH_BASE_NDCG}), so nothing is trained",
    )  # fmt: skip
    return findings, alphas, base_ndcg


def _adapter_record(recipe: AdapterRecipe, selection: Selection, fitted: FittedMap) -> dict[str, Any]:
    module = recipe.module
    return {
        "kind": recipe.kind,
        "module": f"{type(module).__module__}.{type(module).__qualname__}" if module is not None else None,
        "rank": RANK,
        "share": selection.alpha,
        "strength": fitted.pull,
        "both_sides": recipe.map_passages,
        "seed": recipe.seed,
    }


def _innermost(model: BaseEmbedding) -> BaseEmbedding:
    """Return the embedding below caches."""
    return _innermost(model.embed_model) if isinstance(model, CachedEmbedding) else model


def _linear_map(dimension: int, seed: int) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_map("linear", dimension, RANK)
