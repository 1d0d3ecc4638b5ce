"""rag_ft: fine-tune the embedding model of a LlamaIndex application, and prove that retrieval got better.

The public names stand in the order in which the data flows; each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_ft.checkup import CheckUp, check
    from rag_ft.dataset.formats.beir import read_beir, write_beir
    from rag_ft.dataset.formats.documents import cut_into_nodes, read_documents
    from rag_ft.dataset.formats.from_pairs import dataset_from_pairs
    from rag_ft.dataset.formats.labelled_pairs import LabelledPair, read_labelled_pairs
    from rag_ft.dataset.formats.llama_index_json import read_llama_index_json, write_llama_index_json
    from rag_ft.dataset.formats.reading import load_dataset
    from rag_ft.dataset.inspection import Inspection, inspect_dataset
    from rag_ft.dataset.merging import merge_datasets
    from rag_ft.dataset.qa_dataset import Passage, QADataset, Query, ScoredPair
    from rag_ft.dataset.review import Review, export_questions, import_review, review_folder
    from rag_ft.embedding.adapter import AdapterEmbedding
    from rag_ft.embedding.cached import CachedEmbedding
    from rag_ft.embedding.contract import ContractError
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.hub import push_to_hub
    from rag_ft.embedding.vector_cache import VectorCache
    from rag_ft.embedding.vectors import Sending
    from rag_ft.errors import InputError, OutsideError, RagFtError
    from rag_ft.evaluation.ab_votes import judge_votes
    from rag_ft.evaluation.answers import JudgedAnswers, ajudge_answers, judge_answers
    from rag_ft.evaluation.comparing import compare
    from rag_ft.evaluation.comparison import Comparison
    from rag_ft.evaluation.losses import NextRound, next_round, write_losses
    from rag_ft.evaluation.moves import Move, moves_of
    from rag_ft.evaluation.reporting.questions import write_questions
    from rag_ft.evaluation.reporting.report import write_report
    from rag_ft.evaluation.searching.candidates import Hybrid
    from rag_ft.evaluation.searching.dev_fusion import learn_fusion_of
    from rag_ft.generation.asking import questions_from_llm
    from rag_ft.generation.feedback import questions_from_feedback
    from rag_ft.generation.filters import Filters, filter_questions
    from rag_ft.generation.generation import agenerate_qa_dataset, generate_qa_dataset
    from rag_ft.generation.local_llm import LocalLLM
    from rag_ft.generation.real_questions import RealQuestion, read_questions
    from rag_ft.index.build import open_index, prune_index, rebuild_index, rollback_index, update_index
    from rag_ft.index.live_store import LiveChromaStore
    from rag_ft.index.nodes import nodes_from_chroma
    from rag_ft.pipeline import Run, fine_tune
    from rag_ft.remote.estimate import Estimate
    from rag_ft.retrieval.ab.query_engine import ABQueryEngine
    from rag_ft.retrieval.ab.retriever import ABRetriever
    from rag_ft.retrieval.ab.sessions import ab_session
    from rag_ft.retrieval.fusion import Fusion
    from rag_ft.retrieval.hybrid import HybridRetriever, keep_fusion
    from rag_ft.retrieval.reranked import RerankedRetriever
    from rag_ft.retrieval.votes import Votes
    from rag_ft.training.adapter import TrainedAdapter, train_adapter
    from rag_ft.training.fine_tuning import TrainedModel, train_model
    from rag_ft.training.hard_negatives import mine_negatives
    from rag_ft.training.recipe import Recipe

_WHERE = {
    "check": "checkup",
    "CheckUp": "checkup",
    "fine_tune": "pipeline",
    "Run": "pipeline",
    "read_documents": "dataset.formats.documents",
    "cut_into_nodes": "dataset.formats.documents",
    "generate_qa_dataset": "generation.generation",
    "agenerate_qa_dataset": "generation.generation",
    "questions_from_llm": "generation.asking",
    "Estimate": "remote.estimate",
    "Filters": "generation.filters",
    "filter_questions": "generation.filters",
    "LocalLLM": "generation.local_llm",
    "questions_from_feedback": "generation.feedback",
    "RealQuestion": "generation.real_questions",
    "read_questions": "generation.real_questions",
    "Passage": "dataset.qa_dataset",
    "Query": "dataset.qa_dataset",
    "QADataset": "dataset.qa_dataset",
    "ScoredPair": "dataset.qa_dataset",
    "load_dataset": "dataset.formats.reading",
    "merge_datasets": "dataset.merging",
    "LabelledPair": "dataset.formats.labelled_pairs",
    "read_labelled_pairs": "dataset.formats.labelled_pairs",
    "dataset_from_pairs": "dataset.formats.from_pairs",
    "inspect_dataset": "dataset.inspection",
    "Inspection": "dataset.inspection",
    "Review": "dataset.review",
    "export_questions": "dataset.review",
    "import_review": "dataset.review",
    "review_folder": "dataset.review",
    "read_beir": "dataset.formats.beir",
    "write_beir": "dataset.formats.beir",
    "read_llama_index_json": "dataset.formats.llama_index_json",
    "write_llama_index_json": "dataset.formats.llama_index_json",
    "mine_negatives": "training.hard_negatives",
    "train_model": "training.fine_tuning",
    "TrainedModel": "training.fine_tuning",
    "Recipe": "training.recipe",
    "train_adapter": "training.adapter",
    "TrainedAdapter": "training.adapter",
    "FineTunedEmbedding": "embedding.fine_tuned",
    "push_to_hub": "embedding.hub",
    "AdapterEmbedding": "embedding.adapter",
    "CachedEmbedding": "embedding.cached",
    "VectorCache": "embedding.vector_cache",
    "Sending": "embedding.vectors",
    "rebuild_index": "index.build",
    "update_index": "index.build",
    "open_index": "index.build",
    "rollback_index": "index.build",
    "prune_index": "index.build",
    "nodes_from_chroma": "index.nodes",
    "LiveChromaStore": "index.live_store",
    "ABRetriever": "retrieval.ab.retriever",
    "ABQueryEngine": "retrieval.ab.query_engine",
    "ab_session": "retrieval.ab.sessions",
    "Votes": "retrieval.votes",
    "judge_votes": "evaluation.ab_votes",
    "judge_answers": "evaluation.answers",
    "ajudge_answers": "evaluation.answers",
    "JudgedAnswers": "evaluation.answers",
    "HybridRetriever": "retrieval.hybrid",
    "RerankedRetriever": "retrieval.reranked",
    "keep_fusion": "retrieval.hybrid",
    "Fusion": "retrieval.fusion",
    "learn_fusion_of": "evaluation.searching.dev_fusion",
    "Hybrid": "evaluation.searching.candidates",
    "compare": "evaluation.comparing",
    "Comparison": "evaluation.comparison",
    "write_report": "evaluation.reporting.report",
    "Move": "evaluation.moves",
    "moves_of": "evaluation.moves",
    "write_questions": "evaluation.reporting.questions",
    "NextRound": "evaluation.losses",
    "next_round": "evaluation.losses",
    "write_losses": "evaluation.losses",
    "RagFtError": "errors",
    "InputError": "errors",
    "OutsideError": "errors",
    "ContractError": "embedding.contract",
}

__all__ = [  # noqa: RUF022 - in the order of the data
    "check",
    "CheckUp",
    "fine_tune",
    "Run",
    "read_documents",
    "cut_into_nodes",
    "generate_qa_dataset",
    "agenerate_qa_dataset",
    "questions_from_llm",
    "Estimate",
    "Filters",
    "filter_questions",
    "LocalLLM",
    "questions_from_feedback",
    "RealQuestion",
    "read_questions",
    "Passage",
    "Query",
    "QADataset",
    "ScoredPair",
    "load_dataset",
    "merge_datasets",
    "LabelledPair",
    "read_labelled_pairs",
    "dataset_from_pairs",
    "inspect_dataset",
    "Inspection",
    "Review",
    "export_questions",
    "import_review",
    "review_folder",
    "read_beir",
    "write_beir",
    "read_llama_index_json",
    "write_llama_index_json",
    "mine_negatives",
    "train_model",
    "TrainedModel",
    "Recipe",
    "train_adapter",
    "TrainedAdapter",
    "FineTunedEmbedding",
    "push_to_hub",
    "AdapterEmbedding",
    "CachedEmbedding",
    "VectorCache",
    "Sending",
    "rebuild_index",
    "update_index",
    "open_index",
    "rollback_index",
    "prune_index",
    "nodes_from_chroma",
    "LiveChromaStore",
    "ABRetriever",
    "ABQueryEngine",
    "ab_session",
    "Votes",
    "judge_votes",
    "judge_answers",
    "ajudge_answers",
    "JudgedAnswers",
    "HybridRetriever",
    "RerankedRetriever",
    "keep_fusion",
    "Fusion",
    "learn_fusion_of",
    "Hybrid",
    "compare",
    "Comparison",
    "write_report",
    "Move",
    "moves_of",
    "write_questions",
    "NextRound",
    "next_round",
    "write_losses",
    "RagFtError",
    "InputError",
    "OutsideError",
    "ContractError",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'rag_ft' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rag_ft.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
