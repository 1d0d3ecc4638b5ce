"""A LlamaIndex node as a Chroma record, with hashes that detect changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.files import sha256_of
from rag_ft.index.contract import KEY_PREFIX

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

TEXT_HASH, NODE_HASH = KEY_PREFIX + "text", KEY_PREFIX + "node"
HASH_DIGITS = 20


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
    """Turn a node into a record that LlamaIndex's own Chroma store can read.

    Chroma filters by plain values only, so lists and dictionaries in the metadata are stored only in the node's JSON. A
    vector in the node is left out, since another model may have made it.
    """
    from llama_index.core.schema import MetadataMode
    from llama_index.core.vector_stores.utils import node_to_metadata_dict

    if node.embedding is not None:
        node = node.model_copy()
        node.embedding = None
    metadata = {
        key: "" if value is None else value
        for key, value in node_to_metadata_dict(node, remove_text=True, flat_metadata=False).items()
        if value is None or isinstance(value, str | int | float | bool)
    }
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    document = node.get_content(metadata_mode=MetadataMode.NONE)
    record_hash = sha256_of(json.dumps(metadata, sort_keys=True, ensure_ascii=False), document)
    metadata |= {TEXT_HASH: sha256_of(text)[:HASH_DIGITS], NODE_HASH: record_hash[:HASH_DIGITS]}
    return Record(node.node_id, text, document, metadata)
