"""Which document a node comes from, as a person would name it: its file or address, not LlamaIndex's random id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from rag_ft.clean_text import clean_text
from rag_ft.dataset.units import is_random

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

SOURCE_KEYS = ("file_path", "filepath", "file_name", "filename", "url", "source_url", "source")
"""Metadata keys that name the file or address of a node, as readers write them. The first one that is present is used:
a path distinguishes two files of one name. `source` may also hold a category ("HR/Legal"), so it must be an address, an
absolute path, or a name with the suffix of a document.
"""

_PATH_OR_ADDRESS = re.compile(
    r"://|^[/\\~]|^[A-Za-z]:[/\\]|"
    r"\.(?:pdf|docx?|odt|rtf|html?|md|mdx|markdown|txt|rst|adoc|tex|csv|tsv|xlsx?|pptx?|json|jsonl|xml|ya?ml|epub|eml|msg|ipynb)$",
    re.IGNORECASE,
)

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")

PAGE_KEYS = ("page_label", "page", "page_number")
"""Metadata keys of the page that a node is on."""


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
        name = _one_line(str(value)) if value is not None else ""
        if not name or (key == "source" and not _PATH_OR_ADDRESS.search(name)):
            continue
        if "://" in name:
            return NodeSource(key, name.partition("#")[0])  # an anchor is a place in the document
        if _is_certain(name, node):
            return NodeSource(key, name)
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


def _is_certain(name: str, node: BaseNode) -> bool:
    """Return whether a file name is that of one document: several may be called "README.md".

    Their ids tell them apart, unless these are random or those of pages.
    """
    reference = node.ref_doc_id
    return (
        _ABSOLUTE.match(name) is not None
        or reference is None
        or is_random(reference)
        or any(key in node.metadata for key in PAGE_KEYS)
    )


def _is_absolute(source: NodeSource) -> bool:
    return "://" not in source.value and _ABSOLUTE.match(source.value) is not None


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]+", path) if part]


def _one_line(text: str) -> str:
    return " ".join(clean_text(text).split())
