"""The Chroma-backed index: cosine, one collection for each model, no stale vectors; and a LlamaIndex app on it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import chromadb
import numpy as np
import pytest
from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from rag_ft import FineTunedEmbedding, InputError, build_index, open_index

TEXTS = {
    "claims": "A Kittiwake is an expenses claim and is filed within thirty days.",
    "leave": "Leave is booked in HELM, two weeks before it begins.",
    "badges": "Visitors wear a badge and are met at the gate.",
}


@pytest.fixture(scope="module")
def embedding() -> FineTunedEmbedding:
    return FineTunedEmbedding.load("local")


def nodes() -> list[TextNode]:
    return [TextNode(id_=key, text=text, metadata={"area": key}) for key, text in TEXTS.items()]


@pytest.fixture(params=["embedded", "server"])
def chroma(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An embedded folder, and a real Chroma server."""
    if request.param == "embedded":
        yield str(tmp_path / "chroma")
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = "import sys; from chromadb.cli.cli import app; sys.exit(app())"
    command = [sys.executable, "-c", program, "run", "--path", str(tmp_path / "server"), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def test_an_index_is_built_opened_and_asked(chroma: str, embedding: FineTunedEmbedding) -> None:
    built = build_index(nodes(), embedding, chroma, "acme")
    opened = open_index(embedding, chroma, "acme")
    for index in (built, opened):
        found = index.as_retriever(similarity_top_k=1).retrieve("How do I get my money back for a claim?")
        assert [node.node_id for node in found] == ["claims"]


def test_metadata_and_filters_work(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    index = build_index(nodes(), embedding, tmp_path / "chroma")
    filters = MetadataFilters(filters=[MetadataFilter(key="area", value="leave")])
    found = index.as_retriever(filters=filters).retrieve("expenses claim")
    assert [node.metadata["area"] for node in found] == ["leave"]


def test_the_space_is_cosine_and_the_contract_stands_beside_the_vectors(
    tmp_path: Path, embedding: FineTunedEmbedding
) -> None:
    build_index(nodes(), embedding, tmp_path / "chroma", "acme")
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    (collection,) = client.list_collections()
    assert collection.configuration["hnsw"]["space"] == "cosine"
    assert collection.metadata["rag_ft_weights_sha256"] == embedding.contract.weights_sha256
    assert collection.count() == len(TEXTS)


def test_two_models_have_two_collections(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    other = FineTunedEmbedding.load("local", passage_prefix="passage: ")
    build_index(nodes(), embedding, tmp_path / "chroma", "acme")
    build_index(nodes(), other, tmp_path / "chroma", "acme")
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    assert len(client.list_collections()) == 2


def test_an_index_of_another_model_is_not_opened(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    build_index(nodes(), embedding, tmp_path / "chroma", "acme")
    other = FineTunedEmbedding.load("local", passage_prefix="passage: ")
    with pytest.raises(InputError, match="rag-ft index"):
        open_index(other, tmp_path / "chroma", "acme")


def test_vectors_that_nodes_carry_are_not_used(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    stale = nodes()
    for node in stale:
        node.embedding = [0.0] * 383 + [1.0]
    build_index(stale, embedding, tmp_path / "chroma", "acme")
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    (collection,) = client.list_collections()
    stored = collection.get(ids=None, include=["embeddings"])["embeddings"]
    assert np.abs(np.asarray(stored)[:, :383]).max() > 0.01
    assert stale[0].embedding == [0.0] * 383 + [1.0], "the nodes themselves are not changed"


def test_an_existing_app_changes_one_line(tmp_path: Path) -> None:
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.txt").write_text(text)

    Settings.llm = MockLLM()
    Settings.embed_model = FineTunedEmbedding.load("local")  # the one line
    try:
        documents = SimpleDirectoryReader(str(tmp_path)).load_data()
        index = VectorStoreIndex.from_documents(documents)
        engine = index.as_query_engine(similarity_top_k=1)
        response = engine.query("How do I claim expenses?")
    finally:
        Settings.llm = None
        Settings.embed_model = None
    assert "Kittiwake" in response.source_nodes[0].text
    assert "Kittiwake" in str(response)


def test_settings_embed_model_is_the_default(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    Settings.embed_model = embedding
    try:
        index = build_index(nodes(), chroma=tmp_path / "chroma")
    finally:
        Settings.embed_model = None
    assert len(index.as_retriever(similarity_top_k=2).retrieve("leave")) == 2


def test_no_node_is_an_error(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    with pytest.raises(InputError, match="no node"):
        build_index([], embedding, tmp_path / "chroma")
