"""The nodes that an app really has, in the index: empty ones, half characters, numpy, and files that are read again."""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from fakes.embeddings import Hashed
from llama_index.core import Document, MockEmbedding, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter
from llama_index.core.schema import BaseNode, ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from rag_ft import FineTunedEmbedding, HybridRetriever, InputError, open_index, rebuild_index, update_index
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.index import nodes_from_chroma
from rag_ft.index.removal import _in_batches
from rag_ft.index.writing import CollectionWriter
from rag_ft.retrieval import BM25Retriever

HALF = "\ud835"
BROKEN = f"The {HALF} valve is closed by hand."
CLEAN = "The \ufffd valve is closed by hand."
LEAVE = TextNode(id_="leave", text="Leave is booked in HELM.")
NO_TEXT = [
    TextNode(id_="empty", text=""),
    TextNode(id_="blank", text=" \n\u200b"),
    ImageNode(id_="image", image_path="a.png"),
]


class Strict(Hashed):
    """Refuses half characters, as tokenizers and servers do."""

    def _get_text_embedding(self, text: str) -> list[float]:
        text.encode()
        return super()._get_text_embedding(text)


@pytest.fixture
def model() -> Strict:
    return Strict(model_name="strict")


@pytest.fixture(scope="module")
def fine_tuned() -> FineTunedEmbedding:
    return FineTunedEmbedding.load("local")


def texts(index: VectorStoreIndex) -> dict[str, str]:
    return {node.node_id: node.get_content() for node in index.vector_store.get_nodes()}


