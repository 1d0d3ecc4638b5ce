"""Filters on metadata: texts, numbers and lists are found, and nothing is silently not found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chromadb
import pytest
from fakes.chroma_server import chroma_server
from fakes.embeddings import Hashed
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.vector_stores.chroma import ChromaVectorStore

from rag_ft import HybridRetriever, InputError, rebuild_index, update_index
from rag_ft.files import sha256_of
from rag_ft.index.live_store import LiveChromaStore
from rag_ft.index.records import LIST_KEYS, NODE_HASH, UNFILTERABLE_KEYS

METADATA: dict[str, dict[str, Any]] = {
    "a": {"tags": ["leave", "forms"], "year": 2001, "scores": [1, 2.5], "layout": {"page": 1}, "kind": "memo"},
    "b": {"tags": ["badges"], "year": 2003.0, "scores": [3], "mixed": ["x", 1], "kind": "report"},
    "c": {"tags": "leave", "year": 2005, "flags": [True], "empty": []},
    "d": {"tags": [], "nothing": [None], "some": ["x", None]},
}


@pytest.fixture(scope="module")
def store() -> LiveChromaStore:
    nodes = [TextNode(id_=key, text=f"Text of {key}.", metadata=values) for key, values in METADATA.items()]
    return rebuild_index(nodes, MockEmbedding(embed_dim=4), chromadb.EphemeralClient(), "filters").vector_store


def test_a_server_filters_in_the_same_way(tmp_path: Path) -> None:
    nodes = [TextNode(id_=key, text=f"Text of {key}.", metadata=values) for key, values in METADATA.items()]
    whole = TextNode(id_="w", text="Text.", metadata={"scores": [4.0, 5], "flags": [True, False]})
    with chroma_server(tmp_path) as address:
        store = rebuild_index([*nodes, whole], MockEmbedding(embed_dim=4), address, "filters").vector_store
        assert ids(store, filters("tags", "==", "leave")) == "ac"
        assert ids(store, filters("scores", "contains", 2.5)) == "a"
        assert ids(store, filters("scores", "contains", 4)) == "w"
        with pytest.raises(InputError, match="'layout' cannot be filtered"):
            ids(store, filters("layout", "==", "x"))


def filters(key: str, operator: str, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=FilterOperator(operator), value=value)])


def ids(store: LiveChromaStore, wanted: MetadataFilters) -> str:
    """The nodes that filters select; all four ways of searching select the same."""
    found = sorted(node.node_id for node in store.get_nodes(filters=wanted))
    query = VectorStoreQuery(query_embedding=[0.5] * 4, similarity_top_k=10, query_str="x", filters=wanted)
    assert sorted(store.query(query).ids) == found
    assert sorted(store.nearest(query)[0]) == found
    assert sorted(store.matching_ids(wanted)) == found
    return "".join(found)


@pytest.mark.parametrize(
    ("key", "operator", "value", "found"),
    [
        ("tags", "contains", "leave", "a"),
        ("tags", "==", "leave", "ac"),
        ("tags", "!=", "leave", "bd"),
        ("tags", "in", ["leave", "badges"], "abc"),
        ("tags", "nin", ["leave", "badges"], "d"),
        ("tags", "any", ["forms", "badges"], "ab"),
        ("tags", "all", ["forms", "leave"], "a"),
        ("tags", "all", ["forms", "badges"], ""),
        ("tags", "contains", "none of them", ""),
        ("tags", "==", "none of them", ""),
        ("year", "==", 2001, "a"),
        ("year", "==", 2001.0, "a"),
        ("year", "in", [2001, 2003], "ab"),
        ("year", ">", 2002, "bc"),
        ("year", "<=", 2003, "ab"),
        ("scores", "contains", 1, "a"),
        ("scores", "contains", 2.5, "a"),
        ("scores", "contains", 3, "b"),
        ("scores", "contains", 3.0, "b"),
        ("scores", "==", 2.5, "a"),
        ("empty", "contains", "x", ""),
        ("nothing", "contains", "x", ""),
        ("some", "contains", "x", "d"),
        ("kind", "==", "memo", "a"),
        ("kind", "!=", "memo", "bcd"),
        ("kind", "in", ["memo", "report"], "ab"),
        ("absent", "==", "memo", ""),
        ("layout", "!=", "x", "abcd"),
    ],
)
def test_a_filter_finds_texts_numbers_and_lists(
    store: LiveChromaStore, key: str, operator: str, value: Any, found: str
) -> None:
    assert ids(store, filters(key, operator, value)) == found


@pytest.mark.parametrize(("operator", "value"), [("contains", "mem"), ("any", ["memo"])])
def test_a_list_operator_on_a_key_without_lists_is_warned_of(
    store: LiveChromaStore, operator: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert not ids(store, filters("kind", operator, value))
    assert "no node has a list under the metadata 'kind'" in caplog.text


@pytest.mark.parametrize(
    ("key", "operator", "value", "message"),
    [
        ("layout", "==", "x", "'layout' cannot be filtered: it holds dictionaries"),
        ("layout", "contains", "page", "'layout' cannot be filtered"),
        ("mixed", "contains", "x", "'mixed' cannot be filtered"),
        ("scores", ">", 1, "'scores' holds lists, which '>' does not compare"),
        ("kind", "text_match", "mem", "'kind' cannot be filtered with 'text_match': Chroma knows =="),
        ("kind", "is_empty", None, "'kind' cannot be filtered with 'is_empty'"),
        ("kind", ">", "a", "a number"),
        ("kind", "==", None, "a text or a number"),
        ("tags", "==", ["leave"], "use in, any or all"),
        ("tags", "in", "leave", "a list"),
        ("tags", "in", [], "a list"),
        ("$and", "==", "x", "rename the key"),
        ("", "==", "x", "rename the key"),
    ],
)
def test_a_filter_that_cannot_work_is_refused(
    store: LiveChromaStore, key: str, operator: str, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message.replace("(", ".").replace(")", ".")) as caught:
        store.get_nodes(filters=filters(key, operator, value))
    assert repr(key) in str(caught.value)
    query = VectorStoreQuery(
        query_embedding=[0.5] * 4, similarity_top_k=3, query_str="x", filters=filters(key, operator, value)
    )
    for search in (store.query, store.nearest):
        with pytest.raises(InputError):
            search(query)


def test_filters_are_joined_and_nested(store: LiveChromaStore) -> None:
    leave, early = filters("tags", "==", "leave").filters[0], filters("year", "<", 2004).filters[0]
    assert ids(store, MetadataFilters(filters=[leave, early])) == "a"
    assert ids(store, MetadataFilters(filters=[leave, early], condition=FilterCondition.OR)) == "abc"
    badges = filters("tags", "contains", "badges")
    nested = MetadataFilters(filters=[badges, MetadataFilters(filters=[leave, early])], condition=FilterCondition.OR)
    assert ids(store, nested) == "ab"
    assert ids(store, MetadataFilters(filters=[])) == "abcd"
    with pytest.raises(InputError, match="'not'"):
        ids(store, MetadataFilters(filters=[leave], condition=FilterCondition.NOT))


def test_a_filter_takes_thousands_of_values(store: LiveChromaStore) -> None:
    many = [f"tag {number}" for number in range(3000)]
    assert ids(store, filters("tags", "in", [*many, "leave"])) == "ac"
    assert ids(store, filters("tags", "nin", [*many, "leave"])) == "bd"
    assert ids(store, filters("kind", "in", [*many, "memo"])) == "a"
    assert ids(store, filters("kind", "nin", [*many, "memo"])) == "bcd"


def test_nodes_are_deleted_by_a_list() -> None:
    nodes = [TextNode(id_=key, text=key, metadata=values) for key, values in METADATA.items()]
    store = rebuild_index(nodes, MockEmbedding(embed_dim=4), chromadb.EphemeralClient(), "filters-del").vector_store
    store.delete_nodes(filters=filters("tags", "contains", "forms"))
    assert ids(store, MetadataFilters(filters=[])) == "bcd"


def test_a_list_that_changes_its_form_is_found_in_the_new_one() -> None:
    client, model = chromadb.EphemeralClient(), MockEmbedding(embed_dim=4)
    forms: list[tuple[Any, str]] = [(["x"], "contains"), ("x", "=="), (["x", "y"], "all"), ([1], "contains")]
    rebuild_index([TextNode(id_="n", text="Leave.", metadata={"tags": []})], model, client, "forms")
    for value, operator in forms:
        node = TextNode(id_="n", text="Leave.", metadata={"tags": value})
        store = update_index([node], model, client, "forms").vector_store
        wanted: Any = {"contains": value[0], "==": value, "all": value}[operator]
        assert ids(store, filters("tags", operator, wanted)) == "n"
        assert store.get_nodes()[0].metadata == {"tags": value}


def test_the_hybrid_filters_by_lists() -> None:
    nodes = [TextNode(id_=key, text=f"Leave of {key}.", metadata=values) for key, values in METADATA.items()]
    index = rebuild_index(nodes, Hashed(model_name="hashed"), chromadb.EphemeralClient(), "filters-hybrid")
    retriever = HybridRetriever(index, filters=filters("tags", "contains", "leave"))
    assert [result.node_id for result in retriever.retrieve("leave")] == ["a"]
    with pytest.raises(InputError, match="'layout' cannot be filtered"):
        HybridRetriever(index, filters=filters("layout", "==", "x")).retrieve("leave")


def test_llama_index_reads_the_records_and_hashes_of_plain_nodes_did_not_change() -> None:
    client, model = chromadb.EphemeralClient(), MockEmbedding(embed_dim=4)
    nodes = [TextNode(id_=key, text=f"Text of {key}.", metadata=values) for key, values in METADATA.items()]
    plain = TextNode(id_="plain", text="Text.", metadata={"title": "T", "year": 2001, "none": None})
    collection = rebuild_index([*nodes, plain], model, client, "readable").vector_store.client
    index = VectorStoreIndex.from_vector_store(ChromaVectorStore(collection), embed_model=model)
    found = {result.node_id: result.node for result in index.as_retriever(similarity_top_k=9).retrieve("x")}
    assert {key: node.metadata for key, node in found.items()} == METADATA | {"plain": plain.metadata}
    assert found["a"].get_content() == "Text of a."
    (record,) = collection.get(ids=["plain"])["metadatas"]
    flat = {key: value for key, value in record.items() if not key.startswith("rag_ft_")}
    assert record[NODE_HASH] == sha256_of(json.dumps(flat, sort_keys=True, ensure_ascii=False), "Text.")[:20]
    assert not {LIST_KEYS, UNFILTERABLE_KEYS} & record.keys()
