"""A model folder as a LlamaIndex embedding that applies its query and passage prefixes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator

from rag_ft.embedding.contract import EmbeddingContract, read_model_record, weights_sha256
from rag_ft.embedding.encoding import encode, encode_in_processes, token_limit
from rag_ft.embedding.identity import Role
from rag_ft.embedding.loading import model_folder, pooling_of, resolve_model
from rag_ft.embedding.marked_embedding import MarkedEmbedding
from rag_ft.embedding.marked_vector import MarkedVector
from rag_ft.embedding.model_spec import ModelSpec
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from rag_ft.embedding.backends import Backend


WINDOW_TEXTS = 256
"""Number of texts that a thread embeds before another thread may embed its own."""

MAX_RECOGNISED_VECTORS = 200_000
RECOGNISED_NUMBERS = 16
"""Number of leading components by which the embedding recognises a vector."""


class FineTunedEmbedding(MarkedEmbedding):
    """A SentenceTransformers model that carries its query and passage prefixes.

    LlamaIndex embeds queries and passages by different methods, and each method adds its prefix. The class works for
    tuned models and base models; a base model's prefixes come from a table of known families.

    Args:
        model_name: a model folder, a hub name, or `local`.
        query_prefix: text put before each query; None uses the model's own, an empty text means no prefix.
        passage_prefix: text put before each passage; None uses the model's own, an empty text means no prefix.
        max_length: number of tokens the model reads of a text; None uses the model's own limit.
        dimension: numbers in a vector; None uses the model's own. A smaller number truncates the vectors and scales
            them to length 1 again (Matryoshka), for models that were trained for it (`rag-ft train --dimension`).
        device: a torch device; None picks the best one available.
        backend: `torch`, or `onnx` or `openvino` on the CPU if the model was exported (`rag-ft export`).
        int8: use the 8-bit export of the backend `onnx`.
        devices: several devices, such as `["cuda:0", "cuda:1"]` or `["cpu"] * 4`. A process on each of them embeds a
            part of a long list of passages.

    Raises:
        InputError: if the name or folder is wrong, or the model has fewer dimensions.
        OutsideError: if the hub cannot be reached.

    Example:
        >>> from llama_index.core import Settings
        >>> from rag_ft import FineTunedEmbedding
        >>> Settings.embed_model = FineTunedEmbedding.load("local")
        >>> len(Settings.embed_model.get_query_embedding("How do I claim expenses?"))
        384
    """

    query_prefix: str | None = Field(default=None, description="Text before each query; None: the model's own.")
    passage_prefix: str | None = Field(default=None, description="Text before each passage; None: the model's own.")
    max_length: int | None = Field(default=None, gt=0, description="Tokens read of a text; None: the model's own.")
    dimension: int | None = Field(default=None, gt=0, description="Numbers in a vector; None: the model's own.")
    device: str | None = Field(default=None, description="A torch device; None: the best one available.")
    devices: list[str] | None = Field(default=None, description="Several devices: a process on each for long lists.")
    backend: Literal["torch", "onnx", "openvino"] = Field(default="torch", description="What computes the vectors.")
    int8: bool = Field(default=False, description="Use the 8-bit export of the backend onnx.")
    precision: str = Field(
        default="auto", pattern="^(auto|bf16|fp32)$", description="auto: bfloat16 if the hardware supports it."
    )
    embed_batch_size: int = Field(
        default=2048, gt=0, le=2048, description="Texts embedded at once; they are sorted by length."
    )
    encode_batch_size: int | None = Field(
        default=None, gt=0, description="Texts in one forward pass; None: a number that suits the device."
    )
    weights_sha256: str | None = Field(
        default=None, description="SHA-256 of the expected weights; any others are rejected."
    )

    _model: Any = PrivateAttr(default=None)
    _contract: EmbeddingContract | None = PrivateAttr(default=None)
    _processes: Any = PrivateAttr(default=None)
    _recent: Any = PrivateAttr(default_factory=OrderedDict)
    _lock: Any = PrivateAttr(default_factory=threading.RLock)

    @model_validator(mode="after")
    def _reject_shared_cache(self) -> FineTunedEmbedding:
        if self.embeddings_cache is not None:
            raise InputError(
                "embeddings_cache mixes queries with passages and one model with another (its key is the text alone): "
                "leave it out, or use CachedEmbedding"
            )
        return self

    @model_validator(mode="after")
    def _reject_processes_of_exports(self) -> FineTunedEmbedding:
        if self.devices and self.backend != "torch":
            raise InputError(f"devices needs the backend 'torch', not {self.backend!r}: remove one of them")
        return self

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises it."""
        return "FineTunedEmbedding"

    @classmethod
    def load(
        cls,
        model: str | Path | ModelSpec,
        *,
        dimension: int | None = None,
        backend: Backend = "torch",
        int8: bool = False,
        precision: str = "auto",
        devices: list[str] | None = None,
        encode_batch_size: int | None = None,
    ) -> FineTunedEmbedding:
        """Load a model now, so that a wrong folder raises here and not at the first query.

        Args:
            model: a model folder, a hub name, or `local`; a `ModelSpec` also sets the prefixes, the maximum length and
                the device.
            dimension: cut the vectors to this many numbers.
            backend: what computes the vectors: `torch`, `onnx` or `openvino`.
            int8: use the 8-bit export of the backend `onnx`.
            precision: `auto` (bfloat16 if the hardware supports it), `bf16` or `fp32`.
            devices: several torch devices that share long lists of passages.
            encode_batch_size: number of texts in a forward pass; None chooses a number that suits the device.

        Example:
            >>> from rag_ft import FineTunedEmbedding
            >>> from rag_ft.embedding import ModelSpec
            >>> FineTunedEmbedding.load(ModelSpec(name="local", query_prefix="query: ")).query_prefix
            'query: '
        """
        settings = asdict(ModelSpec.of(model))
        embedding = cls(
            model_name=str(settings.pop("name")),
            dimension=dimension,
            backend=backend,
            int8=int8,
            precision=precision,
            devices=devices,
            encode_batch_size=encode_batch_size,
            **settings,
        )
        embedding.sentence_transformer  # noqa: B018
        return embedding

    @property
    def sentence_transformer(self) -> SentenceTransformer:
        """The model, loaded on first use."""
        if self._model is not None:
            return self._model  # without the lock, so that an event loop does not wait for a long list
        with self._lock:
            if self._model is None:
                model = self._load_model()
                full = model.get_embedding_dimension() or 0
                if self.dimension is not None and self.dimension > full:
                    raise InputError(f"dimension {self.dimension} exceeds the {full} of {self.model_name}: reduce it")
                self._check_weights()
                self.query_prefix, self.passage_prefix = model.prompts["query"], model.prompts["document"]
                self.max_length = token_limit(model) or None
                self._contract = self._make_contract(model)
                self._model = model
        return self._model

    def _load_model(self) -> SentenceTransformer:
        spec = ModelSpec(
            name=self.model_name,
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
            max_length=self.max_length,
            device=self.device,
        )
        if self.backend == "torch":
            if self.int8:
                raise InputError("int8 needs the backend 'onnx': torch computes in bfloat16 or float32")
            return spec.load()
        from rag_ft.embedding.backends import load_exported

        return load_exported(spec, self.backend, self.int8)

    def _check_weights(self) -> None:
        folder = model_folder(self.model_name)
        if self.weights_sha256 is None or folder is None:
            return
        actual = weights_sha256(folder)
        if actual != self.weights_sha256:
            raise InputError(
                f"{self.model_name} holds weights {actual[:12]} instead of {self.weights_sha256[:12]}: reload the "
                "model with FineTunedEmbedding.load and rebuild the index"
            )

    def _make_contract(self, model: SentenceTransformer) -> EmbeddingContract:
        folder = model_folder(self.model_name)
        return EmbeddingContract(
            weights_sha256=self.weights_sha256 or (weights_sha256(folder) if folder is not None else ""),
            base_model=str(self.record.get("base_model") or resolve_model(self.model_name)[1]),
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
        """What the vectors depend on; an index stores it with them."""
        self.sentence_transformer  # noqa: B018
        assert self._contract is not None
        return self._contract

    @property
    def fusion(self) -> dict[str, Any] | None:
        """How its results are fused with those of BM25, as learned on dev questions; None if it was not learned."""
        return self.record.get("fusion")

    @property
    def record(self) -> dict[str, Any]:
        """Content of the model's `rag_ft.json`; empty if rag_ft did not make the model."""
        folder = model_folder(self.model_name)
        return read_model_record(folder) if folder is not None else {}

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return plain values, prefixes included, from which `from_dict` makes the same embedding."""
        self.weights_sha256 = self.contract.weights_sha256 or None
        return super().to_dict(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the weights; the copy loads them on first use."""
        copy = self.model_copy()
        copy._model = copy._processes = copy._lock = copy._recent = None
        return super(FineTunedEmbedding, copy).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle, ready for the first use."""
        super().__setstate__(state)
        self._model = self._processes = None
        self._lock = threading.RLock()
        self._recent = OrderedDict()

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        contract = self.contract
        with self._lock:
            processes = self._started_processes(len(texts))
        # The lock is released after each window, so that a thread with one question does not wait for a long list.
        window = WINDOW_TEXTS if processes is None else len(texts)
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        embedded: list[Any] = [None] * len(texts)
        for start in range(0, len(order), max(1, window)):
            positions = order[start : start + window]
            vectors = self._encode([texts[position] for position in positions], role, processes)
            for position, vector in zip(positions, vectors.tolist(), strict=True):
                embedded[position] = MarkedVector(vector, contract)
        with self._lock:
            self._recent |= dict.fromkeys(hash(tuple(vector[:RECOGNISED_NUMBERS])) for vector in embedded)
            while len(self._recent) > MAX_RECOGNISED_VECTORS:
                self._recent.popitem(last=False)
        return embedded

    def _encode(self, texts: list[str], role: Role, processes: Any) -> Any:
        encoder: Any = partial(encode, precision=self.precision)
        if processes is not None:
            encoder = partial(encode_in_processes, processes=processes)
        prompt = "query" if role == "query" else "document"
        try:
            with self._lock:
                return encoder(self._model, texts, prompt, batch_size=self.encode_batch_size, dimension=self.dimension)
        except BaseException:
            self.close()  # otherwise the next list would get results from the processes' queues
            raise

    def recognises(self, vector: Sequence[float]) -> bool:
        """Return whether this object made a vector, among its last 200,000.

        LlamaIndex's nodes keep plain numbers, without the contract.
        """
        return hash(tuple(vector[:RECOGNISED_NUMBERS])) in self._recent

    def _started_processes(self, texts: int) -> Any:
        """Return the pool with a process on each device; None for a single device or few texts."""
        if self.devices is None or len(self.devices) < 2 or texts < (self.encode_batch_size or 32) * len(self.devices):
            return None
        if self._processes is None:
            device = self._model.device
            self._processes = self._model.start_multi_process_pool(self.devices)
            self._model.to(device)  # the pool moves the model to the CPU, where single queries would be slow
        return self._processes

    def close(self) -> None:
        """Stop the processes on several devices; a later call starts them again."""
        with self._lock:
            if self._processes is not None:
                self._model.stop_multi_process_pool(self._processes)
                self._processes = None
