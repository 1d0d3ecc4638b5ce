"""Passages of a dataset as LlamaIndex nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.core.schema import TextNode


def nodes_from_texts(texts: Mapping[str, str], documents: Mapping[str, str]) -> list[TextNode]:
    """Nodes whose embedded text is exactly the given one.

    Args:
        texts: passage id -> text.
        documents: passage id -> id of the document that it was cut from.
    """
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    return [
        TextNode(
            id_=key,
            text=text,
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=documents.get(key, key))},
        )
        for key, text in texts.items()
    ]
