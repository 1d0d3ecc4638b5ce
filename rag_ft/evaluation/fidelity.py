"""Fidelity of a faster variant of a model: how close its vectors and rankings are to the model's, and its speed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.retrieval.exact import unit
from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from rag_ft.dataset.qa_dataset import QADataset

K = 10
"""Number of nearest passages to compare."""

MAX_PASSAGES = 2_000
"""Maximum number of passages to embed: those that answer the questions first, then others."""


@dataclass(frozen=True)
class Fidelity:
    """How a variant of a model compares with the model.

    Attributes:
        cosine: mean and lowest cosine similarity of the two vectors of a passage.
        overlap: fraction of the ten nearest passages that both find, over the questions.
        before, after: nDCG@10 of the model and of the variant, by exact search.
        difference: difference in nDCG@10, with its interval.
        times_faster: passages per second, as a multiple of the model's.
        query_milliseconds: median time of a question, of the model and of the variant.
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
            f"(lowest {self.cosine[1]:.4f}), {self.overlap:.1%} of the top {K} in common, "
            f"{self.times_faster:.1f} times the passages per second, {after:.1f} ms per question (before {before:.1f})"
        )


@dataclass(frozen=True)
class _Embedded:
    """Unit vectors under a model or its variant, and the times to compute them."""

    passages: NDArray[np.float32]
    queries: NDArray[np.float32]
    seconds: float
    query_milliseconds: float

    @classmethod
    def measure(cls, model: BaseEmbedding, passages: Sequence[str], queries: Sequence[str]) -> _Embedded:
        """Embed all passages at once, and the queries one by one."""
        model.get_text_embedding_batch(list(passages[:8]))  # warm-up: loading at first use does not count
        started = time.perf_counter()
        passage_vectors = model.get_text_embedding_batch(list(passages))
        seconds = time.perf_counter() - started
        times, query_vectors = [], []
        for query in queries:
            started = time.perf_counter()
            query_vectors.append(model.get_query_embedding(query))
            times.append(time.perf_counter() - started)
        return cls(
            passages=unit(np.asarray(passage_vectors, dtype=np.float32)),
            queries=unit(np.asarray(query_vectors, dtype=np.float32)),
            seconds=seconds,
            query_milliseconds=1000 * float(np.median(times)),
        )

    def nearest(self) -> list[list[int]]:
        """Return the positions of the ten nearest passages for each query."""
        return top_k_rows(self.queries @ self.passages.T, K).tolist()  # type: ignore[no-any-return]


def measure_fidelity(model: BaseEmbedding, variant: BaseEmbedding, dataset: QADataset, split: str = "dev") -> Fidelity:
    """Embed the passages and questions of a split under a model and a variant of it, and compare.

    Args:
        model: the model in full precision.
        variant: the same model in lower precision or in another backend.
        dataset: the dataset; at most 2,000 of its passages count.
        split: the split of the questions.

    Raises:
        InputError: if the split has no question.
    """
    qrels = dataset.require(split)
    texts = dataset.passage_texts
    relevant = dict.fromkeys(passage for grades in qrels.values() for passage in grades)
    ids = list(relevant | dict.fromkeys(texts))[: max(MAX_PASSAGES, len(relevant))]
    queries = [dataset.queries[query].text for query in qrels]
    original, changed = (_Embedded.measure(each, [texts[key] for key in ids], queries) for each in (model, variant))
    cosines = (original.passages * changed.passages).sum(axis=1)
    nearest = original.nearest(), changed.nearest()
    before, after = (
        metrics_per_query(
            {query: [ids[position] for position in row] for query, row in zip(qrels, rows, strict=True)},
            qrels,
            [HEADLINE],
            dataset.one_answer(split),
        )[HEADLINE]
        for rows in nearest
    )
    return Fidelity(
        cosine=(float(cosines.mean()), float(cosines.min())),
        overlap=float(np.mean([len({*a} & {*b}) / len(a) for a, b in zip(*nearest, strict=True)])),
        before=float(before.mean()),
        after=float(after.mean()),
        difference=paired_bootstrap(after - before, list(qrels)),
        times_faster=original.seconds / max(changed.seconds, 1e-9),
        query_milliseconds=(original.query_milliseconds, changed.query_milliseconds),
    )
