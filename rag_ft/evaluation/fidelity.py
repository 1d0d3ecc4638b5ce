"""How near a faster form of a model comes to the model: its vectors, what is found with them, and how fast it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from rag_ft.dataset.qa_dataset import QADataset

DEPTH = 10
MOST = 2_000
"""Passages that are embedded for it: those that answer the questions, and others after them."""


@dataclass(frozen=True)
class Fidelity:
    """A form of a model beside the model.

    Attributes:
        cosine: the mean and the lowest one, of the two vectors of a passage.
        overlap: share of the ten nearest passages that both have, over the questions.
        before, after: nDCG@10, by exact search.
        difference: of nDCG@10, with its interval.
        times_faster: passages a second, as a ratio.
        query_milliseconds: the median time of one question, of the model and of its form.
    """

    cosine: tuple[float, float]
    overlap: float
    before: float
    after: float
    difference: Difference
    times_faster: float
    query_milliseconds: tuple[float, float]

    def __str__(self) -> str:
        before, after = self.query_milliseconds
        return (
            f"nDCG@10 {self.before:.3f} -> {self.after:.3f} ({self.difference}), cosine {self.cosine[0]:.4f} "
            f"(lowest {self.cosine[1]:.4f}), {self.overlap:.1%} of the top {DEPTH} the same, "
            f"{self.times_faster:.1f} times the passages a second, {after:.1f} ms a question (before {before:.1f})"
        )


def measure_fidelity(model: BaseEmbedding, form: BaseEmbedding, dataset: QADataset, split: str = "dev") -> Fidelity:
    """Embed the passages and questions of a split under both.

    Args:
        model: in full precision.
        form: the same model in another one, or in another backend.
        dataset: its passages, 2,000 at most.
        split: whose questions are asked.

    Raises:
        InputError: where the split has no question.
    """
    qrels = dataset.require(split)
    texts = dataset.passage_texts
    wanted = dict.fromkeys(passage for grades in qrels.values() for passage in grades)
    ids = list(wanted | dict.fromkeys(texts))[: max(MOST, len(wanted))]
    asked = [dataset.queries[query].text for query in qrels]
    passages, queries, seconds, waits = [], [], [], []
    for each in (model, form):
        each.get_text_embedding_batch([texts[key] for key in ids[:8]])  # what is loaded at first use is not counted
        began = time.perf_counter()
        passages.append(_vectors(each.get_text_embedding_batch([texts[key] for key in ids])))
        seconds.append(time.perf_counter() - began)
        single, found = [], []
        for text in asked:
            began = time.perf_counter()
            found.append(each.get_query_embedding(text))
            single.append(time.perf_counter() - began)
        queries.append(_vectors(found))
        waits.append(1000 * float(np.median(single)))
    cosines = (passages[0] * passages[1]).sum(axis=1)
    tops = [_top(query, passage) for query, passage in zip(queries, passages, strict=True)]
    shared = [len(set(one) & set(other)) / len(one) for one, other in zip(*(top.tolist() for top in tops), strict=True)]
    values = []
    for top in tops:
        rankings = {query: [ids[place] for place in row] for query, row in zip(qrels, top, strict=True)}
        values.append(metrics_per_query(rankings, qrels, [HEADLINE])[HEADLINE])
    return Fidelity(
        (float(cosines.mean()), float(cosines.min())),
        float(np.mean(shared)),
        float(values[0].mean()),
        float(values[1].mean()),
        paired_bootstrap(values[1] - values[0], list(qrels)),
        seconds[0] / max(seconds[1], 1e-9),
        (waits[0], waits[1]),
    )


def _vectors(found: list[list[float]]) -> NDArray[np.float32]:
    vectors = np.asarray(found, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _top(queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.int64]:
    return top_k_rows(queries @ passages.T, DEPTH)
