"""Learn the fusion of an embedding and BM25 on the dev questions of a dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.errors import InputError
from rag_ft.evaluation.runs.embedded_corpus import EmbeddedCorpus
from rag_ft.evaluation.runs.fusion_learning import LearnedFusion, learn_fusion
from rag_ft.files import sha256_of
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.pooling import make_pools

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

MIN_DEV_QUESTIONS = 20
"""Minimum number of dev questions to learn a fusion."""


def learn_fusion_on_dev(
    dataset: QADataset, split: str, corpus: EmbeddedCorpus, bm25: BM25, seed: int
) -> LearnedFusion | None:
    """Learn a fusion on dev questions that are not in a split, or return None if there are too few."""
    if not dataset.qrels.get("dev") and dataset.qrels.get("train") and split != "train":
        # With the seed of its training, hold out the dev questions that selected the model's weights.
        training_seed = getattr(corpus.model, "record", {}).get("recipe", {}).get("seed")
        dataset = hold_out_dev(dataset, seed=seed if training_seed is None else int(training_seed))
    compared = {question_hash(dataset.queries[query].text) for query in dataset.qrels.get(split, {})}
    dev = [
        (text, grades)
        for query, grades in dataset.qrels.get("dev", {}).items()
        if question_hash(text := dataset.queries[query].text) not in compared
    ]
    if split == "dev" or len(dev) < MIN_DEV_QUESTIONS:
        return None
    texts, relevant = zip(*dev, strict=True)
    learned = learn_fusion(list(make_pools(corpus, bm25, texts)), relevant)
    return replace(learned, question_hashes=tuple(map(question_hash, texts)))


def question_hash(question: str) -> str:
    """Return the hash that identifies a question in a model folder."""
    return sha256_of(question)[:12]


def learn_fusion_of(
    dataset: QADataset, embed_model: BaseEmbedding, *, seed: int = 0, show_progress: bool = False
) -> LearnedFusion:
    """Learn how to fuse an embedding with BM25, on the dev questions of a dataset.

    Args:
        dataset: the dataset that the model was trained on, with its dev split. If it has none, the same questions are
            held out of train as in training with this seed.
        embed_model: any LlamaIndex embedding.
        seed: the seed of the training, if the model's folder does not have it.
        show_progress: shows a progress bar while passages are embedded.

    Raises:
        InputError: if there are under 20 dev questions.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import learn_fusion_of
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Form T-{n} is signed in harbour {n}.") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"Where is form T-{n} signed?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"dev": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> learned = learn_fusion_of(dataset, MockEmbedding(embed_dim=8))  # then keep_fusion(index, learned.fusion)
        >>> learned.questions, learned.fusion.weight
        (20, 0.5)
    """
    texts = dataset.passage_texts
    corpus = EmbeddedCorpus(embed_model, texts, [], show_progress)
    learned = learn_fusion_on_dev(dataset, "", corpus, BM25(texts), seed)
    if learned is None:
        raise InputError(
            f"the dataset has {len(dataset.qrels.get('dev', {}))} dev questions: at least {MIN_DEV_QUESTIONS} are "
            "needed to learn a fusion"
        )
    return learned
