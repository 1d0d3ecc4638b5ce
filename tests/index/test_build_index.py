"""The Chroma-backed index: rebuilds and swaps, one model per index, and LlamaIndex on top of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import chromadb
import numpy as np
import pytest
from fakes.chroma_server import chroma_server, token_proxy
from llama_index.core import Document, MockEmbedding, Settings, SimpleDirectoryReader, StorageContext, VectorStoreIndex
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import TransformQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore, VectorStoreQuery
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.vector_stores.chroma import ChromaVectorStore

from rag_ft import ContractError, FineTunedEmbedding, InputError, OutsideError, open_index, rebuild_index, update_index
from rag_ft.embedding import ModelSpec
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.embedding.saving import save_model
from rag_ft.index import LiveChromaStore, nodes_from_chroma, prune_index, rollback_index
from rag_ft.index.chroma import open_chroma
from rag_ft.index.lock import HELD_TOKENS, BuildLock, build_lock
from rag_ft.index.pointer import read_pointer

TEXTS = {
    "claims": "A Kittiwake is an expenses claim and is filed within thirty days.",
    "leave": "Leave is booked in HELM, two weeks before it begins.",
    "badges": "Visitors wear a badge and are met at the gate.",
}
QUESTION = "How do I get my money back for a claim?"


class CountingEmbedding(FineTunedEmbedding):
    """Records the passages that it embeds."""

    asked: ClassVar[list[str]] = []

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.asked.extend(texts)
        return super()._get_text_embeddings(texts)


@pytest.fixture(scope="module")
def embedding() -> FineTunedEmbedding:
    return FineTunedEmbedding.load("local")


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a query prefix."""
    folder = tmp_path_factory.mktemp("models") / "prefixed"
    save_model(load_sentence_transformer("local", query_prefix="question: "), folder, "local")
    return folder


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the same dimension with other weights."""
    folder = tmp_path_factory.mktemp("models") / "other"
    model = load_sentence_transformer("local")
    for name, weight in model.named_parameters():
        if "layer.5" in name:
            weight.data.mul_(1.05)
    save_model(model, folder, "local")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chroma_server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(params=["embedded", "server"])
def chroma(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A Chroma folder, and a real Chroma server."""
    return str(tmp_path / "chroma") if request.param == "embedded" else str(request.getfixturevalue("server"))


def nodes(texts: dict[str, str] = TEXTS) -> list[TextNode]:
    return [TextNode(id_=key, text=text, metadata={"area": key}) for key, text in texts.items()]


def first(index: VectorStoreIndex, question: str = QUESTION) -> str:
    return index.as_retriever(similarity_top_k=1).retrieve(question)[0].node_id


def content(where: str | Path, name: str) -> dict[str, tuple[str, str]]:
    client = open_chroma(where)
    pointer = read_pointer(client, name)
    assert pointer is not None
    assert pointer.current is not None
    found = client.get_collection(pointer.current).get(include=["documents", "metadatas"])
    return {
        key: (str(text), str(sorted((metadata or {}).items())))
        for key, text, metadata in zip(found["ids"], found["documents"] or [], found["metadatas"] or [], strict=True)
    }


def test_an_index_is_built_opened_and_searched(chroma: str, embedding: FineTunedEmbedding) -> None:
    built = rebuild_index(nodes(), embedding, chroma, "asked")
    opened = open_index(embedding, chroma, "asked")
    for index in (built, opened):
        assert first(index) == "claims"
        found = asyncio.run(index.as_retriever(similarity_top_k=1).aretrieve(QUESTION))
        assert found[0].node_id == "claims"


