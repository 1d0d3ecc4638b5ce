"""What the options name: documents, questions, models."""

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
    from rag_ft.embedding.client import RequestPolicy
    from rag_ft.evaluation.runs.candidates import Candidate


def cut_documents(documents: Path, chunk_size: int, chunk_overlap: int) -> list[TextNode]:
    from rag_ft.documents.nodes import cut_into_nodes
    from rag_ft.documents.reader import read_documents

    return cut_into_nodes(read_documents(documents), chunk_size, chunk_overlap)


def source_nodes(source: str, chunk_size: int, chunk_overlap: int) -> Iterable[BaseNode]:
    """Nodes of a folder of documents, of a dataset, or of a Chroma collection that an app has."""
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
    from rag_ft.generation.real_questions import read_questions

    return read_questions(file, fields=named_fields(field)) if file is not None else []


def recipe_settings(given: list[str] | None) -> dict[str, Any]:
    """What `--set` says: a setting of the recipe -> its value, as JSON writes it; a name needs no quotes."""
    from rag_ft.training.recipe import check_settings

    found: dict[str, Any] = {}
    for item in given or ():
        name, equals, text = item.partition("=")
        if not equals or name == "seed":
            raise InputError(f"--set {item!r}: give a setting of the recipe, like --set warmup=0.05 (a seed is --seed)")
        try:
            value = json.loads(text.lower() if text in ("True", "False") else text)
        except ValueError:
            value = text
        found[name] = tuple(value) if isinstance(value, list) else value
    check_settings(found)
    return found


def named_fields(field: list[str] | None) -> dict[str, str] | None:
    """What `--field` says: what a column holds -> its name."""
    for item in field or ():
        if "=" not in item:
            raise InputError(f"--field {item!r}: give what the column holds and its name, like --field query=frage")
    return dict(item.split("=", 1) for item in field) if field else None


def approval(max_cost: float) -> Callable[[Any], bool]:
    """Whether an LLM may be asked: yes up to a cost, above it a person at the terminal says so."""

    def approve(estimate: Any) -> bool:
        if estimate.dollars is None or estimate.dollars <= max_cost:
            return True
        if not sys.stdin.isatty():
            raise InputError(f"{estimate} is above --max-cost {max_cost:g}: give a higher one, or fewer --max-passages")
        return typer.confirm(f"{estimate}: go on?", err=True)

    return approve


def request_policy(max_cost: float, requests_per_minute: float | None = None, batch: bool = False) -> RequestPolicy:
    """How texts go to an embedding's server, and up to which cost nobody is asked."""
    from rag_ft.embedding.client import RequestPolicy

    return RequestPolicy(requests_per_minute=requests_per_minute, approve=approval(max_cost), batch=batch)


@dataclass(frozen=True)
class Server:
    """Where vectors of openai:NAME come from."""

    url: str | None = None
    request_policy: RequestPolicy | None = None


def embedding_of(
    name: str, device: str | None, max_length: int | None, at_least: int = 0, server: Server | None = None
) -> BaseEmbedding:
    """The embedding of a name on the command line; one that may read further does so, to be compared fairly."""
    from rag_ft.embedding.adapter import is_adapter
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.loading import longest_input
    from rag_ft.embedding.openai_api import is_openai_name
    from rag_ft.embedding.resolve_embedding import embedding_by_name

    if is_openai_name(name) or is_adapter(name):
        server = server or Server()
        return embedding_by_name(
            name, url=server.url, request_policy=server.request_policy, device=device, max_length=max_length
        )
    embedding = FineTunedEmbedding.load(name, device=device, max_length=max_length)
    own = embedding.max_length or 0
    reach = min(at_least, longest_input(embedding.sentence_transformer) or own)
    if max_length is None and reach > own:
        logging.getLogger("rag_ft").info(
            "%s reads %d tokens here, as the candidate does (its own: %d)", name, reach, own
        )
        embedding = FineTunedEmbedding.load(name, device=device, max_length=reach)
    return embedding


def candidate_of(
    name: str, device: str | None, max_length: int | None, at_least: int = 0, server: Server | None = None
) -> Candidate:
    """What `compare` can search with: an embedding, `bm25`, or `hybrid:` and an embedding."""
    from rag_ft.evaluation.runs.candidates import Hybrid

    if name == "bm25":
        return "bm25"
    kind, _, model = name.partition(":")
    if kind == "hybrid" and not model:
        raise InputError(f"{name!r} names no model: give hybrid:MODEL, like hybrid:local")
    if kind == "hybrid":
        return Hybrid(embedding_of(model, device, max_length, at_least, server))
    return embedding_of(name, device, max_length, at_least, server)


def approve_vectors(candidates: Iterable[Candidate], dataset: QADataset, splits: Iterable[str]) -> None:
    """Have whoever pays agree to what a comparison takes, once for each model behind an API.

    Raises:
        InputError: where they do not.
    """
    from rag_ft.embedding.cached import CachedEmbedding

    queries = [dataset.queries[query].text for name in splits for query in dataset.qrels.get(name, {})]
    asked: set[str] = set()
    for candidate in candidates:
        model: Any = candidate
        while not isinstance(model, CachedEmbedding) and hasattr(model, "embed_model"):
            model = model.embed_model  # of a hybrid, or an adapter
        if isinstance(model, CachedEmbedding) and model.model_name not in asked:
            asked.add(model.model_name)
            model.vectors.approve(queries, list(dataset.passage_texts.values()))
