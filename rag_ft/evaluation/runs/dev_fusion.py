"""Learn the fusion of an embedding and BM25 on the dev questions of a dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.evaluation.runs.dev_split import MIN_DEV_QUESTIONS, DevSplit, dev_split_of
from rag_ft.evaluation.runs.embedded_corpus import EmbeddedCorpus
from rag_ft.evaluation.runs.fusion_learning import LearnedFusion, learn_fusion
from rag_ft.files import sha256_of
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.fusion import Fusion
from rag_ft.retrieval.pooling import make_pools
from rag_ft.retrieval.top_k import MAX_RANK

if TYPE_CHECKING:
    import numpy as np
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray


class DevPools:
    """What an embedding and BM25 find for each dev question, to learn their fusion and to score it.

    Args:
        split: the dev questions.
        corpus: the embedded passages.
        bm25: BM25 over the same passages.

    Attributes:
        learned: the fusion that was learned on these questions.
    """

    def __init__(self, split: DevSplit, corpus: EmbeddedCorpus, bm25: BM25) -> None:
        self._split = split
        self._pools = list(make_pools(corpus, bm25, split.texts))
        learned = learn_fusion(self._pools, list(split.qrels.values()), split.has_one_answer)
        self.learned = replace(learned, question_hashes=tuple(map(question_hash, split.texts)))

    def fused(self, fusion: Fusion) -> NDArray[np.float64]:
        """Return nDCG@10 of each question under a fusion that was not learned on them, shape (questions,)."""
        return self._split.ndcg([key for key, _ in fusion.rank(pool)[:MAX_RANK]] for pool in self._pools)

    def learned_fused(self) -> NDArray[np.float64]:
        """Return nDCG@10 of each question under the fusion that other questions choose, shape (questions,)."""
        return self.learned.cross_validated(self._split.groups)


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
    split = dev_split_of(dataset, "", [embed_model], seed)
    if split is None:
        raise InputError(
            f"under {MIN_DEV_QUESTIONS} dev questions can be used to learn a fusion (the dataset has "
            f"{len(dataset.qrels.get('dev', {}))}; those that the model was trained on do not count): add dev questions"
        )
    return DevPools(split, EmbeddedCorpus(embed_model, texts, [], show_progress), BM25(texts)).learned
