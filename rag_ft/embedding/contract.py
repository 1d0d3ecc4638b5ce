"""The embedding contract: what a model and an index must agree on before their vectors may be compared."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.errors import InputError
from rag_ft.files import read_json, sha256_of, write_json

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import ArrayLike

RECORD_FILE = "rag_ft.json"

MIN_SAME_MODEL_COSINE, MIN_SAME_MODEL_COSINE_INT8 = 0.999, 0.98
"""Minimum cosine between two vectors of one text that the same model made in different batches or precisions.

Two separately tuned models mostly stay below it. In 8 bits a vector depends on the batch that it is computed in.
"""


class ContractError(InputError):
    """Vectors of different models, or of different settings, would be mixed.

    Example:
        >>> import chromadb
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import open_index, rebuild_index
        >>> client, nodes = chromadb.EphemeralClient(), [TextNode(text="Leave is booked in HELM.")]
        >>> _ = rebuild_index(nodes, MockEmbedding(embed_dim=8), client, "contract-example")
        >>> open_index(MockEmbedding(embed_dim=4), client, "contract-example")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        rag_ft.embedding.contract.ContractError: ...they differ in dimension 8 and 4...
    """


@dataclass(frozen=True)
class EmbeddingContract:
    """Everything that vectors depend on, stored in the model folder and beside the vectors.

    Attributes:
        weights_sha256: SHA-256 over the weight files.
        base_model: the model it was tuned from, or its own name. It is compared only if the weights are unknown, as
            with an API.
        query_prefix: text put before each query.
        passage_prefix: text put before each passage.
        dimension: numbers in a vector.
        normalize: whether vectors have length 1.
        max_length: number of tokens that the model reads of a text; the rest is cut off.
        distance: distance function of the index.
        pooling: how token vectors become one vector (`mean`, `cls`, ...); empty if the model does not say.
        form: `int8-onnx` if the vectors are computed in 8 bits (0.1.0 also wrote `int8-openvino`), otherwise empty. A
            query of one form may search passages of another, but passages of two forms may not share an index.
        adapter: SHA-256 of an adapter that maps queries and passages; empty for an adapter that maps queries only,
            since its queries search the passages of the underlying embedding.
    """

    weights_sha256: str
    base_model: str
    query_prefix: str
    passage_prefix: str
    dimension: int
    normalize: bool
    max_length: int
    distance: str = "cosine"
    pooling: str = ""
    form: str = ""
    adapter: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EmbeddingContract:
        """Build a contract from plain values; unknown keys are ignored."""
        names = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

    @property
    def passage_fingerprint(self) -> str:
        """Hash of everything that a passage's vector depends on."""
        return sha256_of(
            self.weights_sha256 or self.base_model,
            self.passage_prefix,
            str(self.dimension),
            str(self.normalize),
            str(self.max_length),
            self.pooling,
            self.form,
            *([self.adapter] if self.adapter else []),
        )

    @property
    def fingerprint(self) -> str:
        """Hash of the whole contract."""
        return sha256_of(self.passage_fingerprint, self.query_prefix, self.distance)

    def differences(self, other: EmbeddingContract, passages: bool = False) -> list[str]:
        """List the fields that differ, each as `NAME OWN_VALUE and OTHER_VALUE`.

        Args:
            other: the contract to compare with.
            passages: True to compare two sources of passages for one index; False to compare passages with queries.

        Example:
            >>> from rag_ft.embedding.contract import EmbeddingContract
            >>> index = EmbeddingContract("ab12", "bge", "query: ", "", 384, True, 256)
            >>> model = EmbeddingContract("ab12", "bge", "", "", 384, True, 256)
            >>> index.differences(model)
            ["query_prefix 'query: ' and ''"]
        """
        differences = []
        for field in fields(self):
            if field.name == "form" and not passages:
                continue
            if field.name == "base_model" and (self.weights_sha256 or other.weights_sha256):
                continue
            own, others = getattr(self, field.name), getattr(other, field.name)
            if field.name in ("weights_sha256", "adapter"):
                own, others = own[:12], others[:12]
            if own != others:
                differences.append(f"{field.name} {own!r} and {others!r}")
        return differences


def contract_of(model: BaseEmbedding, dimension: int | None = None) -> EmbeddingContract:
    """Return the contract of a LlamaIndex embedding: its own, or one made from its attributes.

    Args:
        model: any LlamaIndex embedding.
        dimension: numbers in its vectors; if None, the model embeds a text to find out.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft.embedding.contract import contract_of
        >>> contract_of(MockEmbedding(embed_dim=8)).dimension
        8
    """
    contract = getattr(model, "contract", None)
    if isinstance(contract, EmbeddingContract):
        return contract
    return EmbeddingContract(
        weights_sha256="",
        base_model=f"{model.class_name()} {model.model_name}",
        query_prefix=getattr(model, "query_instruction", None) or "",
        passage_prefix=getattr(model, "text_instruction", None) or "",
        dimension=dimension or len(model.get_text_embedding("dimension")),
        normalize=False,
        max_length=int(getattr(model, "max_length", None) or 0),
    )


def min_cosine(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return the smallest cosine between rows at the same position; None if the two shapes differ.

    Args:
        first: vectors, shape (texts, dimension).
        second: vectors of the same texts.

    Example:
        >>> from rag_ft.embedding.contract import min_cosine
        >>> min_cosine([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]]), min_cosine([[1.0]], [[1.0, 0.0]])
        (1.0, None)
    """
    a, b = np.asarray(first, dtype=np.float32), np.asarray(second, dtype=np.float32)
    if a.shape != b.shape:
        return None
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


def write_record_entry(folder: Path, name: str, value: Any) -> None:
    """Replace one entry of a model folder's `rag_ft.json`. Do not use it for entries that the vectors depend on."""
    write_json(Path(folder) / RECORD_FILE, read_model_record(folder) | {name: value})


def read_model_record(folder: Path) -> dict[str, Any]:
    """Read a model folder's `rag_ft.json`; empty if there is none.

    Raises:
        InputError: if the file exists and is not a JSON object.
    """
    file = Path(folder) / RECORD_FILE
    if not file.is_file():
        return {}
    record = read_json(file)
    if not isinstance(record, dict):
        raise InputError(f"{file} is not a JSON object: fix it, or remove it to use the model without a contract")
    return record


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 over the safetensors files of a model folder, in the order of their names.

    Raises:
        InputError: if there are none.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*.safetensors") if "checkpoint-" not in str(path.relative_to(folder)))
    if not files:
        raise InputError(f"{folder} holds no .safetensors file: it is not a model folder, or its weights are missing")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
