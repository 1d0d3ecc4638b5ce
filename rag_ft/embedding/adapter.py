"""An adapter over any LlamaIndex embedding: a small trained map applied to its vectors."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from rag_ft.clean_text import clean_text
from rag_ft.embedding.adapter_maps import apply_map, make_map
from rag_ft.embedding.client import EmbeddingClient
from rag_ft.embedding.contract import (
    MIN_SAME_MODEL_COSINE,
    MIN_SAME_MODEL_COSINE_INT8,
    RECORD_FILE,
    ContractError,
    EmbeddingContract,
    contract_of,
    min_cosine,
    read_model_record,
)
from rag_ft.embedding.identity import Role, passage_vectors, query_vectors
from rag_ft.embedding.marked_embedding import MarkedEmbedding
from rag_ft.embedding.marked_vector import MarkedVector, mark_of
from rag_ft.errors import InputError
from rag_ft.files import sha256_of_file

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

WEIGHTS, REFERENCE_VECTORS = "adapter.safetensors", "probe.safetensors"
"""Files of an adapter's folder: its weights, and the vectors by which it recognises its embedding."""


def is_adapter(folder: str | Path) -> bool:
    """Return whether a folder holds an adapter rather than a model."""
    return (Path(folder) / WEIGHTS).is_file() and (Path(folder) / RECORD_FILE).is_file()


