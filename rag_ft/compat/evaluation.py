"""`aevaluate_dataset`, which llama-index-core removed from `RetrieverEvaluator`."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.evaluation import BaseRetrievalEvaluator, RetrievalEvalResult
from llama_index.core.evaluation import RetrieverEvaluator as CoreRetrieverEvaluator
from llama_index.core.evaluation.retrieval.base import RetrievalEvalMode

from rag_ft.compat.dataset import finetune_dataset
from rag_ft.errors import InputError
from rag_ft.remote.event_loop import run_coroutine


async def aevaluate_dataset(
    retriever_evaluator: BaseRetrievalEvaluator,
    dataset: Any,
    workers: int = 2,
    show_progress: bool = False,
    **kwargs: Any,
) -> list[RetrievalEvalResult]:
    """Evaluate a retriever on all questions of a dataset.

    Args:
        retriever_evaluator: LlamaIndex's `RetrieverEvaluator`, or another retrieval evaluator.
        dataset: an `EmbeddingQAFinetuneDataset`, or any other dataset that the engines accept.
        workers: number of questions evaluated concurrently.
        show_progress: show a progress bar.
        **kwargs: arguments of `retriever_evaluator.aevaluate`.

    Returns:
        A result for each question, in the order of `dataset.queries`.
        `llama_index.core.evaluation.get_retrieval_results_df` makes a table of the results.

    Raises:
        InputError: if a question has no passage, or `workers` is less than 1.
    """
    from tqdm.asyncio import tqdm_asyncio

    if workers < 1:
        raise InputError(f"workers is {workers}: use 1 or more")
    dataset = finetune_dataset(dataset)
    unanswered = [query for query in dataset.queries if not dataset.relevant_docs.get(query)]
    if unanswered:
        raise InputError(f"the query {unanswered[0]!r} has no passage in relevant_docs: add one, or remove the query")
    mode = RetrievalEvalMode.from_str(dataset.mode)
    in_flight = asyncio.Semaphore(workers)

    async def evaluate(query: str, expected: list[str]) -> RetrievalEvalResult:
        async with in_flight:
            return await retriever_evaluator.aevaluate(query, expected_ids=expected, mode=mode, **kwargs)

    evaluations = [evaluate(query, expected) for query, expected in dataset.query_docid_pairs]
    return list(await tqdm_asyncio.gather(*evaluations, desc="questions", disable=not show_progress))


def evaluate_dataset(
    retriever_evaluator: BaseRetrievalEvaluator,
    dataset: Any,
    workers: int = 2,
    show_progress: bool = False,
    **kwargs: Any,
) -> list[RetrievalEvalResult]:
    """Run `aevaluate_dataset` and wait for the results. Also works in a notebook.

    Example:
        >>> from llama_index.core import VectorStoreIndex
        >>> from llama_index.core.evaluation import RetrieverEvaluator
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import FineTunedEmbedding
        >>> from rag_ft.compat import EmbeddingQAFinetuneDataset, evaluate_dataset
        >>> corpus = {"p1": "A Kittiwake is an expenses claim.", "p2": "A Lantern is a day of work at home."}
        >>> nodes = [TextNode(id_=key, text=text) for key, text in corpus.items()]
        >>> index = VectorStoreIndex(nodes, embed_model=FineTunedEmbedding.load("local"))
        >>> evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr"], retriever=index.as_retriever())
        >>> queries = {"q1": "expenses claim"}
        >>> dataset = EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs={"q1": ["p1"]})
        >>> evaluate_dataset(evaluator, dataset)[0].metric_vals_dict
        {'hit_rate': 1.0, 'mrr': 1.0}
    """
    return run_coroutine(aevaluate_dataset(retriever_evaluator, dataset, workers, show_progress, **kwargs))


class RetrieverEvaluator(CoreRetrieverEvaluator):
    """LlamaIndex's `RetrieverEvaluator` with the `aevaluate_dataset` method that llama-index-core removed."""

    async def aevaluate_dataset(
        self, dataset: Any, workers: int = 2, show_progress: bool = False, **kwargs: Any
    ) -> list[RetrievalEvalResult]:
        """Evaluate the retriever on all questions of a dataset; see `rag_ft.compat.aevaluate_dataset`."""
        return await aevaluate_dataset(self, dataset, workers, show_progress, **kwargs)
