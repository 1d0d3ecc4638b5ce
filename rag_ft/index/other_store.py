"""Filling a LlamaIndex vector store that is not Chroma."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rag_ft.documents.node_gate import admitted, embedded_text
from rag_ft.errors import InputError
from rag_ft.index.fill import NO_NODES, WINDOW, embed_passages
from rag_ft.index.writing import batched

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

logger = logging.getLogger(__name__)


def fill_other_store(
    nodes: Iterable[BaseNode], model: BaseEmbedding, store: BasePydanticVectorStore, show_progress: bool
) -> VectorStoreIndex:
    """Embed nodes into a vector store, a window at a time, without a contract, a swap or a rollback.

    Raises:
        InputError: if the store does not keep texts, or no node has text.
        OutsideError: if the embedding fails.
    """
    from llama_index.core import VectorStoreIndex
    from tqdm.auto import tqdm

    if not store.stores_text:
        raise InputError(f"{store.class_name()} does not store texts: use it in a VectorStoreIndex with a docstore")
    count = 0
    with tqdm(desc="indexing", unit="passage", disable=not show_progress, dynamic_ncols=True) as bar:
        for window in batched(admitted(nodes), WINDOW):
            copies = [node.model_copy() for node in window]
            vectors = embed_passages(model, [embedded_text(node) for node in copies])
            for node, vector in zip(copies, vectors.tolist(), strict=True):
                node.embedding = vector
            store.add(copies)
            bar.update(len(window))
            count += len(window)
    if not count:
        raise InputError(NO_NODES)
    logger.warning("%s stores no contract: queries with another model are not detected", store.class_name())
    return VectorStoreIndex.from_vector_store(store, embed_model=model)
