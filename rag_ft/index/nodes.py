"""LlamaIndex nodes from the passages of a dataset, and from an existing Chroma collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rag_ft.documents.node_gate import admitted
from rag_ft.errors import InputError
from rag_ft.index.chroma import collection_names, open_chroma
from rag_ft.index.pointer import read_pointer
from rag_ft.index.records import OWN_KEYS
from rag_ft.index.writing import CLOUD_BATCH_SIZE

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from llama_index.core.schema import BaseNode, TextNode


def nodes_from_texts(texts: Mapping[str, str], documents: Mapping[str, str]) -> list[TextNode]:
    """Make nodes whose embedded text is exactly the given text.

    Args:
        texts: passage id -> text.
        documents: passage id -> id of its source document.
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


class ChromaNodes:
    """The nodes of a Chroma collection, a page at a time and without vectors. Those without text are left out.

    Args:
        collection: a collection with texts, filled by LlamaIndex, rag_ft or any other program.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def __len__(self) -> int:
        return self.collection.count()

    def __iter__(self) -> Iterator[BaseNode]:
        return admitted(self._entries())

    def _entries(self) -> Iterator[BaseNode]:
        offset = 0
        while True:
            page = self.collection.get(limit=CLOUD_BATCH_SIZE, offset=offset, include=["documents", "metadatas"])
            if not page["ids"]:
                return
            documents, metadatas = page["documents"] or [], page["metadatas"] or []
            for key, text, metadata in zip(page["ids"], documents, metadatas, strict=True):
                yield node_of(key, text or "", dict(metadata or {}))
            offset += len(page["ids"])


def sample_nodes(collection: Collection, count: int = 4) -> tuple[list[BaseNode], list[Any]]:
    """Read a few nodes of a collection and their vectors."""
    rows = collection.get(limit=count, include=["documents", "metadatas", "embeddings"])
    entries = zip(rows["ids"], rows["documents"] or [], rows["metadatas"] or [], strict=True)
    return [node_of(key, text or "", dict(metadata or {})) for key, text, metadata in entries], list(rows["embeddings"])  # type: ignore[arg-type]


def nodes_from_chroma(source: str) -> ChromaNodes:
    """Read the nodes of an existing collection, to embed them into another index.

    Args:
        source: `chroma:PATH:COLLECTION`, or an address instead of the path; COLLECTION may be an index of rag_ft.

    Raises:
        InputError: if there is no such collection.
        OutsideError: if the server does not answer.

    Example:
        >>> import tempfile
        >>> import chromadb
        >>> from rag_ft.index import nodes_from_chroma
        >>> folder = tempfile.mkdtemp()
        >>> collection = chromadb.PersistentClient(folder).create_collection("handbook")
        >>> collection.add(ids=["leave"], documents=["Leave is booked in HELM."], embeddings=[[1.0, 0.0]])
        >>> [(node.node_id, node.text) for node in nodes_from_chroma(f"chroma:{folder}:handbook")]
        [('leave', 'Leave is booked in HELM.')]
    """
    from chromadb.errors import NotFoundError

    where, _, name = source.removeprefix("chroma:").rpartition(":")
    if not where or not name or name.startswith("//"):
        raise InputError(f"{source}: use chroma:PATH_OR_URL:COLLECTION")
    client = open_chroma(where, create=False)
    pointer = read_pointer(client, name)
    try:
        collection = client.get_collection(
            pointer.current if pointer is not None and pointer.current else name, embedding_function=None
        )
    except (NotFoundError, ValueError):
        existing = ", ".join(sorted(collection_names(client))) or "none"
        raise InputError(f"{where} has no collection {name} (collections: {existing})") from None
    return ChromaNodes(collection)


def node_of(key: str, text: str, metadata: dict[str, Any]) -> BaseNode:
    """Read a node that LlamaIndex stored in Chroma, or make one from the text of another program."""
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.utils import metadata_dict_to_node

    if "_node_content" in metadata:
        node = metadata_dict_to_node(metadata)
        node.set_content(text)
        return node
    plain = {name: value for name, value in metadata.items() if name not in OWN_KEYS}
    return TextNode(id_=key, text=text, metadata=plain)