def test_open_indexes_follow_a_rebuild_and_it_can_be_rolled_back(chroma: str, embedding: FineTunedEmbedding) -> None:
    reader = rebuild_index(nodes(), embedding, chroma, "swapped")
    before = content(chroma, "swapped")
    rebuild_index(nodes({"claims": "Claims are paid in May.", "new": "A Kittiwake is a bird."}), embedding, chroma,
                  "swapped")  # fmt: skip
    reader.vector_store._live.expire()  # a second later
    assert first(reader, "Which bird is a Kittiwake?") == "new"
    with pytest.raises(InputError, match="no earlier version"):
        rollback_index(chroma, _only_one(chroma, embedding))
    rollback_index(chroma, "swapped")
    assert content(chroma, "swapped") == before
    rollback_index(chroma, "swapped")
    assert set(content(chroma, "swapped")) == {"claims", "new"}


def _only_one(chroma: str, embedding: FineTunedEmbedding) -> str:
    rebuild_index(nodes(), embedding, chroma, "only-one")
    return "only-one"


def test_prune_deletes_old_collections_and_readers_find_the_new_one(chroma: str, embedding: FineTunedEmbedding) -> None:
    reader = rebuild_index(nodes(), embedding, chroma, "pruned")
    rebuild_index(nodes({"new": "A Kittiwake is a bird."}), embedding, chroma, "pruned")
    assert prune_index(chroma, "pruned") == [], "somebody may still read it"
    (gone,) = prune_index(chroma, "pruned", min_age=0)
    assert gone not in {each.name for each in open_chroma(chroma).list_collections()}
    assert first(reader) == "new"


def test_only_new_texts_are_embedded(chroma: str) -> None:
    counting = CountingEmbedding.load("local")
    rebuild_index(nodes(), counting, chroma, "incremental")
    changed = TEXTS | {"leave": "Leave is booked in a new tool.", "gate": "The gate is shut at night."}
    del changed["badges"]
    counting.asked.clear()
    update_index(nodes(changed), counting, chroma, "incremental")
    assert [text.split("\n\n")[-1] for text in counting.asked] == [changed["leave"], changed["gate"]]
    counting.asked.clear()
    rebuild_index(nodes(changed), counting, chroma, "at-once")
    counting.asked.clear()
    rebuild_index(nodes(changed), counting, chroma, "incremental")
    assert counting.asked == []
    assert content(chroma, "incremental") == content(chroma, "at-once")


def test_nodes_with_new_ids_and_old_texts_keep_their_vectors(tmp_path: Path) -> None:
    counting = CountingEmbedding.load("local")
    rebuild_index(nodes(), counting, tmp_path, "acme")
    counting.asked.clear()
    cut_again = [TextNode(text=text, metadata={"area": key}) for key, text in TEXTS.items()]
    index = update_index(cut_again, counting, tmp_path, "acme")
    assert counting.asked == []
    assert index.vector_store.client.count() == 3
    assert first(index) == cut_again[0].node_id


