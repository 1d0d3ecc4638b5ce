"""What two sides must agree on before vectors may be compared: the embedding contract."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError
from rag_ft.files import read_json, sha256_of, write_json

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

FILE = "rag_ft.json"

ALIKE, ALIKE_INT8 = 0.999, 0.98
"""Cosine of vectors that one model made of one text, in other batches or another precision; of two models that were
tuned apart it is mostly less. In 8 bits a vector depends on the batch that it is made in."""


class ContractError(InputError):
    """Vectors of one model would meet those of another.

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
    """The embedding contract, kept in the model folder and beside the vectors.

    Attributes:
        weights_sha256: SHA-256 over the weight files.
        base_model: what the model was tuned from, or its own name; compared only where the weights are not known, as
            behind an API.
        query_prefix: put before a query.
        passage_prefix: put before a passage.
        dimension: length of a vector.
        normalize: whether vectors have length 1.
        max_length: tokens that are read of a text; the rest is cut.
        distance: the space of the index.
        pooling: how the tokens' vectors become one: `mean`, `cls`, ...; empty where the model does not say.
        form: `int8-onnx` or `int8-openvino` where 8 bits compute the vectors. Questions of such a form are asked of
            passages of another; passages of two forms do not stand in one index.
        adapter: hash of an adapter that changes queries and passages alike; empty of one that changes queries alone,
            whose questions are asked of the passages of the embedding below it.
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
        """The contract as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EmbeddingContract:
        """A contract from plain values; unknown keys are left alone."""
        names = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

    @property
    def passage_fingerprint(self) -> str:
        """A hash of all that a passage's vector depends on."""
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
        """A hash of all of it."""
        return sha256_of(self.passage_fingerprint, self.query_prefix, self.distance)

    def differences(self, other: EmbeddingContract, passages: bool = False) -> list[str]:
        """What the two do not agree on, each as `name this one's value and the other's`.

        Args:
            other: the contract to compare with.
            passages: whether both make passages of one index, and not one of them its questions.

        Example:
            >>> from rag_ft.embedding.contract import EmbeddingContract
            >>> index = EmbeddingContract("ab12", "bge", "query: ", "", 384, True, 256)
            >>> model = EmbeddingContract("ab12", "bge", "", "", 384, True, 256)
            >>> index.differences(model)
            ["query_prefix 'query: ' and ''"]
        """
        found = []
        for field in fields(self):
            if field.name == "form" and not passages:
                continue
            if field.name == "base_model" and (self.weights_sha256 or other.weights_sha256):
                continue
            one, two = getattr(self, field.name), getattr(other, field.name)
            if field.name in ("weights_sha256", "adapter"):
                one, two = one[:12], two[:12]
            if one != two:
                found.append(f"{field.name} {one!r} and {two!r}")
        return found


def contract_of(model: BaseEmbedding, dimension: int | None = None) -> EmbeddingContract:
    """The embedding contract of a LlamaIndex embedding: its own where it has one, else what can be known of it.

    Args:
        model: any.
        dimension: length of its vectors, where it is known; else the model is asked for one.

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


def keep_in_record(folder: Path, name: str, value: Any) -> None:
    """Write one entry of a model folder's `rag_ft.json` anew; what the vectors depend on is not among them."""
    write_json(Path(folder) / FILE, read_model_record(folder) | {name: value})


def read_model_record(folder: Path) -> dict[str, Any]:
    """The content of a model folder's `rag_ft.json`; empty where there is none.

    Raises:
        InputError: where the file is there and is no JSON object.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return {}
    record = read_json(file)
    if not isinstance(record, dict):
        raise InputError(f"{file} is not a JSON object: mend it, or remove it to use the model without a contract")
    return record


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the safetensors of a model folder, in the order of their names.

    Raises:
        InputError: where there are none.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*.safetensors") if "checkpoint-" not in str(path.relative_to(folder)))
    if not files:
        raise InputError(f"{folder} holds no .safetensors file: it is no model folder, or its weights are missing")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
