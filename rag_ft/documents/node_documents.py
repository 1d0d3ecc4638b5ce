"""The documents of a list of nodes: their names, other names that people use for them, and the order of their text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rag_ft.documents.node_source import PAGE_KEYS, NodeSource, document_names, source_of

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
FRONT_MATTER = 10_000
"""Larger than any Roman page number, so that these pages come before 1."""


def name_documents(nodes: Mapping[str, BaseNode]) -> dict[str, str]:
    """Return node id -> name of its document. A node whose document is unknown has an empty name: it is its own.

    Args:
        nodes: node id -> node.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.documents.node_documents import name_documents
        >>> pages = [TextNode(id_=f"p{n}", text="Leave.", metadata={"file_path": "/docs/leave.pdf"}) for n in (1, 2)]
        >>> name_documents({page.node_id: page for page in pages})
        {'p1': 'leave.pdf', 'p2': 'leave.pdf'}
    """
    sources = {key: _original_source(node, nodes) for key, node in nodes.items()}
    # Not every node of a document has its metadata: an extracted table may lack it.
    named = {node.ref_doc_id: sources[key] for key, node in nodes.items() if sources[key].key not in ("", "ref_doc_id")}
    sources = {
        key: named.get(nodes[key].ref_doc_id, source) if source.key == "ref_doc_id" else source
        for key, source in sources.items()
    }
    names = document_names(source for source in sources.values() if source.key)
    return {key: names[source] if source.key else "" for key, source in sources.items()}


def other_names(nodes: Iterable[BaseNode], document_of: Mapping[str, str]) -> dict[str, set[str]]:
    """Return other names of documents -> documents: what metadata names, LlamaIndex's ids, and titles.

    Args:
        nodes: the nodes.
        document_of: node id -> name of its document.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        document = document_of.get(node.node_id) or node.node_id
        values = [node.metadata.get(key) for key in ("file_path", "file_name", "url", "title", "document_title")]
        for name in (node.ref_doc_id, source_of(node).value, *values):
            if isinstance(name, str) and name.strip():
                names[name].add(document)
    return dict(names)


def in_order_of_text(nodes: Mapping[str, BaseNode], document_of: Mapping[str, str]) -> list[str]:
    """Return the ids of nodes, sorted by document, and in it by page and position of the text.

    Nodes of one document without page and position keep their order. Documents without a name come last, in theirs.

    Args:
        nodes: node id -> node.
        document_of: node id -> name of its document.
    """
    documents: dict[str, list[str]] = defaultdict(list)
    for key in nodes:
        documents[document_of[key]].append(key)
    unnamed = documents.pop("", [])
    in_order = [key for name in sorted(documents) for key in _sorted_by_position(nodes, documents[name])]
    return [*in_order, *unnamed]


def _original_source(node: BaseNode, nodes: Mapping[str, BaseNode]) -> NodeSource:
    """Return the document that a node was cut out of, also if it was cut out of another node of the list."""
    source, steps = source_of(node), 0
    while source.key == "ref_doc_id" and source.value in nodes and steps < len(nodes):
        parent = source_of(nodes[source.value])
        if not parent.key or parent == source:
            break
        source, steps = parent, steps + 1
    return source


def _sorted_by_position(nodes: Mapping[str, BaseNode], keys: list[str]) -> list[str]:
    positions = {key: _position(nodes[key]) for key in keys}
    # What only some nodes have cannot be compared.
    paged, placed = (all(position[part] is not None for position in positions.values()) for part in (0, 1))
    ranks: dict[str | None, int] = {}
    for key in keys:
        ranks.setdefault(nodes[key].ref_doc_id, len(ranks))

    def order(key: str) -> tuple[Any, ...]:
        page, start, length = positions[key]
        # Positions begin anew in each LlamaIndex document of a file.
        return (
            page if paged and page else ("", 0),
            ranks[nodes[key].ref_doc_id],
            *((start or 0, -length) if placed else ()),
        )

    return sorted(keys, key=order)


def _position(node: BaseNode) -> tuple[tuple[str, int] | None, int | None, int]:
    """Return the page, the first character in it, and the length: a larger node comes before those in it."""
    label = next((str(node.metadata[key]).strip() for key in PAGE_KEYS if key in node.metadata), "")
    start, end = getattr(node, "start_char_idx", None), getattr(node, "end_char_idx", None)
    length = end - start if isinstance(start, int) and isinstance(end, int) else 0
    return _page(label), start, length


def _page(label: str) -> tuple[str, int] | None:
    """Return a page label as something that can be sorted: Roman numerals come before 1, and A-1, A-2 after it."""
    if match := re.fullmatch(r"(\D*)(\d{1,9})", label):
        return match[1].casefold(), int(match[2])
    if label and re.fullmatch(r"[ivxlc]+", label.lower()):
        numbers = [ROMAN[letter] for letter in label.lower()]
        return "", sum(-n if n < max(numbers[i:]) else n for i, n in enumerate(numbers)) - FRONT_MATTER
    return None
