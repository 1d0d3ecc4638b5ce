"""The names of llama-index-finetuning, over rag_ft: an app that used its embedding side changes its imports alone.

Each name is loaded when it is first used. What behaves differently, and why, stands in examples/migration.md.

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

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_ft.compat.adapter_engine import EmbeddingAdapterFinetuneEngine
    from rag_ft.compat.adapter_models import AdapterEmbeddingModel, LinearAdapterEmbeddingModel
    from rag_ft.compat.adapter_modules import BaseAdapter, LinearLayer, TwoLayerNN, get_activation_function
    from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, LabelledQADataset
    from rag_ft.compat.engine import BaseEmbeddingFinetuneEngine
    from rag_ft.compat.evaluation import RetrieverEvaluator, aevaluate_dataset, evaluate_dataset
    from rag_ft.compat.generation import (
        DEFAULT_QA_GENERATE_PROMPT_TMPL,
        generate_qa_embedding_pairs,
        generate_question_context_pairs,
    )
    from rag_ft.compat.pickled_models import convert_model_folder
    from rag_ft.compat.sentence_transformer_engine import SentenceTransformersFinetuneEngine
    from rag_ft.compat.warn import CompatibilityWarning

_WHERE = {
    "EmbeddingQAFinetuneDataset": "dataset",
    "LabelledQADataset": "dataset",
    "DEFAULT_QA_GENERATE_PROMPT_TMPL": "generation",
    "generate_qa_embedding_pairs": "generation",
    "generate_question_context_pairs": "generation",
    "BaseEmbeddingFinetuneEngine": "engine",
    "SentenceTransformersFinetuneEngine": "sentence_transformer_engine",
    "EmbeddingAdapterFinetuneEngine": "adapter_engine",
    "BaseAdapter": "adapter_modules",
    "LinearLayer": "adapter_modules",
    "TwoLayerNN": "adapter_modules",
    "get_activation_function": "adapter_modules",
    "AdapterEmbeddingModel": "adapter_models",
    "LinearAdapterEmbeddingModel": "adapter_models",
    "convert_model_folder": "pickled_models",
    "RetrieverEvaluator": "evaluation",
    "aevaluate_dataset": "evaluation",
    "evaluate_dataset": "evaluation",
    "CompatibilityWarning": "warn",
}

_OPENAI = "fine-tune chat models with the provider's own package (openai, mistralai)"
_RERANKER = "fine-tune a reranker with sentence_transformers.CrossEncoderTrainer, or with Cohere's own package"
_ELSEWHERE = {
    "OpenAIFinetuneEngine": _OPENAI,
    "AzureOpenAIFinetuneEngine": _OPENAI,
    "MistralAIFinetuneEngine": _OPENAI,
    "OpenAIFineTuningHandler": _OPENAI,
    "MistralAIFineTuningHandler": _OPENAI,
    "CohereRerankerFinetuneEngine": _RERANKER,
    "generate_cohere_reranker_finetuning_dataset": _RERANKER,
    "CrossEncoderFinetuneEngine": _RERANKER,
    "generate_ce_fine_tuning_dataset": _RERANKER,
    "generate_synthetic_queries_over_documents": _RERANKER,
}
"""Names of the old package that have nothing to do with embeddings -> where their users go."""

__all__ = [  # noqa: RUF022 - in the order of the data
    "EmbeddingQAFinetuneDataset",
    "LabelledQADataset",
    "DEFAULT_QA_GENERATE_PROMPT_TMPL",
    "generate_qa_embedding_pairs",
    "generate_question_context_pairs",
    "BaseEmbeddingFinetuneEngine",
    "SentenceTransformersFinetuneEngine",
    "EmbeddingAdapterFinetuneEngine",
    "BaseAdapter",
    "LinearLayer",
    "TwoLayerNN",
    "get_activation_function",
    "AdapterEmbeddingModel",
    "LinearAdapterEmbeddingModel",
    "convert_model_folder",
    "RetrieverEvaluator",
    "aevaluate_dataset",
    "evaluate_dataset",
    "CompatibilityWarning",
]


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        raise ImportError(f"rag_ft has no {name}: it tunes embeddings alone; {_ELSEWHERE[name]} (see migration.md)")
    if name not in _WHERE:
        raise AttributeError(f"module 'rag_ft.compat' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rag_ft.compat.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
