"""An adapter over any LlamaIndex embedding: a small trained map of its vectors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from rag_ft.embedding.adapter_maps import make_map, mapped
from rag_ft.embedding.client import EmbeddingClient
from rag_ft.embedding.contract import (
    ALIKE,
    ALIKE_INT8,
    FILE,
    ContractError,
    EmbeddingContract,
    contract_of,
    read_model_record,
)
from rag_ft.embedding.identity import passage_vectors, query_vectors
from rag_ft.embedding.marked_vector import MarkedVector, mark_of, marked_mean
from rag_ft.errors import InputError
from rag_ft.files import sha256_of_file

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

WEIGHTS, PROBE = "adapter.safetensors", "probe.safetensors"


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter, and not a model."""
    return (Path(folder) / WEIGHTS).is_file() and (Path(folder) / FILE).is_file()


class AdapterEmbedding(BaseEmbedding):
    """Any LlamaIndex embedding with a trained map over its vectors: of questions alone, or of both sides.

    An adapter of questions leaves the passages as they are, so that an index that was built with the embedding goes
    on serving. One of both sides needs an index that was built with it.

    Args:
        model_name: the adapter's folder (`train_adapter`).
        embed_model: the embedding that it was trained over; `Settings.embed_model` where None.
        module: the torch module that was trained, where it was one of your own: a folder holds its weights alone.

    Raises:
        InputError: where the folder is no adapter.
        ContractError: where it belongs to another embedding.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.adapters import train_adapter
        >>> from rag_ft.embedding import AdapterEmbedding
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form {n} is signed in harbour {n}.") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Where is form {n} signed?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> base, folder = MockEmbedding(embed_dim=8), tempfile.mkdtemp() + "/adapter"
        >>> _ = train_adapter(dataset, base, folder, cache=False)
        >>> embed_model = AdapterEmbedding.load(folder, base)  # for Settings.embed_model
        >>> embed_model.both_sides, len(embed_model.get_query_embedding("Where is form 3 signed?"))
        (False, 8)
    """

    embed_model: Any = Field(default=None, exclude=True, repr=False, description="The embedding below the adapter.")
    module: Any = Field(default=None, exclude=True, repr=False, description="A torch module of your own.")
    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts handed to the embedding at once.")
    adapter_sha256: str | None = Field(
        default=None, description="SHA-256 of the adapter's weights that are expected; others are refused."
    )

    _map: Any = PrivateAttr(default=None)
    _record: dict[str, Any] = PrivateAttr(default_factory=dict)
    _below: EmbeddingContract | None = PrivateAttr(default=None)
    _contract: EmbeddingContract | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.RLock)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "AdapterEmbedding"

    @classmethod
    def load(cls, folder: str | Path, embed_model: BaseEmbedding | None = None, **kwargs: Any) -> AdapterEmbedding:
        """Load an adapter now, and make sure that it belongs to the embedding.

        Args:
            folder: what `train_adapter` wrote.
            embed_model: the embedding that it was trained over; `Settings.embed_model` where None.
            **kwargs: any field of the class.
        """
        if embed_model is None:
            from llama_index.core import Settings

            embed_model = Settings.embed_model
        kwargs.setdefault("callback_manager", embed_model.callback_manager)
        adapter = cls(model_name=str(folder), embed_model=embed_model, **kwargs)
        adapter._loaded()
        return adapter

    @property
    def record(self) -> dict[str, Any]:
        """What `rag_ft.json` says."""
        self._loaded()
        return self._record

    @property
    def both_sides(self) -> bool:
        """Whether passages are changed too."""
        return bool(self.record["adapter"]["both_sides"])

    @property
    def contract(self) -> EmbeddingContract:
        """What the vectors depend on, for the index: that of the embedding below, where passages stay as they are."""
        self._loaded()
        assert self._contract is not None
        return self._contract

    def _loaded(self) -> torch.nn.Module:
        """The map, loaded and checked when first used."""
        if self._map is not None:
            return self._map  # type: ignore[no-any-return]
        with self._lock:
            if self._map is None:
                folder = Path(self.model_name)
                record = _record_of(folder)
                sha256 = sha256_of_file(folder / WEIGHTS)
                if sha256 != (self.adapter_sha256 or record["adapter"]["sha256"]):
                    raise InputError(
                        f"{folder / WEIGHTS} holds other weights ({sha256[:12]}) than are expected: train the adapter "
                        "again, or copy its whole folder"
                    )
                module = _read_map(folder, record["adapter"], self.module)
                self._below = self._checked_base(folder, record)
                both = record["adapter"]["both_sides"]
                self._contract = _with_adapter(self._below, sha256) if both else self._below
                self._record, self.adapter_sha256 = record, sha256
                self._map = module
        return self._map  # type: ignore[no-any-return]

    def _checked_base(self, folder: Path, record: dict[str, Any]) -> EmbeddingContract:
        """The contract of the embedding below, which must make the vectors that the adapter was trained on."""
        if self.embed_model is None:
            from llama_index.core import Settings

            self.embed_model = Settings.embed_model
        if self.embed_model is self:
            raise InputError(
                f"the adapter {folder} has no embedding below it: give one, AdapterEmbedding.load(FOLDER, embed_model)"
            )
        vectors = EmbeddingClient(self.embed_model).probe()
        contract = contract_of(self.embed_model, vectors.shape[1])
        trained = EmbeddingContract.from_dict(record["base"])
        known = _read_probe(folder)
        least = ALIKE_INT8 if contract.form or trained.form else ALIKE
        if known.shape == vectors.shape and _cosines(known, vectors).min() > least:
            return contract
        differing = trained.differences(contract) or [
            "the vectors of the same texts (cosine "
            + (f"{_cosines(known, vectors).min():.3f})" if known.shape == vectors.shape else "of other lengths)")
        ]
        raise ContractError(
            f"the adapter {folder} belongs to {_called(record['base']['class_name'], trained)}, and the embedding is "
            f"{_called(self.embed_model.class_name(), contract)}: they differ in {'; '.join(differing)}. Load it with "
            "its own embedding, or train another one"
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain values, without the embedding below: `from_dict(values, embed_model=...)` gives it again."""
        self._loaded()
        return super().to_dict(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without the map: whoever unpickles it loads it when it is first used."""
        copy = self.model_copy()
        copy._map = copy._lock = copy._below = copy._contract = None
        return super(AdapterEmbedding, copy).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Ready for the first use."""
        super().__setstate__(state)
        self._map = self._below = self._contract = None
        self._lock = threading.RLock()

    def _changed(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        """Vectors of the embedding after the map, each with the contract."""
        import torch

        module = self._loaded()
        assert self._below is not None
        for mark in {mark for vector in vectors if (mark := mark_of(vector)) is not None}:
            if differing := self._below.differences(mark):
                raise ContractError(
                    f"the adapter {self.model_name} was loaded over {self._below.base_model}, and a vector is of "
                    f"{mark.base_model}: they differ in {'; '.join(differing)}. Load the adapter again"
                )
        given = torch.tensor(np.asarray(vectors, dtype=np.float32))
        if given.shape[1] != self._below.dimension:
            raise ContractError(
                f"the adapter {self.model_name} maps {self._below.dimension} numbers, and the embedding "
                f"{self.embed_model.model_name} gave {given.shape[1]}: load it with its own embedding"
            )
        with torch.inference_mode():
            found = mapped(module, given, float(self._record["adapter"]["share"]))
        return [MarkedVector(vector, self.contract) for vector in found.tolist()]

    def _passages(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        if self.both_sides:
            return self._changed(vectors)
        return [MarkedVector(vector, mark_of(vector) or self.contract) for vector in vectors]

    def made(self, vector: Sequence[float]) -> bool:
        """Whether the embedding below made this passage's vector: LlamaIndex's nodes keep numbers, and no mark."""
        below = getattr(self.embed_model, "made", None)
        return bool(below is not None and not self.both_sides and below(vector))

    def query_embeddings(self, queries: list[str]) -> list[list[float]]:
        """Embed many queries at once; shape (queries, dimension)."""
        self._loaded()
        return self._changed(query_vectors(self.embed_model, queries)) if queries else []

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.query_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        await asyncio.to_thread(self._loaded)
        await self._turn()
        return self._changed([await self.embed_model._aget_query_embedding(query)])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._loaded()
        return self._passages(passage_vectors(self.embed_model, texts)) if texts else []

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        await asyncio.to_thread(self._loaded)
        await self._turn()
        return self._passages(await self.embed_model._aget_text_embeddings(texts)) if texts else []

    async def _turn(self) -> None:
        """Wait for the limiter of the embedding below, as its own public methods would."""
        if self.embed_model.rate_limiter is not None:
            await self.embed_model.rate_limiter.async_acquire()

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """The mean of several queries' vectors, still marked with the contract."""
        return marked_mean([self.get_query_embedding(query) for query in queries], self.contract, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """The same, asynchronously."""
        return marked_mean([await self.aget_query_embedding(query) for query in queries], self.contract, agg_fn)


def _record_of(folder: Path) -> dict[str, Any]:
    """What `rag_ft.json` says of an adapter.

    Raises:
        InputError: where the folder is none, or its record is broken.
    """
    if not is_adapter(folder):
        raise InputError(f"{folder} is no adapter (no {WEIGHTS} with a {FILE}): give a folder of train_adapter")
    record = read_model_record(folder)
    known = {"adapter": ("kind", "dimension", "rank", "share", "both_sides", "sha256"), "base": ("class_name",)}
    for part, names in known.items():
        entry = record.get(part)
        if not isinstance(entry, dict) or any(name not in entry for name in names):
            raise InputError(f"{folder / FILE} does not say what the adapter is ({part}): train it again")
    return record


def _read_map(folder: Path, adapter: dict[str, Any], module: Any) -> torch.nn.Module:
    """The trained map of a folder, on the CPU.

    Raises:
        InputError: where a module of the user's own is missing, or the weights do not fit.
    """
    import copy

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if adapter["kind"] == "custom" and module is None:
        raise InputError(
            f"the adapter {folder} was trained as a module of your own ({adapter.get('module')}): give it again, "
            "AdapterEmbedding.load(FOLDER, embed_model, module=...)"
        )
    own: torch.nn.Module = (
        copy.deepcopy(module) if module is not None
        else make_map(str(adapter["kind"]), int(adapter["dimension"]), int(adapter["rank"]))
    )  # fmt: skip
    try:
        own.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        reason = str(error).strip().splitlines()[-1].strip()[:120]
        raise InputError(f"{folder / WEIGHTS} does not fit the adapter ({reason}): train it again") from error
    return own.float().cpu().eval()


def _read_probe(folder: Path) -> NDArray[np.float32]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return np.asarray(load_file(folder / PROBE)["vectors"], dtype=np.float32)
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(
            f"{folder / PROBE} cannot be read ({type(error).__name__}): train the adapter again"
        ) from error


def _called(class_name: str, contract: EmbeddingContract) -> str:
    """An embedding for people: its class and its model."""
    return contract.base_model if contract.base_model.startswith(class_name) else f"{class_name} {contract.base_model}"


def _with_adapter(contract: EmbeddingContract, sha256: str) -> EmbeddingContract:
    from dataclasses import replace

    return replace(contract, adapter=sha256)


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float32] = (one * other).sum(axis=1) / np.maximum(lengths, 1e-12)
    return found
