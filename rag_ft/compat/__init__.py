"""The API of llama-index-finetuning on top of rag_ft: an app that fine-tunes embeddings only changes its imports.

Generate an `EmbeddingQAFinetuneDataset` from nodes, train an embedding or an adapter on it with an engine, and evaluate
a retriever on it with `evaluate_dataset`. examples/migration.md lists the differences in behaviour and the reasons.

Example:
    >>> from rag_ft.compat import EmbeddingQAFinetuneDataset
    >>> dataset = EmbeddingQAFinetuneDataset(
    ...     queries={"q1": "How do I get my money back?"},
    ...     corpus={"p1": "A Kittiwake is an expenses claim."},
    ...     relevant_docs={"q1": ["p1"]},
    ... )
    >>> dataset.query_docid_pairs
    [('How do I get my money back?', ['p1'])]
"""

from __future__ import annotations

from typing import Any

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
_load_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_CHAT_MODEL = "fine-tune chat models with the provider's own package (openai, mistralai)"
_RERANKER = "fine-tune a reranker with sentence_transformers.CrossEncoderTrainer, or with Cohere's own package"
_ELSEWHERE = {
    "OpenAIFinetuneEngine": _CHAT_MODEL,
    "AzureOpenAIFinetuneEngine": _CHAT_MODEL,
    "MistralAIFinetuneEngine": _CHAT_MODEL,
    "OpenAIFineTuningHandler": _CHAT_MODEL,
    "MistralAIFineTuningHandler": _CHAT_MODEL,
    "CohereRerankerFinetuneEngine": _RERANKER,
    "generate_cohere_reranker_finetuning_dataset": _RERANKER,
    "CrossEncoderFinetuneEngine": _RERANKER,
    "generate_ce_fine_tuning_dataset": _RERANKER,
    "generate_synthetic_queries_over_documents": _RERANKER,
}
"""Name in the old package that is not about embeddings -> what to use instead."""


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        raise ImportError(
            f"rag_ft has no {name}, since it only tunes embeddings: {_ELSEWHERE[name]} (see examples/migration.md)"
        )
    return _load_public_name(name)