def test_an_update_of_some_documents_leaves_the_others_alone(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    splitter = SentenceSplitter(chunk_size=16, chunk_overlap=0)
    documents = [Document(id_=key, text=f"{text} {text}") for key, text in TEXTS.items()]
    rebuild_index(splitter(documents), embedding, tmp_path, "acme")
    before = len(content(tmp_path, "acme"))
    index = update_index(
        splitter([Document(id_="leave", text="Leave is free.")]), embedding, tmp_path, "acme", delete_missing=False
    )
    assert 0 < len(content(tmp_path, "acme")) < before
    found = index.as_retriever(similarity_top_k=20).retrieve("leave")
    assert [node.text for node in found if node.node.ref_doc_id == "leave"] == ["Leave is free."]
    assert {node.node.ref_doc_id for node in found} == set(TEXTS)


def test_the_contract_is_stored_beside_the_vectors(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index(nodes(), embedding, tmp_path / "chroma", "acme")
    collection = index.vector_store.client
    assert collection.configuration["hnsw"]["space"] == "cosine"
    assert collection.metadata["rag_ft_weights_sha256"] == embedding.contract.weights_sha256
    assert collection.metadata["rag_ft_pooling"] == "mean"
    assert index.vector_store.contract == embedding.contract
    assert collection.count() == len(TEXTS)


def test_a_model_without_its_query_prefix_is_refused(tmp_path: Path, prefixed: Path) -> None:
    index = rebuild_index(nodes(), FineTunedEmbedding.load(prefixed), tmp_path, "acme")
    # What plain LlamaIndex does with the folder: the prefix is lost, and nothing says so.
    plain = HuggingFaceEmbedding(str(prefixed), device="cpu")
    theirs = VectorStoreIndex.from_vector_store(ChromaVectorStore(index.vector_store.client), embed_model=plain)
    assert theirs.as_retriever(similarity_top_k=1).retrieve(QUESTION)
    without = FineTunedEmbedding.load(ModelSpec(name=prefixed, query_prefix=""))
    with pytest.raises(ContractError, match=r"query_prefix 'question: ' and ''.*Load the model with query_prefix"):
        open_index(without, tmp_path, "acme")
    for embed_model in (without, plain):
        with pytest.raises(ContractError, match=r"query_prefix|the query vectors"):
            index.as_retriever(embed_model=embed_model).retrieve(QUESTION)


def test_another_model_is_refused_at_opening_insert_and_query(
    tmp_path: Path, embedding: FineTunedEmbedding, other_weights: Path
) -> None:
    index = rebuild_index(nodes(), embedding, tmp_path, "acme")
    other = FineTunedEmbedding.load(other_weights)
    # Plain LlamaIndex: another model of the same dimension asks and inserts, and nothing says so.
    plain = VectorStoreIndex.from_vector_store(ChromaVectorStore(index.vector_store.client), embed_model=other)
    assert plain.as_retriever().retrieve(QUESTION)
    for act in (
        lambda: open_index(other, tmp_path, "acme"),
        lambda: update_index(nodes(), other, tmp_path, "acme"),
        lambda: VectorStoreIndex.from_vector_store(index.vector_store, embed_model=other).insert_nodes(nodes()),
        lambda: index.as_retriever(embed_model=other).retrieve(QUESTION),
        lambda: asyncio.run(index.as_retriever(embed_model=other).aretrieve(QUESTION)),
        lambda: index.as_retriever().retrieve(QueryBundle(QUESTION, embedding=other.get_query_embedding(QUESTION))),
    ):
        with pytest.raises(ContractError, match=r"weights_sha256|the inserted vectors"):
            act()
    assert index.vector_store.client.count() == 3


def test_a_rebuild_with_another_model_takes_over_the_name(
    tmp_path: Path, embedding: FineTunedEmbedding, other_weights: Path
) -> None:
    reader = rebuild_index(nodes(), embedding, tmp_path, "acme")
    counting = CountingEmbedding.load(other_weights)
    counting.asked.clear()
    other = rebuild_index(nodes(), counting, tmp_path, "acme")
    assert len(counting.asked) == 3, "the same nodes under two models share nothing"
    assert first(other) == "claims"
    reader.vector_store._live.expire()
    assert first(reader) == "claims", "it has the model of before, and the passages of before are still there"
    prune_index(tmp_path, "acme", min_age=0)
    reader.vector_store._live.expire()
    for _ in range(2):
        with pytest.raises(ContractError, match="rebuild it"):
            first(reader)


def test_vectors_in_nodes_are_not_used(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    stale = nodes()
    for node in stale:
        node.embedding = [0.0] * 383 + [1.0]
    # Plain LlamaIndex keeps them.
    plain = VectorStoreIndex(stale, embed_model=embedding)
    assert plain.vector_store.data.embedding_dict["claims"][383] == 1.0
    index = rebuild_index(stale, embedding, tmp_path / "chroma", "acme")
    stored = index.vector_store.client.get(include=["embeddings"])["embeddings"]
    assert np.abs(np.asarray(stored)[:, :383]).max() > 0.01
    assert stale[0].embedding == [0.0] * 383 + [1.0], "the nodes themselves are not changed"
    with pytest.raises(ContractError, match="differ from the vectors"):
        index.insert_nodes(stale)


def test_llama_index_features_work_on_the_index(chroma: str, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index(nodes(), embedding, chroma, "native")
    index.insert_nodes([TextNode(id_="gulls", text="Gulls steal sandwiches.", metadata={"area": "birds"})])
    assert first(index, "What do gulls take?") == "gulls"
    filters = MetadataFilters(filters=[MetadataFilter(key="area", value="birds")])
    found = index.as_retriever(filters=filters).retrieve("expenses claim")
    assert [node.metadata["area"] for node in found] == ["birds"]
    mmr = index.as_retriever(vector_store_query_mode="mmr", similarity_top_k=2).retrieve(QUESTION)
    assert len(mmr) == 2
    fusion = QueryFusionRetriever([index.as_retriever()], num_queries=1, llm=MockLLM())
    assert fusion.retrieve(QUESTION)[0].node_id == "claims"
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=1)
    assert "Kittiwake" in str(engine.query("What is a Kittiwake?"))
    hyde = TransformQueryEngine(engine, HyDEQueryTransform(llm=MockLLM(), include_original=True))
    assert hyde.query("What is a Kittiwake?").source_nodes
    index.delete_nodes(["gulls"])
    index.vector_store.delete_nodes(["leave"])
    assert {node.node_id for node in index.vector_store.get_nodes(None)} == {"claims", "badges"}


def test_an_ingestion_pipeline_writes_into_the_index(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index(nodes(), embedding, tmp_path, "acme")
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), embedding], vector_store=index.vector_store
    )
    pipeline.run(documents=[Document(text="Gulls steal sandwiches.")])
    pipeline.run(documents=[Document(text="Gulls steal sandwiches.")])  # from its cache, without a mark
    assert index.as_retriever(similarity_top_k=1).retrieve("What do gulls take?")[0].text == "Gulls steal sandwiches."
    storage = StorageContext.from_defaults(vector_store=index.vector_store)
    again = VectorStoreIndex(nodes(), storage_context=storage, embed_model=embedding)
    assert first(again) == "claims"


def test_nested_metadata_is_kept(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    node = TextNode(id_="claims", text=TEXTS["claims"], metadata={"tags": ["a", "b"], "page": 3, "by": None})
    index = rebuild_index([node], embedding, tmp_path, "acme")
    found = index.as_retriever().retrieve(QUESTION)[0]
    assert found.metadata == {"tags": ["a", "b"], "page": 3, "by": None}
    filters = MetadataFilters(filters=[MetadataFilter(key="page", value=3)])
    assert index.as_retriever(filters=filters).retrieve(QUESTION)


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
        rebuild_index(nodes(), chroma=tmp_path / "chroma")
        index = open_index(chroma=tmp_path / "chroma")
    finally:
        Settings.embed_model = None
    assert len(index.as_retriever(similarity_top_k=2).retrieve("leave")) == 2


def test_any_embedding_can_be_indexed(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index(nodes(), MockEmbedding(embed_dim=8), tmp_path, "mock")
    assert len(index.as_retriever(similarity_top_k=3).retrieve("leave")) == 3
    with pytest.raises(ContractError, match=r"base_model|dimension"):
        open_index(embedding, tmp_path, "mock")


def test_another_vector_store_can_be_given(embedding: FineTunedEmbedding) -> None:
    class Store(SimpleVectorStore):
        stores_text: bool = True

    with pytest.raises(InputError, match="does not store texts"):
        rebuild_index(nodes(), embedding, vector_store=SimpleVectorStore())
    store = Store()
    rebuild_index(nodes(), embedding, vector_store=store)
    assert set(store.data.embedding_dict) == set(TEXTS)


def test_an_existing_collection_is_a_source(chroma: str, embedding: FineTunedEmbedding, tmp_path: Path) -> None:
    client = open_chroma(chroma)
    store = ChromaVectorStore(client.create_collection("legacy", embedding_function=None))
    old = [TextNode(id_=key, text=text, metadata={"area": key}) for key, text in TEXTS.items()]
    VectorStoreIndex(
        old, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=MockEmbedding(embed_dim=8)
    )
    plain = client.create_collection("plain", embedding_function=None)
    plain.add(ids=["a"], documents=["Gulls steal sandwiches."], metadatas=[{"bird": True}], embeddings=[[0.0, 1.0]])
    source = nodes_from_chroma(f"chroma:{chroma}:legacy")
    index = rebuild_index(source, embedding, tmp_path / "new", "acme")
    assert len(source) == 3
    assert first(index) == "claims"
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].metadata == {"area": "claims"}
    assert store.client.count() == 3
    birds = rebuild_index(nodes_from_chroma(f"chroma:{chroma}:plain"), embedding, tmp_path / "new", "birds")
    assert birds.as_retriever().retrieve("gulls")[0].metadata == {"bird": True}
    again = nodes_from_chroma(f"chroma:{tmp_path / 'new'}:acme")
    assert {node.node_id for node in again} == set(TEXTS)
    client.delete_collection("legacy")
    client.delete_collection("plain")


@pytest.mark.parametrize("source", ["chroma:nowhere", "chroma:http://127.0.0.1", "chroma::x"])
def test_a_source_without_a_collection_is_an_error(source: str) -> None:
    with pytest.raises(InputError, match="PATH_OR_URL:COLLECTION"):
        nodes_from_chroma(source)


def test_a_missing_source_is_an_error(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    rebuild_index(nodes(), embedding, tmp_path, "acme")
    with pytest.raises(InputError, match=r"no collection other \(collections: acme-"):
        nodes_from_chroma(f"chroma:{tmp_path}:other")
    with pytest.raises(InputError, match="does not exist"):
        nodes_from_chroma(f"chroma:{tmp_path / 'none'}:other")


def test_a_missing_index_is_an_error_that_lists_the_others(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    rebuild_index(nodes(), embedding, tmp_path, "acme")
    with pytest.raises(InputError, match=r"no index other \(indexes: acme\)"):
        open_index(embedding, tmp_path, "other")
    for act in (rollback_index, prune_index, lambda *place: update_index(nodes(), embedding, *place)):
        with pytest.raises(InputError, match="no index other"):
            act(tmp_path, "other")
    assert not [each for each in open_chroma(tmp_path).list_collections() if each.name.startswith("other")]
    with pytest.raises(InputError, match="no index other"):
        LiveChromaStore("other", open_chroma(tmp_path))


def test_an_empty_build_is_an_error_and_keeps_the_old_index(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    with pytest.raises(InputError, match="no node"):
        rebuild_index([], embedding, tmp_path)
    rebuild_index(nodes(), embedding, tmp_path)
    with pytest.raises(InputError, match="no node"):
        rebuild_index(iter([]), embedding, tmp_path)
    assert first(open_index(embedding, tmp_path)) == "claims"


def test_two_nodes_of_one_id_are_an_error(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    twice = [*nodes(), TextNode(id_="leave", text="Leave is free.")]
    with pytest.raises(InputError, match="two nodes have the id 'leave'"):
        rebuild_index(twice, embedding, tmp_path)
    same = [*nodes(), *nodes()]
    assert rebuild_index(same, embedding, tmp_path).vector_store.client.count() == 3


def test_one_builder_at_a_time(chroma: str, embedding: FineTunedEmbedding) -> None:
    with build_lock(open_chroma(chroma), "locked"), pytest.raises(OutsideError, match="another process is building"):
        rebuild_index(nodes(), embedding, chroma, "locked")
    assert first(rebuild_index(nodes(), embedding, chroma, "locked")) == "claims"


def test_a_failed_embedding_keeps_the_old_index_and_the_next_build_continues(
    chroma: str, embedding: FineTunedEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_ft.index.fill.WINDOW", 2)
    reader = rebuild_index(nodes(), embedding, chroma, "failing")

    class Failing(CountingEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            if any("fails" in text for text in texts):
                raise RuntimeError("out of credit sk-abcdef1234567890abcd")
            return super()._get_text_embeddings(texts)

    failing = Failing.load(ModelSpec(name="local", passage_prefix="passage: "))
    texts = TEXTS | {"last": "This one fails."}
    with pytest.raises(OutsideError, match=r"failed \(out of credit \*\*\*"):
        rebuild_index([TextNode(id_=key, text=text) for key, text in texts.items()], failing, chroma, "failing")
    assert first(reader) == "claims"
    counting = CountingEmbedding.load(ModelSpec(name="local", passage_prefix="passage: "))
    counting.asked.clear()
    texts["last"] = "This one works."
    rebuild_index([TextNode(id_=key, text=text) for key, text in texts.items()], counting, chroma, "failing")
    assert len(counting.asked) == 2, "the first window of the build before is not embedded again"
    assert set(content(chroma, "failing")) == set(texts)
    collections = [each.name for each in open_chroma(chroma).list_collections() if each.name.startswith("failing-")]
    assert len(collections) == 2


def test_readers_never_see_an_error_while_it_is_rebuilt(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    reader = rebuild_index(nodes(), embedding, tmp_path, "acme").as_retriever(similarity_top_k=2)
    seen: list[int] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.append(len(reader.retrieve(QUESTION)))
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(4):
            rebuild_index(nodes(TEXTS | {"n": f"Notice {number}."}), embedding, tmp_path, "acme")
            prune_index(tmp_path, "acme", min_age=0)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert set(seen) == {2}


def test_a_server_behind_a_proxy_takes_the_token_from_the_environment(
    server: str, embedding: FineTunedEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    with token_proxy(server, "a-secret-token-1234") as address:
        with pytest.raises(OutsideError, match="check the key") as refused:
            open_chroma(address)
        assert "a-secret-token-1234" not in str(refused.value)
        monkeypatch.setenv("CHROMA_AUTH_TOKEN", "a-secret-token-1234")
        assert first(rebuild_index(nodes(), embedding, address, "gated")) == "claims"


def test_tenant_and_database_follow_the_address(server: str, embedding: FineTunedEmbedding) -> None:
    host, port = server.removeprefix("http://").split(":")
    admin = chromadb.HttpClient(host=host, port=int(port))
    admin._admin_client.create_database("second")
    rebuild_index(nodes(), embedding, f"{server}/default_tenant/second", "acme")
    with pytest.raises(InputError, match="no index acme"):
        open_index(embedding, server, "acme")


def test_the_cloud_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMA_API_KEY", raising=False)
    with pytest.raises(InputError, match="set CHROMA_API_KEY"):
        open_chroma("cloud:acme/docs")
    with pytest.raises(InputError, match="TENANT/DATABASE"):
        open_chroma("cloud:acme")


def test_an_update_with_no_node_deletes_nothing(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    rebuild_index(nodes(), embedding, tmp_path, "acme")
    with pytest.raises(InputError, match="no node"):
        update_index(iter([]), embedding, tmp_path, "acme")
    assert set(content(tmp_path, "acme")) == set(TEXTS)


class Renamed(MockEmbedding):
    """Stands for an API that serves other weights under the same name."""

    turned: float = 0.0

    def _get_text_embedding(self, text: str) -> list[float]:
        return [1.0, self.turned * len(text), *([0.5] * 6)]


def test_other_weights_under_one_name_are_detected(tmp_path: Path) -> None:
    before, after = Renamed(embed_dim=8), Renamed(embed_dim=8, turned=1.0)
    rebuild_index(nodes(), before, tmp_path, "acme")
    for act in (update_index, lambda *given: open_index(*given[1:])):
        with pytest.raises(ContractError, match="differ from the vectors"):
            act(nodes(), after, tmp_path, "acme")
    index = rebuild_index(nodes(), after, tmp_path, "acme")
    stored = np.asarray(index.vector_store.client.get(include=["embeddings"])["embeddings"])
    assert (stored[:, 1] > 1).all(), "no vector of before was taken"


def test_a_lock_of_an_earlier_process_with_the_same_number_is_dead(
    tmp_path: Path, embedding: FineTunedEmbedding
) -> None:
    client = open_chroma(tmp_path)
    lock = BuildLock(client, "acme")
    lock.acquire()
    lock._released.set()
    HELD_TOKENS.clear()  # as it is when a container has started again
    assert first(rebuild_index(nodes(), embedding, tmp_path, "acme")) == "claims"
    assert not lock.is_held()
    assert not [each for each in client.list_collections() if ".lock-" in each.name]


def test_collections_of_others_are_left_alone(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    open_chroma(tmp_path).create_collection("acme-1718035200-1", embedding_function=None)
    rebuild_index(nodes(), embedding, tmp_path, "acme")
    prune_index(tmp_path, "acme", min_age=0)
    assert open_chroma(tmp_path).get_collection("acme-1718035200-1").count() == 0


def test_removed_metadata_is_deleted(chroma: str, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index([TextNode(id_="a", text="Public.", metadata={"public": True})], embedding, chroma, "gone")
    index.insert_nodes([TextNode(id_="a", text="Public.", metadata={"secret": True})])
    assert not index.vector_store.client.get(where={"public": True})["ids"]
    update_index([TextNode(id_="a", text="Public.", metadata={})], embedding, chroma, "gone")
    assert not index.vector_store.client.get(where={"secret": True})["ids"]


def test_nodes_are_deleted_by_metadata_and_all_together(chroma: str, embedding: FineTunedEmbedding) -> None:
    store = rebuild_index(nodes(), embedding, chroma, "deleted").vector_store
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="area", value="leave")]))
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="area", value="nothing")]))
    assert store.client.count() == 2
    store.clear()
    store.clear()
    assert store.client.count() == 0


def test_a_collection_that_lost_its_contract_is_refused(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index(nodes(), embedding, tmp_path, "acme")
    index.vector_store.client.modify(metadata={"mine": True})
    with pytest.raises(ContractError, match="has no contract"):
        open_index(embedding, tmp_path, "acme")


def test_an_unknown_vector_without_its_text_is_refused(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index(nodes(), embedding, tmp_path, "acme")
    unknown = VectorStoreQuery(query_embedding=[0.1] * 384, similarity_top_k=1)
    with pytest.raises(ContractError, match="without the query's text"):
        index.vector_store.query(unknown)
    known = VectorStoreQuery(query_embedding=list(embedding.get_query_embedding(QUESTION)), similarity_top_k=1)
    assert index.vector_store.query(known).ids == ["claims"]


def test_a_stale_vector_is_found_among_many_fresh_ones(tmp_path: Path, embedding: FineTunedEmbedding) -> None:
    index = rebuild_index(nodes(), embedding, tmp_path, "acme")
    many = [TextNode(text=f"Notice {number} about the gate.") for number in range(30)]
    many[23].embedding = [0.05] * 384
    with pytest.raises(ContractError, match="differ from the vectors"):
        index.insert_nodes(many)
    many[23].embedding = None
    index.insert_nodes(many)
    assert index.vector_store.client.count() == 33


def test_a_repeated_text_is_embedded_once(tmp_path: Path) -> None:
    counting = CountingEmbedding.load("local")
    repeated = [TextNode(id_=f"r{n}", text="The footer of every page.") for n in range(40)]
    single = [TextNode(id_=f"s{n}", text=f"Page {n}.") for n in range(5)]
    counting.asked.clear()
    rebuild_index([*repeated, *single], counting, tmp_path, "acme")
    assert len(counting.asked) == 6
    counting.asked.clear()
    again = [TextNode(text=node.text) for node in [*repeated, *single]]
    rebuild_index(again, counting, tmp_path, "acme")
    assert counting.asked == []
    rebuild_index(again, counting, tmp_path, "acme", reuse=False)
    assert len(counting.asked) == 6
