"""Which document a node belongs to, and in which order nodes come."""

from __future__ import annotations

import random

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from rag_ft.documents import passages_from_nodes
from rag_ft.documents.node_documents import name_documents, other_names
from rag_ft.documents.node_source import source_of


def page(number: int, file: str = "/srv/docs/leave/fmla.pdf", **metadata: object) -> TextNode:
    """A page of a file, as SimpleDirectoryReader gives it: a document of its own, with a random id."""
    node = TextNode(
        text=f"Page {number} says what the steward signs on form {number}.",
        metadata={"file_path": file, "page_label": str(number), **metadata},
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=TextNode(text="x").node_id)
    return node


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ({"file_path": "/a/b.md", "file_name": "b.md"}, "file_path"),
        ({"file_name": "b.md", "url": "https://x.y/z"}, "file_name"),
        ({"filename": "b.md"}, "filename"),
        ({"url": "https://x.y/z"}, "url"),
        ({"source": "wiki/page.html"}, "source"),
        ({"source": "Jira", "file_name": ""}, ""),
    ],
)
def test_a_document_is_what_a_person_would_name(metadata: dict, key: str) -> None:
    assert source_of(TextNode(text="Leave.", metadata=metadata)).key == key


def test_pages_of_a_file_are_one_document_in_the_order_of_the_pages() -> None:
    nodes = [page(number) for number in range(1, 13)] + [page(1, "/srv/docs/badges.pdf")]
    random.Random(3).shuffle(nodes)
    passages = list(passages_from_nodes(nodes).values())
    assert [passage.document for passage in passages] == ["badges.pdf"] + ["leave/fmla.pdf"] * 12
    assert [passage.own_text.split()[1] for passage in passages] == ["1", *map(str, range(1, 13))]


def test_the_same_name_in_two_folders_is_two_documents() -> None:
    nodes = {node.node_id: node for node in (page(1, "/srv/a/index.md"), page(1, "/srv/b/index.md"))}
    assert sorted(name_documents(nodes).values()) == ["a/index.md", "b/index.md"]


def test_a_node_that_was_cut_out_of_another_node_belongs_to_its_document() -> None:
    large = TextNode(text="Large.", id_="large")
    large.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="handbook")
    small = TextNode(text="Small.", id_="small")
    small.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="large")
    assert name_documents({"large": large, "small": small}) == {"large": "handbook", "small": "handbook"}


def test_nodes_in_a_circle_end() -> None:
    nodes = {}
    for key, other in (("a", "b"), ("b", "a")):
        nodes[key] = TextNode(text="Text.", id_=key)
        nodes[key].relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=other)
    assert set(name_documents(nodes)) == {"a", "b"}


def test_where_nothing_tells_the_document_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    passages_from_nodes([TextNode(text="Leave is booked."), TextNode(text="Badges open doors.")])
    assert "2 of 2 nodes do not tell which document they come from" in caplog.text


def test_other_names_lead_to_the_document() -> None:
    nodes = [page(1, title="Family leave"), page(2)]
    documents = {node.node_id: "fmla.pdf" for node in nodes}
    names = other_names(nodes, documents)
    assert names["/srv/docs/leave/fmla.pdf"] == names["Family leave"] == names[nodes[0].ref_doc_id] == {"fmla.pdf"}


def test_own_and_embedded_text_are_kept_apart() -> None:
    passage = next(iter(passages_from_nodes([page(1)]).values()))
    assert passage.own_text == "Page 1 says what the steward signs on form 1."
    assert passage.text.startswith("file_path: /srv/docs/leave/fmla.pdf\n") or "page_label: 1" in passage.text


def test_metadata_that_is_no_content_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    passages_from_nodes([page(1), page(2)])
    assert "2 of 2 passages are embedded with the metadata file_path" in caplog.text
    assert 'for node in nodes: node.excluded_embed_metadata_keys += ["file_path"]' in caplog.text
    caplog.clear()
    nodes = [page(1), page(2)]
    for node in nodes:
        node.excluded_embed_metadata_keys += ["file_path"]
    passages_from_nodes(nodes)
    assert "embedded with" not in caplog.text


def from_document(reference: str, text: str = "Text.", **metadata: object) -> TextNode:
    node = TextNode(text=text, metadata=metadata)
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=reference)
    return node


def test_a_bare_file_name_does_not_merge_documents_with_ids_of_their_own() -> None:
    nodes = [from_document("ann-1", file_name="cv.pdf"), from_document("bob-1", file_name="cv.pdf")]
    assert [source_of(node).value for node in nodes] == ["ann-1", "bob-1"]


@pytest.mark.parametrize("category", ["HR/Policies", "nytimes.com", "N/A", "Policy v2.1"])
def test_a_category_is_no_document(category: str) -> None:
    assert source_of(from_document("article-7", source=category)).value == "article-7"


def test_an_anchor_is_a_place_in_a_page() -> None:
    nodes = {str(n): from_document(f"d{n}", url=f"https://x.org/leave#s{n}") for n in range(3)}
    assert set(name_documents(nodes).values()) == {"https://x.org/leave"}


def test_a_node_without_the_metadata_of_its_document_belongs_to_it() -> None:
    nodes = {"a": from_document("d1", file_path="/docs/leave.md"), "b": from_document("d1")}
    assert set(name_documents(nodes).values()) == {"leave.md"}


def test_roman_and_prefixed_pages_are_in_order() -> None:
    labels = ["i", "ii", "iv", "ix", "1", "2", "10", "A-1", "A-2"]
    nodes = [TextNode(text=f"Page {label}.", metadata={"file_name": "x.pdf", "page_label": label}) for label in labels]
    random.Random(1).shuffle(nodes)
    passages = passages_from_nodes(nodes).values()
    assert [passage.own_text for passage in passages] == [f"Page {label}." for label in labels]
