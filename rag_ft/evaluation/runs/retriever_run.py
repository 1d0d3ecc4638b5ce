"""The run of a LlamaIndex retriever."""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from rag_ft.errors import InputError, OutsideError, RagFtError, first_line
from rag_ft.evaluation.runs.run import Run

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever


def run_retriever(retriever: BaseRetriever, queries: Sequence[str], k: int, passages: Container[str]) -> Run:
    """Search all queries with a LlamaIndex retriever.

    Args:
        retriever: the retriever.
        queries: the queries.
        k: maximum number of passages for each query.
        passages: the ids of all passages.

    Raises:
        InputError: if it finds nodes that are not passages of the dataset.
        OutsideError: if it fails.
    """
    name = type(retriever).__name__
    started = time.monotonic()
    rankings: list[list[str]] = []
    for query in queries:
        try:
            nodes = retriever.retrieve(query)
        except RagFtError:
            raise
        except Exception as error:
            raise OutsideError(f"the retriever {name} failed ({first_line(error)}): fix it and run again") from error
        rankings.append(list(dict.fromkeys(node.node.node_id for node in nodes))[:k])
    milliseconds = 1000 * (time.monotonic() - started) / max(1, len(queries))
    unknown = next((passage for ranking in rankings for passage in ranking if passage not in passages), None)
    if unknown is not None:
        raise InputError(
            f"the retriever {name} found the node {unknown!r}, which is not a passage of the dataset: build both from "
            "the same nodes, so that their ids match"
        )
    return Run(rankings, details={"query_milliseconds": round(milliseconds, 2)})