def test_nodes_without_text_are_in_no_index(tmp_path: Path, model: Strict, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        index = rebuild_index([*NO_TEXT, LEAVE], model, tmp_path, "acme")
    assert "3 of 4 nodes have no text and are left out (the first: 'empty')" in caplog.messages
    assert texts(index) == {"leave": LEAVE.text}
    caplog.clear()
    updated = update_index([LEAVE, NO_TEXT[0]], model, tmp_path, "acme")
    updated.insert_nodes(NO_TEXT)
    asyncio.run(updated.ainsert_nodes(NO_TEXT[:1]))
    updated.insert(Document(text=""))
    assert texts(updated) == {"leave": LEAVE.text}
    assert caplog.messages.count("1 of 2 nodes has no text and is left out (the first: 'empty')") == 1
    assert [result.node_id for result in updated.as_retriever(similarity_top_k=3).retrieve("asdf")] == ["leave"]
    again = nodes_from_chroma(f"chroma:{tmp_path}:acme")
    assert [node.node_id for node in again] == ["leave"]


def test_only_nodes_without_text_are_an_error(tmp_path: Path, model: Strict) -> None:
    class Store(SimpleVectorStore):
        stores_text: bool = True

    with pytest.raises(InputError, match="no nodes to index"):
        rebuild_index(NO_TEXT, model, tmp_path, "acme")
    with pytest.raises(InputError, match="no nodes to index"):
        rebuild_index(NO_TEXT, model, vector_store=Store())
    index = rebuild_index([LEAVE], model, tmp_path, "acme")
    with pytest.raises(InputError, match="no nodes to index"):
        update_index(NO_TEXT, model, tmp_path, "acme")
    assert texts(index) == {"leave": LEAVE.text}
    store = Store()
    rebuild_index([*NO_TEXT, LEAVE, TextNode(id_="broken", text=BROKEN)], model, vector_store=store)
    assert set(store.data.embedding_dict) == {"leave", "broken"}


def test_an_index_with_empty_entries_is_a_source(
    tmp_path: Path, model: Strict, caplog: pytest.LogCaptureFixture
) -> None:
    index = rebuild_index([LEAVE], model, tmp_path, "acme")
    collection = index.vector_store.client  # as earlier versions left it
    vector = model.get_text_embedding("a: 1")
    collection.add(ids=["blank", "none"], embeddings=[vector] * 2, documents=[" ", ""], metadatas=[{"a": 1}] * 2)
    with caplog.at_level(logging.WARNING):
        assert [node.node_id for node in nodes_from_chroma(f"chroma:{tmp_path}:acme")] == ["leave"]
    assert caplog.messages == ["2 of 3 nodes have no text and are left out (the first: 'blank')"]
    assert texts(update_index([LEAVE], model, tmp_path, "acme")) == {"leave": LEAVE.text}


@pytest.mark.parametrize("kind", ["strict", "fine-tuned", "hugging face"])
def test_half_characters_are_cleaned_everywhere(
    tmp_path: Path, kind: str, model: Strict, fine_tuned: FineTunedEmbedding
) -> None:
    embedding: BaseEmbedding = model
    if kind == "fine-tuned":
        embedding = fine_tuned
    if kind == "hugging face":
        folder = tmp_path / "model"
        load_sentence_transformer("local").save(str(folder))
        embedding = HuggingFaceEmbedding(str(folder))
    broken = TextNode(id_="broken", text=BROKEN, metadata={"title": HALF, HALF: "key"})
    index = rebuild_index([LEAVE, broken], embedding, tmp_path / "chroma", "acme")
    update_index([LEAVE, broken], embedding, tmp_path / "chroma", "acme")
    index.insert_nodes([TextNode(id_="inserted", text=BROKEN)])
    asyncio.run(index.ainsert_nodes([TextNode(id_="later", text=BROKEN)]))
    index.insert(Document(id_="document", text=BROKEN, metadata={"year": np.int64(2001)}))
    found = texts(index)
    assert sorted(found.values()) == sorted([LEAVE.text, *[CLEAN] * 4])
    assert index.vector_store.get_nodes(["broken"])[0].metadata == {"title": "\ufffd", "\ufffd": "key"}
    question = f"Which {HALF} valve is closed by hand?"
    for retriever in (index.as_retriever(similarity_top_k=5), HybridRetriever(index), BM25Retriever(nodes_of(index))):
        results = [retriever.retrieve(question), asyncio.run(retriever.aretrieve(question))]
        assert all(CLEAN in {result.text for result in each} for each in results)
    own = VectorStoreIndex.from_vector_store(index.vector_store, embed_model=embedding)
    if kind == "fine-tuned":
        own.insert_nodes([TextNode(id_="own", text=BROKEN)])
        assert own.as_retriever(similarity_top_k=9).retrieve(question)[0].text == CLEAN
    assert broken.text == BROKEN


def nodes_of(index: VectorStoreIndex) -> list[BaseNode]:
    return index.vector_store.get_nodes()


def changes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the updates say that they did."""
    found = [message.partition(" in ")[0] for message in caplog.messages if "vectors reused" in message]
    caplog.clear()
    return found


def test_metadata_of_numpy_and_dates_is_indexed_as_plain_values(
    tmp_path: Path, model: Strict, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = {"year": np.int64(2001), "day": date(2024, 5, 1), "score": float("nan"), "file": Path("a/b")}
    plain = {"year": 2001, "day": "2024-05-01", "score": None, "file": "a/b"}
    node = TextNode(id_="n", text="Leave.", metadata=metadata)
    index = rebuild_index([node], model, tmp_path, "acme")
    assert index.vector_store.get_nodes()[0].metadata == plain
    with caplog.at_level(logging.INFO, logger="rag_ft"):
        update_index([TextNode(id_="n", text="Leave.", metadata=plain)], model, tmp_path, "acme")
    assert changes(caplog) == ["0 passages embedded, 0 vectors reused, 1 unchanged, 0 deleted"]
    inserted = TextNode(id_="m", text="Leave.", metadata=metadata)
    index.insert_nodes([inserted])
    VectorStoreIndex.from_vector_store(index.vector_store, embed_model=model).insert_nodes(
        [inserted.model_copy(update={"id_": "o"})]
    )
    IngestionPipeline(transformations=[model], vector_store=index.vector_store, disable_cache=True).run(
        nodes=[inserted.model_copy(update={"id_": "p"})]
    )
    rows = index.vector_store.client.get(include=["embeddings"])
    assert sorted(rows["ids"]) == ["m", "n", "o", "p"]
    np.testing.assert_allclose(rows["embeddings"], [rows["embeddings"][0]] * 4, err_msg="one text has one vector")
    with pytest.raises(InputError, match="metadata 'raw' of node 'x' is binary data"):
        index.insert_nodes([TextNode(id_="x", text="Leave.", metadata={"raw": b"x"})])


def test_image_and_index_nodes_keep_their_ids_when_others_are_left_out(tmp_path: Path, model: Strict) -> None:
    index = rebuild_index([LEAVE], model, tmp_path, "acme")
    image = ImageNode(id_="i", text="A valve.", image_path="valve.png")
    table = IndexNode(id_="t", text="A table of valves.", index_id="table", obj=TextNode(id_="rows", text="Rows."))
    engine = IndexNode(id_="e", text="A query engine.", index_id="engine", obj=object())
    for target in (index, VectorStoreIndex.from_vector_store(index.vector_store, embed_model=model)):
        target.insert_nodes([NO_TEXT[0], image, NO_TEXT[1], table, engine.model_copy()])
        struct = target.index_struct.nodes_dict
        assert {key: struct.get(key) for key in "ite"} == {"i": "i", "t": "t", "e": "e"}
        assert set(texts(target)) == {"leave", "i", "t", "e"}
    (stored,) = index.vector_store.get_nodes(["i"])
    assert (type(stored), stored.image_path) == (ImageNode, "valve.png")
    rebuilt = rebuild_index([image, table, engine], model, tmp_path, "acme")
    again = {node.node_id: node for node in rebuilt.vector_store.get_nodes()}
    assert (again["t"].index_id, again["t"].obj.text) == ("table", "Rows.")
    assert (again["e"].index_id, again["e"].obj) == ("engine", None)


class NotStored(TextNode):
    handle: Any = None


def test_a_node_of_a_class_that_is_no_json_is_named(tmp_path: Path, model: Strict) -> None:
    with pytest.raises(InputError, match=r"node 'n' cannot be stored as JSON.*NotStored"):
        rebuild_index([NotStored(id_="n", text="Leave.", handle=object())], model, tmp_path, "acme")


def write_files(folder: Path, files: dict[str, str]) -> list[BaseNode]:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    documents = SimpleDirectoryReader(folder).load_data()
    return SentenceSplitter(chunk_size=64, chunk_overlap=0)(documents)


FILES = {name: " ".join(f"Rule {number} of {name} is signed." for number in range(30)) for name in ("a.txt", "b.txt")}


def test_a_document_that_is_read_again_replaces_its_texts(
    tmp_path: Path, model: Strict, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rag_ft")
    first = write_files(tmp_path / "docs", FILES)
    index = rebuild_index(first, model, tmp_path / "chroma", "acme")
    count = len(texts(index))
    changes(caplog)
    update_index(write_files(tmp_path / "docs", FILES), model, tmp_path / "chroma", "acme", delete_missing=False)
    assert changes(caplog) == [f"0 passages embedded, {count} vectors reused, 0 unchanged, {count} deleted"]
    assert len(texts(index)) == count
    assert not set(texts(index)) & {node.node_id for node in first}, "other ids"
    changed = [node for node in write_files(tmp_path / "docs", FILES | {"a.txt": "Nothing is signed."})
               if node.metadata["file_name"] == "a.txt"]  # fmt: skip
    update_index(changed, model, tmp_path / "chroma", "acme", delete_missing=False)
    assert changes(caplog)[0].startswith("1 passages embedded, 0 vectors reused, 0 unchanged")
    found = texts(index).values()
    assert [text for text in found if "b.txt" not in text] == ["Nothing is signed."]
    assert len(found) == 1 + sum("b.txt" in node.get_content() for node in first)


def test_pages_of_a_file_are_one_document(tmp_path: Path, model: Strict) -> None:
    def pages(version: str, count: int) -> list[Document]:
        return [Document(text=f"Page {n} of {version}.", metadata={"file_name": "h.pdf", "page_label": str(n)})
                for n in range(count)]  # fmt: skip

    index = rebuild_index([*pages("one", 3), LEAVE], model, tmp_path, "acme")
    update_index(pages("two", 2), model, tmp_path, "acme", delete_missing=False)
    assert sorted(texts(index).values()) == [LEAVE.text, "Page 0 of two.", "Page 1 of two."]


def named(text: str, **metadata: Any) -> TextNode:
    return TextNode(text=text, metadata=metadata)


def of_document(text: str, document: str, **metadata: Any) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(text=text, metadata=metadata, relationships=source)


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        ([named("old", file_path="/x/a.md", file_name="a.md")], [named("new", file_path="/x/a.md")], []),
        # The same name in another folder is another document.
        ([named("old", file_path="/y/a.md", file_name="a.md")], [named("new", file_name="a.md")], ["old"]),
        ([named("old", url="https://a.example/1")], [named("new", url="https://a.example/1")], []),
        ([named("old", url="https://a.example/1")], [named("new", url="https://a.example/2")], ["old"]),
        ([named("old", source="docs/a.md")], [named("new", source="docs/a.md")], []),
        ([named("old", source="wiki")], [named("new", source="wiki")], ["old"]),
        ([named("old")], [named("new")], ["old"]),
        ([of_document("old", "d")], [of_document("new", "d")], []),
        ([of_document("old", "d")], [of_document("new", "e")], ["old"]),
        ([of_document("old", "d", file_path="/x/a.md")], [of_document("new", "d", file_path="/x/b.md")], []),
        ([named("old", url=5)], [named("new", url=5)], []),
        ([named("old", file_path=Path("/x/a.md"))], [named("new", file_path="/x/a.md")], []),
        ([named("old", file_path="/x/  a.md")], [named("new", file_path="/x/  a.md")], []),
        ([named("old", file_path="/x/a.md" + "b" * 5000)], [named("new", file_path="/x/a.md" + "b" * 5000)], []),
        ([named("old", file_path=f"/x/{HALF}.md")], [named("new", file_path=f"/x/{HALF}.md")], []),
        # A file that has no text any more.
        ([named("old", file_path="/x/a.md")], [named("", file_path="/x/a.md"), named("new", file_path="/x/b.md")], []),
    ],
)
def test_old_texts_of_the_same_document_are_deleted(
    model: Strict, before: list[TextNode], now: list[TextNode], kept: list[str]
) -> None:
    client = chromadb.EphemeralClient()
    index = rebuild_index([*before, LEAVE], model, client, "documents")
    update_index(now, model, client, "documents", delete_missing=False)
    assert sorted(texts(index).values()) == sorted([LEAVE.text, "new", *kept])


def test_hierarchical_nodes_are_replaced_with_their_parents(tmp_path: Path, model: Strict) -> None:
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 64], chunk_overlap=0)

    def cut(version: str) -> list[BaseNode]:
        text = " ".join(f"Rule {number} of {version} is signed." for number in range(60))
        return parser.get_nodes_from_documents([Document(text=text, metadata={"file_name": "rules.md"})])

    index = rebuild_index([*cut("one"), LEAVE], model, tmp_path, "acme")
    now = cut("two")
    update_index(now, model, tmp_path, "acme", delete_missing=False)
    assert set(texts(index)) == {node.node_id for node in now} | {"leave"}


def test_many_documents_are_found_in_several_requests(
    tmp_path: Path, model: Strict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nodes(version: str) -> list[TextNode]:
        return [named(f"{version} {n}", file_path=f"/a/folder/with/a/long/name/{n}.md") for n in range(500)]

    written = []
    delete = CollectionWriter.delete
    monkeypatch.setattr(CollectionWriter, "delete", lambda self, ids: written.append(len(ids)) or delete(self, ids))
    index = rebuild_index([*nodes("one"), LEAVE], model, tmp_path, "acme")
    update_index(nodes("two"), model, tmp_path, "acme", delete_missing=False)
    assert written == [500]
    assert sorted(texts(index).values()) == sorted([LEAVE.text, *(f"two {n}" for n in range(500))])
    batches = list(_in_batches(["x" * 1000] * 7))
    assert [len(batch) for batch in batches] == [3, 3, 1]


def test_an_index_of_an_earlier_version_is_not_rewritten(
    tmp_path: Path, model: Strict, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [LEAVE, TextNode(id_="b", text="Badges.", metadata={"title": "T", "year": 2001})]
    index = rebuild_index(nodes, model, tmp_path, "acme")
    before = index.vector_store.client.get(include=["metadatas", "documents"])
    with caplog.at_level(logging.INFO, logger="rag_ft"):
        update_index(nodes, model, tmp_path, "acme")
    assert index.vector_store.client.get(include=["metadatas", "documents"]) == before
    assert changes(caplog) == ["0 passages embedded, 0 vectors reused, 2 unchanged, 0 deleted"]
    assert texts(open_index(model, tmp_path, "acme")) == {"leave": LEAVE.text, "b": "Badges."}


def test_a_failed_template_is_named(tmp_path: Path) -> None:
    node = TextNode(id_="n", text="Leave.", metadata={"a": 1}, text_template="{body}")
    with pytest.raises(InputError, match="templates of node 'n' fail"):
        rebuild_index([node], MockEmbedding(embed_dim=4), tmp_path, "acme")
