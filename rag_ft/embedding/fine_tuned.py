"""A model folder as a LlamaIndex embedding that applies its query and passage prefixes."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator

from rag_ft.embedding.contract import EmbeddingContract, read_model_record, weights_sha256
from rag_ft.embedding.encoding import encode, token_limit
from rag_ft.embedding.loading import load_sentence_transformer, model_folder, pooling_of, resolve_model
from rag_ft.embedding.marked_vector import MarkedVector, marked_mean
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


TEXTS_AT_ONCE = 256
"""Texts of a long list that are embedded before another thread may have its turn."""

REMEMBERED, REMEMBERED_NUMBERS = 200_000, 16
"""Vectors that an embedding knows again, by so many of their numbers."""


class FineTunedEmbedding(BaseEmbedding):
    """A SentenceTransformers model that carries its query and passage prefixes.

    Queries and passages are told apart by LlamaIndex itself; each gets its prefix. Works for tuned models
    and for base ones, whose prefixes come from a table of known families.

    Args:
        model_name: a model folder, a hub name, or `local`.
        query_prefix: put before a query; the model's own where None, an empty text counts.
        passage_prefix: put before a passage; the model's own where None, an empty text counts.
        max_length: tokens that are read of a text; the model's own where None.
        dimension: length of the vectors; the model's own where None. A shorter one is cut (Matryoshka), and the rest
            has length 1 again: for models that were trained for it (`rag-ft train --dimension`).
        device: a torch device; the best there is where None.
        backend: `torch`, or `onnx` or `openvino` where the model was exported (`rag-ft export`); on the CPU.
        int8: which of the exports.
        devices: several of them, such as `["cuda:0", "cuda:1"]` or `["cpu"] * 4`: a process on each shares long
            lists of passages.

    Raises:
        InputError: where the name or folder is wrong, or the model has fewer dimensions.
        OutsideError: where the hub cannot be reached.

    Example:
        >>> from llama_index.core import Settings
        >>> from rag_ft import FineTunedEmbedding
        >>> Settings.embed_model = FineTunedEmbedding.load("local")
        >>> len(Settings.embed_model.get_query_embedding("How do I claim expenses?"))
        384
    """

    query_prefix: str | None = Field(default=None, description="Put before a query; None: the model's own.")
    passage_prefix: str | None = Field(default=None, description="Put before a passage; None: the model's own.")
    max_length: int | None = Field(default=None, gt=0, description="Tokens read of a text; None: the model's own.")
    dimension: int | None = Field(default=None, gt=0, description="Vectors are cut to this; None: the model's own.")
    device: str | None = Field(default=None, description="A torch device; None: the best there is.")
    devices: list[str] | None = Field(default=None, description="Several: a process on each, for many passages.")
    backend: Literal["torch", "onnx", "openvino"] = Field(default="torch", description="What computes the vectors.")
    int8: bool = Field(default=False, description="The export in 8 bits, of the backend onnx or openvino.")
    precision: str = Field(
        default="auto", pattern="^(auto|bf16|fp32)$", description="auto: bfloat16 where the processor computes it."
    )
    embed_batch_size: int = Field(
        default=2048, gt=0, le=2048, description="Texts handed over at once; they are sorted by length."
    )
    encode_batch_size: int | None = Field(
        default=None, gt=0, description="Texts in one forward pass; None: as many as fit the caches of the device."
    )
    weights_sha256: str | None = Field(
        default=None, description="SHA-256 of the weights that are expected; other weights are refused."
    )

    _model: Any = PrivateAttr(default=None)
    _contract: EmbeddingContract | None = PrivateAttr(default=None)
    _processes: Any = PrivateAttr(default=None)
    _made: Any = PrivateAttr(default_factory=OrderedDict)
    _lock: Any = PrivateAttr(default_factory=threading.RLock)

    @model_validator(mode="after")
    def _refuse_shared_cache(self) -> FineTunedEmbedding:
        if self.embeddings_cache is not None:
            raise InputError(
                "embeddings_cache mixes queries with passages and one model with another (its key is the text alone): "
                "leave it out"
            )
        return self

    @model_validator(mode="after")
    def _refuse_processes_of_exports(self) -> FineTunedEmbedding:
        if self.devices and self.backend != "torch":
            raise InputError(f"devices go with the backend 'torch', and the backend is {self.backend!r}: leave one out")
        return self

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "FineTunedEmbedding"

    @classmethod
    def load(cls, model: str | Path, **kwargs: Any) -> FineTunedEmbedding:
        """Load a model now, so that a wrong folder fails here and not at the first query.

        Args:
            model: a model folder, a hub name, or `local`.
            **kwargs: any field of the class.
        """
        embedding = cls(model_name=str(model), **kwargs)
        embedding.sentence_transformer  # noqa: B018
        return embedding

    @property
    def sentence_transformer(self) -> SentenceTransformer:
        """The model, loaded when first used."""
        if self._model is not None:
            return self._model  # without the lock: an event loop must not wait for a long list
        with self._lock:
            if self._model is None:
                model = self._loaded()
                own = model.get_embedding_dimension() or 0
                if self.dimension is not None and self.dimension > own:
                    raise InputError(f"dimension {self.dimension} is more than {self.model_name} has ({own}): cut less")
                self._check_weights()
                self.query_prefix, self.passage_prefix = model.prompts["query"], model.prompts["document"]
                self.max_length = token_limit(model) or None
                self._contract = self._contract_of(model)
                self._model = model
        return self._model

    def _loaded(self) -> SentenceTransformer:
        if self.backend == "torch":
            if self.int8:
                raise InputError("int8 needs the backend 'onnx' or 'openvino': torch computes in bfloat16 or float32")
            return load_sentence_transformer(
                self.model_name, self.query_prefix, self.passage_prefix, self.max_length, self.device
            )
        from rag_ft.embedding.backends import load_exported

        return load_exported(
            self.model_name,
            self.backend,
            self.int8,
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
            max_length=self.max_length,
        )

    def _check_weights(self) -> None:
        folder = model_folder(self.model_name)
        if self.weights_sha256 is None or folder is None:
            return
        found = weights_sha256(folder)
        if found != self.weights_sha256:
            raise InputError(
                f"{self.model_name} holds other weights ({found[:12]}) than were asked for "
                f"({self.weights_sha256[:12]}): load the model anew with FineTunedEmbedding.load and rebuild the index"
            )

    def _contract_of(self, model: SentenceTransformer) -> EmbeddingContract:
        folder = model_folder(self.model_name)
        record = read_model_record(folder) if folder is not None else {}
        return EmbeddingContract(
            weights_sha256=self.weights_sha256 or (weights_sha256(folder) if folder is not None else ""),
            base_model=str(record.get("base_model") or resolve_model(self.model_name)[1]),
            query_prefix=self.query_prefix or "",
            passage_prefix=self.passage_prefix or "",
            dimension=self.dimension or model.get_embedding_dimension() or 0,
            normalize=True,
            max_length=self.max_length or 0,
            pooling=pooling_of(model),
            form=f"int8-{self.backend}" if self.int8 else "",
        )

    @property
    def contract(self) -> EmbeddingContract:
        """What the vectors depend on, for the index to keep beside them."""
        if self._contract is None:
            self.sentence_transformer  # noqa: B018
        assert self._contract is not None
        return self._contract

    @property
    def fusion(self) -> dict[str, Any] | None:
        """How its lists are mixed with those of BM25, as it was learned on dev questions; None where it was not."""
        return self.record.get("fusion")

    @property
    def record(self) -> dict[str, Any]:
        """What `rag_ft.json` says of the model; empty for one that rag_ft did not make."""
        folder = model_folder(self.model_name)
        return read_model_record(folder) if folder is not None else {}

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain values, with the prefixes in force: what `from_dict` needs to embed in the same way."""
        self.weights_sha256 = self.contract.weights_sha256 or None
        return super().to_dict(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without the weights: whoever unpickles it loads them when they are first used."""
        copy = self.model_copy()
        copy._model = copy._processes = copy._lock = copy._made = None
        return super(FineTunedEmbedding, copy).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Ready for the first use."""
        super().__setstate__(state)
        self._model = self._processes = None
        self._lock = threading.RLock()
        self._made = OrderedDict()

    def _encode(self, texts: list[str], role: Any) -> list[list[float]]:
        model, contract = self.sentence_transformer, self.contract
        with self._lock:
            processes = self._started_processes(len(texts))
        # A thread that asks one question does not wait for another one's long list, but for some batches of it.
        step = len(texts) if processes is not None else TEXTS_AT_ONCE
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        found: list[Any] = [None] * len(texts)
        for start in range(0, len(order), max(1, step)):
            places = order[start : start + step]
            try:
                with self._lock:
                    vectors = encode(
                        model,
                        [texts[place] for place in places],
                        role,
                        self.encode_batch_size,
                        self.precision,
                        dimension=self.dimension,
                        processes=processes,
                    )
            except BaseException:
                self.close()  # what is left in the queues of the processes would be taken for the next list's
                raise
            for place, vector in zip(places, vectors.tolist(), strict=True):
                found[place] = MarkedVector(vector, contract)
        with self._lock:
            self._made |= dict.fromkeys(hash(tuple(vector[:REMEMBERED_NUMBERS])) for vector in found)
            while len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        return found

    def made(self, vector: Sequence[float]) -> bool:
        """Whether this object made a vector, of the last 200,000: LlamaIndex's nodes keep numbers, and no mark."""
        return hash(tuple(vector[:REMEMBERED_NUMBERS])) in self._made

    def _started_processes(self, texts: int) -> Any:
        """A process on each device, where there are several and enough texts for them."""
        if self.devices is None or len(self.devices) < 2 or texts < (self.encode_batch_size or 32) * len(self.devices):
            return None
        if self._processes is None:
            device = self._model.device
            self._processes = self._model.start_multi_process_pool(self.devices)
            self._model.to(device)  # the pool moves it to the CPU, where questions would be slow
        return self._processes

    def close(self) -> None:
        """End the processes on several devices; a later call starts them again."""
        with self._lock:
            if self._processes is not None:
                self._model.stop_multi_process_pool(self._processes)
                self._processes = None

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encode([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encode([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encode(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """The mean of several queries' vectors, still marked with the contract: what a retriever asks for.

        Args:
            queries: one for a plain question, several for HyDE and the like.
            agg_fn: in place of the mean.
        """
        return marked_mean([self.get_query_embedding(query) for query in queries], self.contract, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """The same, asynchronously."""
        return marked_mean([await self.aget_query_embedding(query) for query in queries], self.contract, agg_fn)

    def query_embeddings(self, queries: list[str]) -> list[list[float]]:
        """Embed many queries at once, each with the query prefix; shape (queries, dimension)."""
        return self._encode(queries, "query")
