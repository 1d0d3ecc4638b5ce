"""The gate that every node passes before it is used: clean text, plain metadata, and no node without text."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rag_ft.clean_text import clean_text, has_text
from rag_ft.documents.plain_metadata import NotPlainError, plain_metadata
from rag_ft.errors import InputError, first_line

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

_LINE_OR_TAB = re.compile(r"[\t\r\n]")


def admit(node: BaseNode) -> BaseNode | None:
    """Return a node as it is indexed, embedded and asked about; None if it has no text of its own.

    Halves of surrogate pairs and null characters are removed from all texts, and metadata becomes plain values that
    JSON and databases accept (see `plain_metadata`). The order of the metadata is kept, because the embedded text
    depends on it.

    Args:
        node: any LlamaIndex node. It is not changed: if anything differs, a copy is returned.

    Raises:
        InputError: if its id cannot be stored, a value cannot be made plain, or its templates fail.

    Example:
        >>> from datetime import date
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.documents.node_gate import admit
        >>> node = admit(TextNode(text="The \\ud835 valve", metadata={"day": date(2024, 5, 1), "tags": {"b", "a"}}))
        >>> node.text == "The \\ufffd valve", node.metadata, admit(node) is node, admit(TextNode(text=" \\n"))
        (True, {'day': '2024-05-01', 'tags': ['a', 'b']}, True, None)
    """
    if not has_text(clean_text(node.get_content(metadata_mode="none") or "")):  # type: ignore[arg-type]
        return None
    _check_ids(node)
    try:
        changes = dict(_changed_fields(node))
    except NotPlainError as error:
        raise InputError(
            f"the metadata {error.key} of node {node.node_id!r} {error.reason}: convert it to text, numbers or lists "
            "of them, or remove it"
        ) from None
    admitted_node = node.model_copy(update=changes) if changes else node
    if admitted_node.metadata and not _templates_work(
        admitted_node.metadata_template, getattr(admitted_node, "text_template", "")
    ):
        embedded_text(admitted_node)
    return admitted_node


def admitted(nodes: Iterable[BaseNode], left_out: Callable[[BaseNode], None] | None = None) -> Iterator[BaseNode]:
    """Yield the nodes that have text (`admit`). At the end log how many were left out.

    Args:
        nodes: any LlamaIndex nodes, read as a stream.
        left_out: called with each node that has no text.

    Raises:
        InputError: if a node cannot be stored.

    Example:
        >>> from llama_index.core.schema import ImageNode, TextNode
        >>> from rag_ft.documents.node_gate import admitted
        >>> nodes = [TextNode(text="Leave is booked in HELM."), TextNode(text=""), ImageNode(image_path="helm.png")]
        >>> [node.text for node in admitted(nodes)]
        ['Leave is booked in HELM.']
    """
    count = empty = 0
    first = ""
    for node in nodes:
        count += 1
        kept = admit(node)
        if kept is not None:
            yield kept
            continue
        first = first if empty else node.node_id
        empty += 1
        if left_out is not None:
            left_out(node)
    if empty:
        verbs = ("has", "is") if empty == 1 else ("have", "are")
        logger.warning("%d of %d nodes %s no text and %s left out (the first: %r)", empty, count, *verbs, first)


def embedded_text(node: BaseNode) -> str:
    """Return the text of a node that LlamaIndex embeds, with its metadata, as clean text.

    Raises:
        InputError: if the node's templates fail.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.documents.node_gate import embedded_text
        >>> embedded_text(TextNode(text="Leave is booked in HELM.", metadata={"title": "Leave"}))
        'title: Leave\\n\\nLeave is booked in HELM.'
    """
    try:
        text = node.get_content(metadata_mode="embed")  # type: ignore[arg-type]
    except Exception as error:
        raise InputError(
            f"the templates of node {node.node_id!r} fail ({type(error).__name__}: {first_line(error)}): use only "
            "{key} and {value} in metadata_template, {metadata_str} and {content} in text_template"
        ) from error
    return clean_text(text)


def _check_ids(node: BaseNode) -> None:
    """Raise an `InputError` if the id of a node or of its document cannot be stored."""
    for name in (node.node_id, node.ref_doc_id or ""):
        if _LINE_OR_TAB.search(name):
            raise InputError(f"the id {name!r} of a node has a tab or a line break: use another id")
        if clean_text(name) != name:
            raise InputError(f"the id {name!r} of a node has a character that cannot be stored: use another id")
    if not node.node_id:
        raise InputError("the id of a node is empty: give each node an id")


def _changed_fields(node: BaseNode) -> Iterator[tuple[str, Any]]:
    """Yield (name, new value) of the fields of a node that are not clean or plain yet."""
    for name, value in node.__dict__.items():
        new = value
        if isinstance(value, str):
            new = clean_text(value)
        elif name == "metadata":
            new = plain_metadata(value)
        elif name == "relationships":
            new = {key: _plain_relation(related) for key, related in value.items()}
            new = value if all(new[key] is related for key, related in value.items()) else new
        elif name.endswith("_metadata_keys"):
            # The metadata keys are cleaned, so a key that is excluded must be cleaned in the same way.
            new = [clean_text(key) for key in value]
            new = value if new == value else new
        elif name == "text_resource" and value is not None and value.text is not None:
            text = clean_text(value.text)
            new = value if text is value.text else value.model_copy(update={"text": text})
        if new is not value:
            yield name, new


def _plain_relation(related: Any) -> Any:
    """Return a `RelatedNodeInfo`, or a list of them, with plain metadata: node parsers copy the metadata there."""
    if isinstance(related, list):
        new = [_plain_relation(info) for info in related]
        return related if all(one is other for one, other in zip(new, related, strict=True)) else new
    metadata, node_id = plain_metadata(related.metadata), clean_text(related.node_id)
    if metadata is related.metadata and node_id is related.node_id:
        return related
    return related.model_copy(update={"metadata": metadata, "node_id": node_id})


@lru_cache(maxsize=256)
def _templates_work(metadata_template: str, text_template: str) -> bool:
    """Return whether templates can be filled in; nodes share few, so this is cheaper than trying each node."""
    try:
        metadata_template.format(key="key", value="value")
        text_template.format(content="content", metadata_str="metadata")
    except Exception:
        return False
    return True
