"""Load the documents, questions, settings and models that options name."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rag_ft.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode, TextNode

    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.embedding.request_sender import RequestPolicy
    from rag_ft.evaluation.runs.candidates import Candidate


def cut_documents(documents: Path, chunk_size: int, chunk_overlap: int) -> list[TextNode]:
    """Read a folder of documents and split them into nodes."""
    from rag_ft.documents.nodes import cut_into_nodes
    from rag_ft.documents.reader import read_documents

    return cut_into_nodes(read_documents(documents), chunk_size, chunk_overlap)


def source_nodes(source: str, chunk_size: int, chunk_overlap: int) -> Iterable[BaseNode]:
    """Return the nodes of a folder of documents, of a dataset, or of an existing Chroma collection."""
    from rag_ft.dataset.formats.load import is_dataset, load_dataset
    from rag_ft.documents.nodes import DocumentNodes
    from rag_ft.index.nodes import nodes_from_chroma, nodes_from_texts

    if source.startswith("chroma:"):
        return nodes_from_chroma(source)
    path = Path(source)
    if is_dataset(path):
        dataset = load_dataset(path)
        documents = {key: passage.document for key, passage in dataset.passages.items()}
        return nodes_from_texts(dataset.passage_texts, documents)
    return DocumentNodes(path, chunk_size, chunk_overlap)


def real_questions(file: Path | None, field: list[str] | None) -> list[Any]:
    """Read the questions of `--questions`."""
    from rag_ft.dataset.formats.real_questions import read_questions

    return read_questions(file, fields=named_fields(field)) if file is not None else []


def recipe_settings(items: list[str] | None) -> dict[str, Any]:
    """Parse `--set` into setting -> value. Values are JSON; strings need no quotes."""
    from rag_ft.training.recipe import check_settings

    settings: dict[str, Any] = {}
    for item in items or ():
        name, equals, text = item.partition("=")
        if not equals or name == "seed":
            raise InputError(f"--set {item!r}: use SETTING=VALUE, such as --set warmup=0.05 (the seed is --seed)")
        try:
            value = json.loads(text.lower() if text in ("True", "False") else text)
        except ValueError:
            value = text
        settings[name] = tuple(value) if isinstance(value, list) else value
    check_settings(settings)
    return settings


def named_fields(field: list[str] | None) -> dict[str, str] | None:
    """Parse `--field` into field -> column name."""
    for item in field or ():
        if "=" not in item:
            raise InputError(f"--field {item!r}: use FIELD=COLUMN, such as --field query=frage")
    return dict(item.split("=", 1) for item in field) if field else None


def approval(max_cost: float) -> Callable[[Any], bool]:
    """Return a function that approves an estimate up to a cost, and above it asks the user at the terminal."""

    def approve(estimate: Any) -> bool:
        if estimate.dollars is None or estimate.dollars <= max_cost:
            return True
        if not sys.stdin.isatty():
            raise InputError(f"{estimate} is above --max-cost {max_cost:g}: raise it, or lower --max-passages")
        return typer.confirm(f"{estimate}: continue?", err=True)

    return approve


def request_policy(max_cost: float, requests_per_minute: float | None = None, batch: bool = False) -> RequestPolicy:
    """Return how texts are sent to an embedding server, with the cost that needs no confirmation."""
    from rag_ft.embedding.request_sender import RequestPolicy

    return RequestPolicy(requests_per_minute=requests_per_minute, approve=approval(max_cost), batch=batch)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a command loads the models that it names.

    Attributes:
        device: a torch device; the best one available if None.
        max_length: maximum number of tokens of a passage; the model's own if None.
        url: the server for openai:NAME.
        request_policy: how texts are sent to this server.
    """

    device: str | None = None
    max_length: int | None = None
    url: str | None = None
    request_policy: RequestPolicy | None = None

    def embedding(self, name: str, min_length: int = 0) -> BaseEmbedding:
        """Load an embedding. For a fair comparison, raise its maximum length to `min_length` if it supports that."""
        from rag_ft.embedding.adapter import is_adapter
        from rag_ft.embedding.fine_tuned import FineTunedEmbedding
        from rag_ft.embedding.loading import longest_input
        from rag_ft.embedding.model_spec import ModelSpec
        from rag_ft.embedding.openai_api import is_openai_name
        from rag_ft.embedding.resolve_embedding import embedding_by_name

        spec = ModelSpec(name=name, device=self.device, max_length=self.max_length)
        if is_openai_name(name) or is_adapter(name):
            return embedding_by_name(spec, url=self.url, request_policy=self.request_policy)
        embedding = FineTunedEmbedding.load(spec)
        own_length = embedding.max_length or 0
        length = min(min_length, longest_input(embedding.sentence_transformer) or own_length)
        if self.max_length is None and length > own_length:
            logging.getLogger("rag_ft").info(
                "%s reads up to %d tokens, as the candidate does (default %d)", name, length, own_length
            )
            embedding = FineTunedEmbedding.load(ModelSpec(name=name, device=self.device, max_length=length))
        return embedding

    def candidate(self, name: str, min_length: int = 0) -> Candidate:
        """Load a candidate of `compare`: an embedding, `bm25`, or `hybrid:` and an embedding."""
        from rag_ft.evaluation.runs.candidates import Hybrid

        if name == "bm25":
            return "bm25"
        prefix, _, model = name.partition(":")
        if prefix != "hybrid":
            return self.embedding(name, min_length)
        if not model:
            raise InputError(f"{name!r} names no model: use hybrid:MODEL, such as hybrid:local")
        return Hybrid(self.embedding(model, min_length))


def approve_vectors(candidates: Iterable[Candidate], dataset: QADataset, splits: Iterable[str]) -> None:
    """Ask the user to approve the cost of a comparison, once for each model behind an API.

    Raises:
        InputError: if the user does not approve.
    """
    from rag_ft.embedding.cached import CachedEmbedding

    queries = [dataset.queries[query].text for name in splits for query in dataset.qrels.get(name, {})]
    approved: set[str] = set()
    for candidate in candidates:
        model: Any = candidate
        while not isinstance(model, CachedEmbedding) and hasattr(model, "embed_model"):
            model = model.embed_model  # the embedding in a hybrid or an adapter
        if isinstance(model, CachedEmbedding) and model.model_name not in approved:
            approved.add(model.model_name)
            model.vectors.approve(queries, list(dataset.passage_texts.values()))
