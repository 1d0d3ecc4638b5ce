"""QADataset -> adapter folder: a map over the vectors of an embedding whose weights cannot be touched."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rag_ft.adapters.select import select_adapter
from rag_ft.adapters.vectors import AdapterVectors, bounded
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.embedding.adapter import AdapterEmbedding
from rag_ft.embedding.adapter_maps import RANK, Kind, make_map
from rag_ft.embedding.adapter_saving import save_adapter
from rag_ft.embedding.cached import CachedEmbedding
from rag_ft.embedding.client import EmbeddingClient, RequestPolicy, opened_cache
from rag_ft.embedding.contract import contract_of
from rag_ft.embedding.saving import check_output
from rag_ft.embedding.vector_cache import VectorCache
from rag_ft.errors import InputError
from rag_ft.training.examples.pairs import is_generated, question_styles, questions_sketch
from rag_ft.training.selection.diagnostics import UNPROVEN, check_level, check_questions
from rag_ft.training.selection.headroom import HIGH_BASE_NDCG, headroom
from rag_ft.training.selection.select import gain_to_dict, why_base

if TYPE_CHECKING:
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.1
"""A smaller share of a map is not worth it."""

LINEAR: Kind = "linear"
"""What `auto` takes: the others were no better on new documents, and learned half as much about known ones."""

STRENGTHS = (30.0, 10.0, 3.0, 1.0)
"""Of the pull to the identity: each is a candidate, and so is the identity."""


@dataclass(frozen=True)
class TrainedAdapter:
    """What a training of an adapter left behind.

    Attributes:
        folder: the adapter's folder.
        share: of the way from the identity to the trained map; 0 changes nothing.
        strength: of the pull to the identity that dev chose; None where nothing was.
        dev: nDCG@10 on dev by candidate (`base`, `pull 10`, `pull 10 (share 0.6)`, ...).
        record: what `rag_ft.json` says.
        base: the embedding that it was trained over.
        module: the module of your own that was trained, where it was one.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.adapters import train_adapter
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form {n} is signed in harbour {n}.") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Where is form {n} signed?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> trained = train_adapter(dataset, MockEmbedding(embed_dim=8), tempfile.mkdtemp() + "/adapter", cache=False)
        >>> trained.share, len(trained.embed_model().get_query_embedding("Where is form 3 signed?"))
        (0.0, 8)
    """

    folder: Path
    share: float
    strength: float | None
    dev: dict[str, float]
    record: dict[str, Any]
    base: BaseEmbedding = field(repr=False)
    module: torch.nn.Module | None = field(default=None, repr=False)

    @property
    def is_base(self) -> bool:
        """Whether no adapter beat the embedding on dev, so that this one changes nothing."""
        return self.share == 0.0

    @property
    def findings(self) -> list[str]:
        """What looked wrong, each with what to change."""
        return list(self.record["training"]["findings"])

    def embed_model(self, embed_model: BaseEmbedding | None = None, **kwargs: Any) -> AdapterEmbedding:
        """The embedding with its adapter.

        Args:
            embed_model: the embedding below; the one that it was trained over where None.
            **kwargs: any field of `AdapterEmbedding`.
        """
        kwargs.setdefault("module", self.module)
        return AdapterEmbedding.load(self.folder, embed_model or self.base, **kwargs)


def train_adapter(
    dataset: QADataset,
    embed_model: BaseEmbedding | None = None,
    folder: str | Path = "adapter",
    *,
    kind: Kind | Literal["auto"] = "auto",
    module: torch.nn.Module | None = None,
    both_sides: bool = False,
    rank: int = RANK,
    strengths: Sequence[float] = STRENGTHS,
    max_pairs: int | None = None,
    cache: VectorCache | str | Path | Literal[False] | None = None,
    request_policy: RequestPolicy | None = None,
    seed: int = 0,
    device: str = "cpu",
    show_progress: bool = False,
) -> TrainedAdapter:
    """Train a small map over an embedding's vectors, where its weights cannot be touched, and choose on dev.

    The vectors are computed once and kept on the disk, so that a run that was stopped pays nothing twice. The map
    begins as the identity and is held near it, once for each strength. The identity is a candidate too, and stays
    unless another one is surely better (`rag_ft.training.selection.select`) and loses neither on known documents nor on new ones.
    The test split is not looked at.

    Args:
        dataset: with a train split; a missing dev split is carved out of it: 15 % of the documents, and 10 % of the
            questions on the others.
        embed_model: any LlamaIndex embedding; `Settings.embed_model` where None.
        folder: the adapter's folder; written beside, then renamed.
        kind: `linear`, `low-rank` or `residual`; `auto` is `linear`, which did best.
        module: a torch module of your own in its place: vectors of shape (texts, dimension) in, and out. Its folder
            holds its weights alone, so give it again when you load the adapter.
        both_sides: change passages as well: the index must be rebuilt with the adapter.
        rank: of a low-rank map, and width of a residual network.
        strengths: of the pull to the identity.
        max_pairs: train on so many pairs at most.
        cache: a file for the vectors; None is the one in the user's cache folder, False keeps none.
        request_policy: how texts are sent to a server, and who approves of what it costs.
        seed: of every draw.
        device: a torch device; the map is small.
        show_progress: progress bars.

    Raises:
        InputError: where the dataset has no training question, or the folder is in the way.
        OutsideError: where the embedding fails; what was embedded is kept.

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
    folder = Path(folder)
    check_output(folder)
    if kind != "auto" and kind not in get_args(Kind):
        raise InputError(f"kind is {kind!r}: give one of auto, {', '.join(get_args(Kind))}")
    if not strengths or min(strengths) < 0:
        raise InputError(f"strengths are {strengths!r}: give some numbers, 0 or more each")
    if embed_model is None:
        from llama_index.core import Settings

        embed_model = Settings.embed_model
    dataset.require("train")
    started = time.monotonic()
    generated = is_generated(dataset)
    if not dataset.qrels.get("dev"):
        dataset = hold_out_dev(dataset, seed=seed)
    dataset = bounded(dataset, seed)
    if isinstance(embed_model, CachedEmbedding) and cache is None and request_policy is None:
        source = embed_model.vectors
    else:
        source = EmbeddingClient(_innermost(embed_model), opened_cache(cache), request_policy or RequestPolicy())
    known = AdapterVectors.of(dataset, source, max_pairs, seed, show_progress)
    embedded = time.monotonic()
    findings = check_questions(dataset)
    shares: tuple[float, ...] = (1.0,)
    level: float | None = None
    if known.dev is not None:
        base_values = known.values(known.queries, known.passages)
        findings += check_level(float(base_values.mean()), known.dev.chance())
        if generated:
            level = known.level(dataset, seed)
            room = headroom(level)
            shares = (round(room, 2),) if room >= LEAST_SHARE else ()
            logger.info(
                "the embedding has nDCG@10 %.3f on questions made of the passages: %s", level,
                f"an adapter may go {room:.0%} of its way" if shares
                else f"it is at home here (over {HIGH_BASE_NDCG}), and generated questions would teach it nothing",
            )  # fmt: skip
    else:
        shares = ()
        findings.append(UNPROVEN)
    made = "custom" if module is not None else LINEAR if kind == "auto" else kind
    begun = module if module is not None else _begun(made, known.probe.shape[1], rank, seed)
    choice = select_adapter(known, begun, strengths, shares, both_sides, seed, device)
    findings += choice.findings
    for finding in findings:
        logger.warning("%s", finding)
    record = save_adapter(
        choice.module,
        folder,
        contract_of(embed_model, known.probe.shape[1]),
        _innermost(embed_model),
        known.probe,
        {
            "kind": made,
            "module": f"{type(module).__module__}.{type(module).__qualname__}" if module is not None else None,
            "rank": rank,
            "share": choice.share,
            "strength": choice.strength,
            "both_sides": both_sides,
        },
        {
            "pairs": len(known.examples.queries),
            "passages": len(known.passages),
            "dev_questions": len(known.dev.sources) if known.dev else 0,
            "dev_makings": dict(Counter(known.dev.sources)) if known.dev else {},
            "dev_documents": dict(Counter(known.dev.kinds)) if known.dev else {},
            "dev_ndcg@10": {name: round(score, 4) for name, score in choice.scores.items()},
            "gain": gain_to_dict(choice.gain),
            "base_stays_because": None if choice.share else why_base(known.dev, shares, choice.refused),
            "refused": choice.refused,
            "general": {name: round(score, 4) for name, score in choice.general.items()},
            "level": None if level is None else round(level, 4),
            "findings": findings,
            "seconds": round(time.monotonic() - embedded, 1),
            "seconds_of_vectors": round(embedded - started, 1),
            "question_styles": question_styles(dataset),
            "questions": questions_sketch(dataset),
        },
    )  # fmt: skip
    return TrainedAdapter(folder, choice.share, choice.strength, choice.scores, record, embed_model, module)


def _innermost(model: BaseEmbedding) -> BaseEmbedding:
    """The embedding that a cache is over."""
    return _innermost(model.embed_model) if isinstance(model, CachedEmbedding) else model


def _begun(kind: str, dimension: int, rank: int, seed: int) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_map(kind, dimension, rank)
