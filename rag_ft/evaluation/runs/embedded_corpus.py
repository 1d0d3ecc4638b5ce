"""Rankings of all questions at once: through a real Chroma index, and exactly beside it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.errors import InputError, OutsideError, RagFtError, first_line
from rag_ft.index.chroma import create_collection
from rag_ft.retrieval.exact import passage_vectors, query_vectors, unit
from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

QUERIES_AT_ONCE = 256

SCORES_AT_ONCE = 25_600_000
"""Of one embedding in memory: 100 MB."""


def questions_at_once(passages: int) -> int:
    """Questions whose scores over so many passages are in memory together."""
    return max(16, min(QUERIES_AT_ONCE, SCORES_AT_ONCE // max(1, passages)))


class EmbeddedCorpus:
    """Passages and questions under one embedding, each embedded once.

    Args:
        model: any LlamaIndex embedding.
        passages: passage id -> text as it is embedded.
        queries: the questions.
        show_progress: a progress bar.

    Attributes:
        model: the embedding.
        ids: of the passages.
        seconds: to embed all passages.
        query_milliseconds: to embed one question, on average.

    Raises:
        OutsideError: where the embedding fails (a server behind it, say).
    """

    def __init__(
        self, model: BaseEmbedding, passages: Mapping[str, str], queries: Sequence[str], show_progress: bool = False
    ) -> None:
        self.model, self.ids, self._texts = model, list(passages), list(queries)
        began = time.monotonic()
        with embedding_failures(model):
            self._passages = unit(passage_vectors(model, list(passages.values()), show_progress))
        self.seconds = time.monotonic() - began
        began = time.monotonic()
        with embedding_failures(model):
            self._queries = unit(query_vectors(model, queries)) if queries else np.empty((0, 0), dtype=np.float32)
        self.query_milliseconds = round(1000 * (time.monotonic() - began) / max(1, len(queries)), 2)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return int(self._passages.shape[1])

    @property
    def megabytes(self) -> float:
        """Of the vectors in an index."""
        return self._passages.nbytes / 1e6

    def rank(self, k: int) -> tuple[list[list[str]], float, float]:
        """(the top k of each question from a Chroma index, share of the exact top 10 in them, ms for a question)."""
        began = time.monotonic()
        found, agreement = search_chroma(self.ids, self._passages, self._queries, k)
        milliseconds = 1000 * (time.monotonic() - began) / max(1, len(self._queries))
        return found, agreement, self.query_milliseconds + milliseconds

    def agreement(self, passages: int, queries: int, seed: int = 0) -> float:
        """Share of the exact top 10 that a Chroma index of some of the passages finds for some of the questions.

        Args:
            passages: drawn at random.
            queries: drawn at random.
            seed: of the draw.
        """
        draw = np.random.default_rng(seed)
        places = draw.choice(len(self.ids), min(passages, len(self.ids)), replace=False)
        asked = draw.choice(len(self._queries), min(queries, len(self._queries)), replace=False)
        ids = [self.ids[place] for place in places]
        return search_chroma(ids, self._passages[places], self._queries[asked], 10)[1]

    def block(self, start: int, end: int) -> NDArray[np.float32]:
        """The cosine similarity of every passage to some of the questions, shape (end - start, passages)."""
        return self._queries[start:end] @ self._passages.T

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The cosine similarity of every passage to each question, shape (passages,); exact.

        Args:
            queries: those that were embedded before are not embedded again.
        """
        if list(queries) == self._texts:
            vectors = self._queries
        else:
            with embedding_failures(self.model):
                vectors = unit(query_vectors(self.model, queries))
        step = questions_at_once(len(self._passages))
        for start in range(0, len(queries), step):
            yield from vectors[start : start + step] @ self._passages.T


@contextmanager
def embedding_failures(model: BaseEmbedding) -> Iterator[None]:
    """Turn what an embedding raises into one clear line."""
    try:
        yield
    except RagFtError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise OutsideError(f"the embedding {model.model_name} failed ({reason}): mend it and run again") from error


def rank_with_retriever(
    retriever: BaseRetriever, queries: Sequence[str], k: int, passages: Container[str]
) -> tuple[list[list[str]], float]:
    """(what a LlamaIndex retriever finds for each question, ms for a question).

    Raises:
        InputError: where it finds nodes that are none of the passages: then no figure would be true.
        OutsideError: where it fails.
    """
    name = type(retriever).__name__
    began = time.monotonic()
    found: list[list[str]] = []
    for query in queries:
        try:
            nodes = retriever.retrieve(query)
        except RagFtError:
            raise
        except Exception as error:
            reason = first_line(error)
            raise OutsideError(f"the retriever {name} failed ({reason}): mend it and run again") from error
        found.append(list(dict.fromkeys(node.node.node_id for node in nodes))[:k])
    milliseconds = 1000 * (time.monotonic() - began) / max(1, len(queries))
    unknown = next((key for keys in found for key in keys if key not in passages), None)
    if unknown is not None:
        raise InputError(
            f"the retriever {name} found the node {unknown!r}, which is no passage of the dataset: build both from the "
            "same nodes, so that their ids are the same"
        )
    return found, milliseconds


def search_chroma(
    ids: Sequence[str], passages: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[list[list[str]], float]:
    """(the top k of each query from a Chroma index, the share of the exact top 10 in them)."""
    import chromadb

    client = chromadb.EphemeralClient()
    collection = create_collection(client, f"compare-{uuid.uuid4().hex}")
    try:
        step = min(client.get_max_batch_size(), 4096)
        for start in range(0, len(ids), step):
            collection.add(ids=list(ids[start : start + step]), embeddings=passages[start : start + step])
        found: list[list[str]] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            batch = queries[start : start + QUERIES_AT_ONCE]
            found += collection.query(query_embeddings=batch, n_results=min(k, len(ids)), include=["distances"])["ids"]
    finally:
        client.delete_collection(collection.name)
    return found, _agreement(found, ids, passages, queries)


def _agreement(
    found: list[list[str]], ids: Sequence[str], passages: NDArray[np.float32], queries: NDArray[np.float32]
) -> float:
    depth = min(10, len(ids))
    shared = 0
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        scores = queries[start : start + QUERIES_AT_ONCE] @ passages.T
        top = top_k_rows(scores, depth)
        for row, places in zip(found[start : start + QUERIES_AT_ONCE], top, strict=True):
            shared += len({ids[place] for place in places} & set(row[:depth]))
    return shared / (depth * len(queries)) if len(queries) else 1.0