class AdapterEmbedding(MarkedEmbedding):
    """Any LlamaIndex embedding with a trained map over its vectors, for queries only or for queries and passages.

    An adapter for queries leaves passages unchanged, so an index built with the underlying embedding keeps working. An
    adapter for both needs an index that was built with it.

    Args:
        model_name: the adapter's folder (`train_adapter`).
        embed_model: the embedding that it was trained over; `Settings.embed_model` if None.
        module: the torch module that was trained, if you passed your own; the folder holds its weights only.

    Raises:
        InputError: if the folder is not an adapter.
        ContractError: if it belongs to another embedding.

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

    embed_model: Any = Field(default=None, exclude=True, repr=False, description="The embedding under the adapter.")
    module: Any = Field(default=None, exclude=True, repr=False, description="A torch module of your own.")
    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts handed to the embedding at once.")
    adapter_sha256: str | None = Field(
        default=None, description="SHA-256 of the expected adapter weights; any others are rejected."
    )

    _map: Any = PrivateAttr(default=None)
    _record: dict[str, Any] = PrivateAttr(default_factory=dict)
    _base_contract: EmbeddingContract | None = PrivateAttr(default=None)
    _contract: EmbeddingContract | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.RLock)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises it."""
        return "AdapterEmbedding"

    @classmethod
    def load(
        cls, folder: str | Path, embed_model: BaseEmbedding | None = None, *, module: torch.nn.Module | None = None
    ) -> AdapterEmbedding:
        """Load an adapter now, and check that it belongs to the embedding.

        Args:
            folder: an adapter's folder (`train_adapter`).
            embed_model: the embedding that it was trained over; `Settings.embed_model` if None.
            module: the torch module that was trained, if you passed your own.
        """
        if embed_model is None:
            from llama_index.core import Settings

            embed_model = Settings.embed_model
        adapter = cls(
            model_name=str(folder),
            embed_model=embed_model,
            module=module,
            callback_manager=embed_model.callback_manager,
        )
        adapter._loaded_map()
        return adapter

    @property
    def record(self) -> dict[str, Any]:
        """Content of the adapter's `rag_ft.json`."""
        self._loaded_map()
        return self._record

    @property
    def both_sides(self) -> bool:
        """Whether the adapter maps passages too."""
        return bool(self.record["adapter"]["both_sides"])

    @property
    def contract(self) -> EmbeddingContract:
        """What the vectors depend on; the contract of the underlying embedding if passages stay unchanged."""
        self._loaded_map()
        assert self._contract is not None
        return self._contract

    def _loaded_map(self) -> torch.nn.Module:
        """Return the map; load and check it on first use."""
        if self._map is not None:
            return self._map  # type: ignore[no-any-return]
        with self._lock:
            if self._map is None:
                folder = Path(self.model_name)
                record = _read_adapter_record(folder)
                sha256 = sha256_of_file(folder / WEIGHTS)
                if sha256 != (self.adapter_sha256 or record["adapter"]["sha256"]):
                    raise InputError(
                        f"{folder / WEIGHTS} does not hold the expected weights (SHA-256 {sha256[:12]}): train the "
                        "adapter again, or copy its whole folder"
                    )
                module = _read_map(folder, record["adapter"], self.module)
                self._base_contract = self._checked_base(folder, record)
                both_sides = record["adapter"]["both_sides"]
                self._contract = replace(self._base_contract, adapter=sha256) if both_sides else self._base_contract
                self._record, self.adapter_sha256 = record, sha256
                self._map = module
        return self._map  # type: ignore[no-any-return]

    def _checked_base(self, folder: Path, record: dict[str, Any]) -> EmbeddingContract:
        """Return the contract of the underlying embedding, if the adapter was trained on its vectors."""
        if self.embed_model is None:
            from llama_index.core import Settings

            self.embed_model = Settings.embed_model
        if self.embed_model is self:
            raise InputError(
                f"the adapter {folder} has no underlying embedding: pass embed_model to AdapterEmbedding.load"
            )
        vectors = EmbeddingClient(self.embed_model).reference_vectors()
        contract = contract_of(self.embed_model, vectors.shape[1])
        trained = EmbeddingContract.from_dict(record["base"])
        cosine = min_cosine(_read_reference_vectors(folder), vectors)
        threshold = MIN_SAME_MODEL_COSINE_INT8 if contract.form or trained.form else MIN_SAME_MODEL_COSINE
        if cosine is not None and cosine > threshold:
            return contract
        differing = trained.differences(contract) or [
            f"the vectors of the same texts ({'different lengths' if cosine is None else f'cosine {cosine:.3f}'})"
        ]
        raise ContractError(
            f"the adapter {folder} belongs to {_display_name(record['base']['class_name'], trained)}, but the "
            f"embedding is {_display_name(self.embed_model.class_name(), contract)}: they differ in "
            f"{'; '.join(differing)}. Load the adapter over its own embedding, or train one for this embedding"
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return plain values without the underlying embedding; pass it to `from_dict(values, embed_model=...)`."""
        self._loaded_map()
        return super().to_dict(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the map; the copy loads it on first use."""
        clone = self.model_copy()
        clone._map = clone._lock = clone._base_contract = clone._contract = None
        return super(AdapterEmbedding, clone).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle, ready for the first use."""
        super().__setstate__(state)
        self._map = self._base_contract = self._contract = None
        self._lock = threading.RLock()

    def _mapped(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        """Apply the map to vectors of the underlying embedding; each result carries the contract."""
        import torch

        module = self._loaded_map()
        assert self._base_contract is not None
        for mark in {mark for vector in vectors if (mark := mark_of(vector)) is not None}:
            if differing := self._base_contract.differences(mark):
                raise ContractError(
                    f"the adapter {self.model_name} was loaded over {self._base_contract.base_model}, but a vector "
                    f"comes from {mark.base_model}: they differ in {'; '.join(differing)}. Load the adapter again"
                )
        base_vectors = torch.tensor(np.asarray(vectors, dtype=np.float32))
        if base_vectors.shape[1] != self._base_contract.dimension:
            raise ContractError(
                f"the adapter {self.model_name} maps vectors of {self._base_contract.dimension} numbers, but the "
                f"embedding {self.embed_model.model_name} returned {base_vectors.shape[1]}: load the adapter over its "
                "own embedding"
            )
        with torch.inference_mode():
            mapped = apply_map(module, base_vectors, alpha=float(self._record["adapter"]["share"]))
        return [MarkedVector(vector, self.contract) for vector in mapped.tolist()]

    def _passages(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        if self.both_sides:
            return self._mapped(vectors)
        return [MarkedVector(vector, mark_of(vector) or self.contract) for vector in vectors]

    def recognises(self, vector: Sequence[float]) -> bool:
        """Return whether the underlying embedding made this passage's vector; LlamaIndex's nodes keep plain numbers."""
        recognises = getattr(self.embed_model, "recognises", None)
        return bool(recognises is not None and not self.both_sides and recognises(vector))

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        self._loaded_map()
        if not texts:
            return []
        if role == "query":
            return self._mapped(query_vectors(self.embed_model, texts))
        return self._passages(passage_vectors(self.embed_model, texts))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        await self._wait_for_rate_limit()
        return self._mapped([await self.embed_model._aget_query_embedding(clean_text(query))])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        await self._wait_for_rate_limit()
        texts = [clean_text(text) for text in texts]
        return self._passages(await self.embed_model._aget_text_embeddings(texts)) if texts else []

    async def _wait_for_rate_limit(self) -> None:
        """Load the map, then wait for the underlying embedding's rate limiter, as its public methods would."""
        await asyncio.to_thread(self._loaded_map)
        if self.embed_model.rate_limiter is not None:
            await self.embed_model.rate_limiter.async_acquire()


def _read_adapter_record(folder: Path) -> dict[str, Any]:
    """Read an adapter's `rag_ft.json`.

    Raises:
        InputError: if the folder is not an adapter, or its record is incomplete.
    """
    if not is_adapter(folder):
        raise InputError(
            f"{folder} is not an adapter (no {WEIGHTS} with a {RECORD_FILE}): pass a folder of train_adapter"
        )
    record = read_model_record(folder)
    required = {"adapter": ("kind", "dimension", "rank", "share", "both_sides", "sha256"), "base": ("class_name",)}
    for key, names in required.items():
        entry = record.get(key)
        if not isinstance(entry, dict) or any(name not in entry for name in names):
            raise InputError(f"{folder / RECORD_FILE} does not describe the adapter (entry {key!r}): train it again")
    return record


def _read_map(folder: Path, adapter: dict[str, Any], module: Any) -> torch.nn.Module:
    """Load the trained map of a folder, on the CPU.

    Raises:
        InputError: if the user's own module is missing, or the weights do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if adapter["kind"] == "custom" and module is None:
        raise InputError(
            f"the adapter {folder} was trained from your own module ({adapter.get('module')}): pass it, "
            "AdapterEmbedding.load(FOLDER, embed_model, module=...)"
        )
    trained: torch.nn.Module = (
        copy.deepcopy(module) if module is not None
        else make_map(str(adapter["kind"]), int(adapter["dimension"]), int(adapter["rank"]))
    )  # fmt: skip
    try:
        trained.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        reason = str(error).strip().splitlines()[-1].strip()[:120]
        raise InputError(f"{folder / WEIGHTS} does not fit the adapter ({reason}): train it again") from error
    return trained.float().cpu().eval()


def _read_reference_vectors(folder: Path) -> NDArray[np.float32]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return np.asarray(load_file(folder / REFERENCE_VECTORS)["vectors"], dtype=np.float32)
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(
            f"{folder / REFERENCE_VECTORS} cannot be read ({type(error).__name__}): train the adapter again"
        ) from error


def _display_name(class_name: str, contract: EmbeddingContract) -> str:
    """Name an embedding by its class and its model, for messages."""
    return contract.base_model if contract.base_model.startswith(class_name) else f"{class_name} {contract.base_model}"
