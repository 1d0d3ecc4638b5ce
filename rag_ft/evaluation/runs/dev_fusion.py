"""How an embedding and BM25 are mixed best for a dataset: learned on its dev questions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import resampling_groups
from rag_ft.evaluation.runs.embedded_corpus import EmbeddedCorpus
from rag_ft.evaluation.runs.fusion_learning import LearnedFusion, learn_fusion
from rag_ft.files import sha256_of
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.pooling import pools_of

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

FEWEST_DEV = 20
"""Dev questions under which a mix is not learned."""


def fusion_on_dev(
    dataset: QADataset, split: str, corpus: EmbeddedCorpus, words: BM25, seed: int
) -> LearnedFusion | None:
    """The mix that is best on dev; None where there are too few dev questions besides those that are asked."""
    if not dataset.qrels.get("dev") and dataset.qrels.get("train") and split != "train":
        # The questions that chose the model's weights, and that it was not trained on: drawn by its own seed.
        own = getattr(corpus.model, "record", {}).get("recipe", {}).get("seed")
        dataset = hold_out_dev(dataset, seed=seed if own is None else int(own))
    asked = {question_hash(dataset.queries[query].text) for query in dataset.qrels.get(split, {})}
    dev = {
        query: grades
        for query, grades in dataset.qrels.get("dev", {}).items()
        if question_hash(dataset.queries[query].text) not in asked
    }
    if split == "dev" or len(dev) < FEWEST_DEV:
        return None
    dataset = dataset.with_qrels(dataset.qrels | {"dev": dev})
    queries = [dataset.queries[query].text for query in dev]
    pools = list(pools_of(corpus, words, queries))
    learned = learn_fusion(pools, list(dev.values()), resampling_groups(dataset, "dev")[0], seed)
    return replace(learned, asked=tuple(question_hash(query) for query in queries))


def question_hash(question: str) -> str:
    """A question as a model folder remembers it."""
    return sha256_of(question)[:12]


def learn_fusion_of(
    dataset: QADataset, embed_model: BaseEmbedding, *, seed: int = 0, show_progress: bool = False
) -> LearnedFusion:
    """Learn how an embedding and BM25 are mixed best, on the dev questions of a dataset.

    Args:
        dataset: the one that the model was trained on, with its dev split; where it has none, the same questions are
            taken out of train as in training with this seed.
        embed_model: any LlamaIndex embedding.
        seed: of the training, where the model's folder does not say.
        show_progress: a progress bar while passages are embedded.

    Raises:
        InputError: where there are under 20 dev questions.

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
    learned = fusion_on_dev(dataset, "", corpus, BM25(texts), seed)
    if learned is None:
        raise InputError(
            f"the dataset has {len(dataset.qrels.get('dev', {}))} dev questions: at least {FEWEST_DEV} are needed to "
            "learn how lists are mixed"
        )
    return learned
