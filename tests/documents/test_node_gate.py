"""The gate that all nodes pass: which ones exist, their clean text, and their plain metadata."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import uuid
from collections import deque
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import chromadb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document, MockEmbedding
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from pydantic import AnyUrl, BaseModel

from rag_ft import InputError, rebuild_index
from rag_ft.documents import passages_from_nodes
from rag_ft.documents.node_gate import admit, admitted, embedded_text
from rag_ft.index import prune_index

HALF = "\ud835"


class Colour(Enum):
    RED = "red"


class Layout(BaseModel):
    box: tuple[float, float] = (0.5, 1.5)
    seen: datetime.date = datetime.date(2024, 5, 1)


@dataclasses.dataclass
class Page:
    number: Any = dataclasses.field(default_factory=lambda: np.int64(3))


@pytest.mark.parametrize(
    "node",
    [
        TextNode(text=""),
        TextNode(text=" \n\t\u00a0"),
        TextNode(text="\u200b\ufeff\x00"),
        TextNode(text="", metadata={"title": "Leave"}),
        ImageNode(image_path="a.png", metadata={"file_path": "a.png"}),
        Node(image_resource=MediaResource(data=b"x")),
        Node(text_resource=MediaResource(text=None, data=b"x")),
        Document(text=""),
        IndexNode(text="  ", index_id="x"),
    ],
)
def test_a_node_without_text_is_left_out(node: BaseNode) -> None:
    assert admit(node) is None


@pytest.mark.parametrize(
    "node",
    [
        TextNode(text="年"),
        Document(text="Leave", metadata={"a": [1, {"b": None}]}),
        ImageNode(text="A valve.", image_path="a.png"),
        IndexNode(text="A table.", index_id="t", obj=TextNode(text="rows")),
        Node(text_resource=MediaResource(text="Leave")),
    ],
)
def test_a_clean_node_is_not_copied(node: BaseNode) -> None:
    assert admit(node) is node


@pytest.mark.parametrize(
    "make",
    [
        lambda text: TextNode(id_="n", text=text),
        lambda text: Document(id_="n", text=text),
        lambda text: ImageNode(id_="n", text=text, image_path="a.png"),
        lambda text: IndexNode(id_="n", text=text, index_id="t", obj={"rows": 3}),
        lambda text: Node(id_="n", text_resource=MediaResource(text=text, url="https://a.example/")),
    ],
)
def test_texts_are_cleaned_in_a_copy_of_the_same_class(make: Any) -> None:
    node = make(f"The {HALF} valve\x00")
    before = node.__dict__ | {}
    kept = admit(node)
    assert kept is not None
    assert type(kept) is type(node)
    assert kept.get_content(metadata_mode=MetadataMode.NONE) == "The \ufffd valve"
    assert node.__dict__ == before
    assert admit(kept) is kept
    if isinstance(kept, Node) and not isinstance(kept, Document):
        assert str(kept.text_resource.url) == "https://a.example/"
    if isinstance(kept, IndexNode):
        assert (kept.index_id, kept.obj) == ("t", {"rows": 3})


def test_two_halves_that_make_a_pair_are_a_character() -> None:
    assert admit(TextNode(text="\ud835\udc00")).text == "\U0001d400"


PLAIN = {
    "integer": (np.int64(2001), 2001),
    "float": (np.float32(0.5), 0.5),
    "boolean": (np.bool_(True), True),
    "text": (np.str_("a"), "a"),
    "array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "array of text": (np.array(["a"]), ["a"]),
    "0-d array": (np.array(3), 3),
    "long double": (np.longdouble(3), 3.0),
    "nanoseconds": (np.datetime64("2024-05-01T10:00:00.000000000"), "2024-05-01T10:00:00.000000000"),
    "NaT of numpy": (np.datetime64("NaT"), None),
    "NaT": (pd.NaT, None),
    "NA": (pd.NA, None),
    "timestamp": (pd.Timestamp("2024-05-01"), "2024-05-01T00:00:00"),
    "series": (pd.Series([1, 2]), [1, 2]),
    "NaN": (float("nan"), None),
    "infinity": (float("-inf"), None),
    "tuple": ((1, (2,)), [1, [2]]),
    "set": ({"b", "a"}, ["a", "b"]),
    "mixed set": ({"b", 1}, ["b", 1]),
    "deque": (deque([1]), [1]),
    "datetime": (datetime.datetime(2024, 5, 1, 10), "2024-05-01T10:00:00"),
    "date": (datetime.date(2024, 5, 1), "2024-05-01"),
    "time": (datetime.time(10), "10:00:00"),
    "timedelta": (datetime.timedelta(days=1), "1 day, 0:00:00"),
    "path": (PurePosixPath("a/b"), "a/b"),
    "UUID": (uuid.UUID(int=3), "00000000-0000-0000-0000-000000000003"),
    "URL": (AnyUrl("https://a.example/b"), "https://a.example/b"),
    "decimal": (Decimal("1.5"), 1.5),
    "decimal NaN": (Decimal("sNaN"), None),
    "enumeration": (Colour.RED, "red"),
    "large integer": (2**70, str(2**70)),
    "largest integer": (2**63 - 1, 2**63 - 1),
    "model": (Layout(), {"box": [0.5, 1.5], "seen": "2024-05-01"}),
    "dataclass": (Page(), {"number": 3}),
    "half": (f"a{HALF}", "a\ufffd"),
    "nested": ({"a": [np.int64(1), {"b": {2, 1}}]}, {"a": [1, {"b": [1, 2]}]}),
    "number as a key": ({1: "a", np.int64(2): "b"}, {"1": "a", "2": "b"}),
}


@pytest.mark.parametrize("name", PLAIN)
def test_metadata_becomes_plain(name: str) -> None:
    value, plain = PLAIN[name]
    node = TextNode(text="Leave.", metadata={"first": 1, "key": value, "last": "z"})
    kept = admit(node)
    assert kept is not None
    assert list(kept.metadata) == ["first", "key", "last"]
    assert kept.metadata["key"] == plain
    assert type(kept.metadata["key"]) is type(plain)
    assert node.metadata["key"] is value
    assert admit(kept) is kept


def loop() -> list:
    items: list = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b"\x00", "'raw' of node 'n1' is binary data .of type bytes."),
        (np.bytes_(b"a"), "binary data"),
        ({"page": {"image": b""}}, "'raw' > 'page' > 'image' of node 'n1' is binary data"),
        (object(), "of type object"),
        (1j, "of type complex"),
        (pd.DataFrame({"a": [1]}), "of type pandas.*DataFrame"),
        (loop(), "contains itself"),
        ({(1, 2): 3}, "key of type tuple"),
        ({"1": "a", 1: "b"}, "there twice"),
        ([10**5000], "thousands of digits"),
    ],
)
def test_metadata_without_a_plain_form_is_refused(value: Any, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        admit(TextNode(id_="n1", text="Leave.", metadata={"raw": value}))
    assert "convert it" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", f"a{HALF}", "a\x00", ""])
def test_an_id_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="id"):
        admit(TextNode(id_=name, text="Leave."))
    if name:
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)}
        with pytest.raises(InputError, match="id"):
            admit(TextNode(text="Leave.", relationships=source))


def test_excluded_keys_stay_excluded_after_cleaning() -> None:
    key = f"path{HALF}"
    node = TextNode(
        text="Leave.",
        metadata={key: "/home/me", "title": "T"},
        excluded_embed_metadata_keys=[key],
        excluded_llm_metadata_keys=["title"],
        metadata_separator=HALF,
    )
    kept = admit(node)
    assert kept is not None
    assert embedded_text(kept) == "title: T\n\nLeave."
    assert kept.excluded_llm_metadata_keys == ["title"]
    assert embedded_text(node) == "title: T\n\nLeave."


def test_metadata_in_relationships_is_plain_too() -> None:
    document = Document(text="Leave is booked. " * 40, metadata={"year": np.int64(2001), "raw": HALF})
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=0)([document])
    for node in nodes:
        kept = admit(node)
        assert kept is not None
        kept.model_dump_json()
        assert kept.ref_doc_id == document.node_id
        assert kept.source_node.metadata == {"year": 2001, "raw": "\ufffd"}


@pytest.mark.parametrize(
    "templates", [{"text_template": "{body}"}, {"metadata_template": "{value:d}"}, {"text_template": "{content"}]
)
def test_templates_that_fail_are_refused(templates: dict[str, str]) -> None:
    with pytest.raises(InputError, match="templates of node 'n1'"):
        admit(TextNode(id_="n1", text="Leave.", metadata={"a": 1}, **templates))


def test_the_nodes_left_out_are_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [TextNode(id_="e1", text=""), TextNode(text="Leave."), ImageNode(id_="e2", image_path="a")]
    with caplog.at_level(logging.WARNING):
        stream = admitted(iter(nodes))
        assert next(stream).get_content() == "Leave."
        assert list(stream) == []
        assert list(admitted(nodes[:2])) == nodes[1:2]
    assert caplog.messages == [
        "2 of 3 nodes have no text and are left out (the first: 'e1')",
        "1 of 2 nodes has no text and is left out (the first: 'e1')",
    ]


characters = st.one_of(st.characters(), st.sampled_from([HALF, "\udc00", "\x00", " ", "\n", "\u200b", "\ufeff", "a"]))
texts = st.text(characters, max_size=8)
scalars = st.one_of(
    texts,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.decimals(),
    st.uuids(),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.floats(width=32).map(np.float32),
    st.sampled_from([Colour.RED, PurePosixPath("a/b"), np.datetime64("NaT"), pd.NaT, Layout(), b"x", object()]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(texts, inner, max_size=2),
        st.lists(inner, max_size=2).map(tuple),
        st.frozensets(st.one_of(texts, st.integers()), max_size=3),
        st.lists(st.floats(), max_size=3).map(np.array),
    ),
    max_leaves=5,
)


@st.composite
def any_node(draw: st.DrawFn) -> BaseNode:
    text, metadata = draw(texts), draw(st.dictionaries(texts, values, max_size=3))
    excluded = draw(st.lists(st.sampled_from(sorted(metadata) or ["none"]), max_size=2))
    make = draw(st.sampled_from([TextNode, Document, ImageNode, lambda **rest: IndexNode(index_id="t", **rest)]))
    node = make(id_="n", text=text, metadata=metadata, excluded_embed_metadata_keys=excluded)
    node.text_template = draw(st.sampled_from([node.text_template, "{content}\n{metadata_str}"]))
    return node


@settings(max_examples=60)
@given(node=any_node())
def test_gate_dataset_index_insert_and_query_agree(node: BaseNode) -> None:
    """Each of them says the same: whether a node exists, what its text is, or that it is refused."""
    client, model = chromadb.EphemeralClient(), MockEmbedding(embed_dim=4)
    other = TextNode(id_="other", text="Leave is booked in HELM.")
    index = rebuild_index([other], model, client, "gate-agrees")
    for name in ("gate-agrees", "gate-agrees-too"):  # otherwise the versions of all examples stay in memory
        with suppress(InputError):
            prune_index(client, name, min_age=0)
    steps = {
        "dataset": lambda: passages_from_nodes([other, node]),
        "index": lambda: rebuild_index([node, other], model, client, "gate-agrees-too"),
        "insert": lambda: index.insert_nodes([node]),
    }
    try:
        kept = admit(node)
    except InputError:
        for step in steps.values():
            with pytest.raises(InputError):
                step()
        return
    expected = {"other": embedded_text(other)} | ({"n": embedded_text(kept)} if kept is not None else {})
    built = steps["index"]()
    steps["insert"]()
    passages = steps["dataset"]()
    assert {
        key: f"{each.title}\n{each.text}" if each.title else each.text for key, each in passages.items()
    } == expected
    for found in (
        built.vector_store.get_nodes(),
        index.vector_store.get_nodes(),
        [result.node for result in index.as_retriever(similarity_top_k=5).retrieve(f"leave {HALF}")],
    ):
        assert {each.node_id: each.get_content(metadata_mode=MetadataMode.EMBED) for each in found} == expected
        if kept is not None:
            (again,) = (each for each in found if each.node_id == "n")
            assert again.metadata == kept.metadata
            assert again.get_content(metadata_mode=MetadataMode.NONE) == kept.get_content(
                metadata_mode=MetadataMode.NONE
            )
