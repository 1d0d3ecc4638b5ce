"""A LlamaIndex node as a Chroma record, with hashes that detect changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.clean_text import clean_text
from rag_ft.documents.node_gate import embedded_text
from rag_ft.errors import InputError, first_line
from rag_ft.files import sha256_of
from rag_ft.index.contract import KEY_PREFIX

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

TEXT_HASH, NODE_HASH = KEY_PREFIX + "text", KEY_PREFIX + "node"
HASH_DIGITS = 20

LIST_KEYS = KEY_PREFIX + "lists"
"""Entry of a record that lists the metadata keys whose values are lists."""

UNFILTERABLE_KEYS = KEY_PREFIX + "unfilterable"
"""Entry of a record that lists the metadata keys whose values are only in the node's JSON."""

OWN_KEYS = (TEXT_HASH, NODE_HASH, LIST_KEYS, UNFILTERABLE_KEYS)
"""Entries that rag_ft adds to a record's metadata."""

RESERVED_KEY = "chroma:document"


@dataclass(frozen=True)
class Record:
    """A node as Chroma stores it.

    Attributes:
        id: id of the node.
        text: the text to embed (`MetadataMode.EMBED`).
        document: the node's own text, as LlamaIndex's Chroma store keeps it.
        metadata: flat metadata with the node itself as JSON, and two hashes: of the embedded text, and of the record.
    """

    id: str
    text: str
    document: str
    metadata: dict[str, Any]

    @property
    def text_hash(self) -> str:
        """Hash of the embedded text; records with equal hashes have equal vectors."""
        return str(self.metadata[TEXT_HASH])

    @property
    def node_hash(self) -> str:
        """Hash of the whole record."""
        return str(self.metadata[NODE_HASH])


def record_of(node: BaseNode) -> Record:
    """Turn a node that passed the gate (`admit`) into a record that LlamaIndex's own Chroma store can read.

    A vector in the node is left out, since another model may have made it.

    Raises:
        InputError: if the node cannot be stored as JSON.
    """
    if node.embedding is not None:
        node = node.model_copy()
        node.embedding = None
    metadata = _filterable(_as_metadata(node))
    text = embedded_text(node)
    document = node.get_content(metadata_mode="none")  # type: ignore[arg-type]
    record_hash = sha256_of(json.dumps(metadata, sort_keys=True, ensure_ascii=False), document)
    metadata |= {TEXT_HASH: sha256_of(text)[:HASH_DIGITS], NODE_HASH: record_hash[:HASH_DIGITS]}
    return Record(node.node_id, text, document, metadata)


def is_valid_key(key: str) -> bool:
    """Return whether Chroma accepts a metadata key."""
    return key != "" and key[0] not in "$#" and key != RESERVED_KEY


def _as_metadata(node: BaseNode) -> dict[str, Any]:
    """Return the metadata of a node with the node itself as JSON."""
    from llama_index.core.vector_stores.utils import node_to_metadata_dict

    try:
        metadata = node_to_metadata_dict(node, remove_text=True, flat_metadata=False)
    except Exception as error:
        if getattr(node, "obj", None) is None:
            raise InputError(
                f"node {node.node_id!r} cannot be stored as JSON ({first_line(error)}): give its class "
                f"{type(node).__name__} fields that JSON can hold"
            ) from error
        # An `IndexNode` may refer to a query engine. LlamaIndex stores such a node without it, too.
        logger.warning(
            "node %r is stored without its object (%s), which is no JSON: give it to a RecursiveRetriever",
            node.node_id, type(node.obj).__name__,  # type: ignore[attr-defined]
        )  # fmt: skip
        metadata = node_to_metadata_dict(node.model_copy(update={"obj": None}), remove_text=True, flat_metadata=False)
    metadata["_node_content"] = clean_text(metadata["_node_content"])
    return metadata


def _filterable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that Chroma can filter by. The keys of lists and of values that are left out are entries.

    Records without such values have no such entries, as those of earlier versions.
    """
    filterable: dict[str, Any] = {}
    keys: dict[str, list[str]] = {LIST_KEYS: [], UNFILTERABLE_KEYS: []}
    for key, value in metadata.items():
        items = _uniform(value) if isinstance(value, list) else None
        if not is_valid_key(key) or isinstance(value, dict) or (isinstance(value, list) and items is None):
            keys[UNFILTERABLE_KEYS].append(key)
        elif items is None:
            filterable[key] = "" if value is None else value
        else:
            keys[LIST_KEYS].append(key)
            if items:  # Chroma stores no empty list
                filterable[key] = items
    return filterable | {name: found for name, found in keys.items() if found}


def _uniform(items: list[Any]) -> list[Any] | None:
    """Return a list without None, with values of one type as Chroma needs; None if they have several types."""
    present = [item for item in items if item is not None]
    types = {type(item) for item in present}
    if types == {int, float}:
        return [float(item) for item in present]
    return present if len(types) <= 1 and types <= {str, int, float, bool} else None
