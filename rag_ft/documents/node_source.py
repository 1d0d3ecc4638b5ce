"""Which document a node comes from, as a person would name it: its file or address, not LlamaIndex's random id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from rag_ft.clean_text import clean_text

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

SOURCE_KEYS = ("file_path", "filepath", "file_name", "filename", "url", "source_url", "source")
"""Metadata keys that name the file or address of a node, as readers write them. The first one that is present is used:
a path distinguishes two files of one name. `source` may also hold a category, so it must look like a path or address.
"""

_PATH_OR_ADDRESS = re.compile(r"[/\\]|\.\w{1,5}$")


class NodeSource(NamedTuple):
    """The document of a node.

    Attributes:
        key: the metadata key that names it; `ref_doc_id` for LlamaIndex's source relationship; empty if nothing tells,
            so that the node is its own document.
        value: its value, such as a path.
    """

    key: str
    value: str


def source_of(node: BaseNode) -> NodeSource:
    """Return the document of a node.

    A reader may make several documents of a file (a PDF has one for each page), and LlamaIndex's ids are random, so the
    file or address in the metadata is used first.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.documents.node_source import source_of
        >>> source_of(TextNode(text="Leave is booked in HELM.", metadata={"file_name": "leave.pdf", "page_label": "3"}))
        NodeSource(key='file_name', value='leave.pdf')
    """
    for key in SOURCE_KEYS:
        value = node.metadata.get(key)
        if value is not None and (text := _one_line(str(value))) and (key != "source" or _PATH_OR_ADDRESS.search(text)):
            return NodeSource(key, text)
    if node.ref_doc_id:
        return NodeSource("ref_doc_id", _one_line(node.ref_doc_id))
    return NodeSource("", _one_line(node.node_id))


def document_names(sources: Iterable[NodeSource]) -> dict[NodeSource, str]:
    """Name documents for people: paths begin below the folder that all of them share.

    Example:
        >>> from rag_ft.documents.node_source import NodeSource, document_names
        >>> paths = [NodeSource("file_path", f"/home/me/docs/{name}") for name in ("leave/fmla.md", "badges.md")]
        >>> list(document_names(paths).values())
        ['leave/fmla.md', 'badges.md']
    """
    distinct = list(dict.fromkeys(sources))
    parts = {source: _parts(source.value) for source in distinct if _is_absolute(source)}
    levels = zip(*(found[:-1] for found in parts.values()), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    names = {source: "/".join(parts[source][shared:]) if source in parts else source.value for source in distinct}
    # A path below the shared folder may equal a relative one, which is another document.
    taken = Counter(names.values())
    return {source: name if taken[name] == 1 else source.value for source, name in names.items()}


def _is_absolute(source: NodeSource) -> bool:
    return "://" not in source.value and re.match(r"[/\\]|[A-Za-z]:[/\\]", source.value) is not None


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]+", path) if part]


def _one_line(text: str) -> str:
    return " ".join(clean_text(text).split())
