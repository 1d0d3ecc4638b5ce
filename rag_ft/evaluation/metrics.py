"""Retrieval metrics as trec_eval defines them, for all queries at once."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag_ft.errors import InputError

DEFAULT_METRICS = ("hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10", "ndcg@10", "recall@10")
HEADLINE = "ndcg@10"
"""The metric that decides the verdict."""


def metrics_per_query(
    rankings: Mapping[str, Sequence[str]],
    qrels: Mapping[str, Mapping[str, int]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    one_answer: Container[str] = (),
) -> dict[str, NDArray[np.float64]]:
    """Score the ranking of each query.

    Hit rate: whether a relevant passage is in the top k. MRR: 1 / rank of the first one. Recall and precision: the
    relevant passages in the top k, as a fraction of all relevant passages and of k. MAP: mean precision at each
    relevant passage. nDCG: gains are the grades, the discount of rank r is 1 / log2(r + 1), and the ideal ranking is
    cut at k (Järvelin and Kekäläinen 2002, as in trec_eval's ndcg_cut).

    Where passages overlap, the answer of one question stands in several of them. Such a question counts as one with a
    single relevant passage: the first in the ranking that holds the answer. Otherwise its ideal ranking, and with it
    recall, MAP and nDCG, would depend on how often the corpus repeats itself.

    Args:
        rankings: query id -> passage ids, best first.
        qrels: query id -> passage id -> grade. Its order is the order of the result.
        metrics: names like `ndcg@10`.
        one_answer: ids of the queries whose relevant passages all hold the same answer.

    Returns:
        Metric -> value of each query, shape (queries,).

    Raises:
        InputError: if a metric is unknown.

    Example:
        >>> from rag_ft.evaluation.metrics import metrics_per_query
        >>> metrics_per_query({"q": ["a", "b"]}, {"q": {"b": 1}}, ["mrr@10"])["mrr@10"].tolist()
        [0.5]
    """
    parsed = {name: _parse(name) for name in metrics}
    deepest = max(k for _, k in parsed.values())
    gains = np.zeros((len(qrels), deepest))
    ideal = np.zeros((len(qrels), deepest))
    relevant = np.zeros(len(qrels))
    for row, (query, grades) in enumerate(qrels.items()):
        ranked = [grades.get(passage, 0) for passage in rankings.get(query, ())[:deepest]]
        best = sorted(grades.values(), reverse=True)[:deepest]
        if query in one_answer:
            ranked, best = first_gain(ranked), best[:1] and [1]
        gains[row, : len(ranked)] = ranked
        ideal[row, : len(best)] = best
        relevant[row] = len(best) if query in one_answer else len(grades)
    return {name: _FORMULAS[kind](gains, ideal, relevant, k) for name, (kind, k) in parsed.items()}


def first_gain(gains: Sequence[float]) -> list[int]:
    """Return gains in which only the first one above 0 counts, as 1.

    Example:
        >>> from rag_ft.evaluation.metrics import first_gain
        >>> first_gain([0, 2, 1])
        [0, 1, 0]
    """
    first = next((rank for rank, gain in enumerate(gains) if gain > 0), -1)
    return [int(rank == first) for rank in range(len(gains))]


def ndcg_of_gains(gains: Sequence[float] | NDArray[Any], ideal: Sequence[float], k: int) -> float:
    """Return nDCG@k of one ranking.

    Args:
        gains: the grades of the ranked passages, best first.
        ideal: the grades of all relevant passages, highest first.
        k: the cut-off.

    Example:
        >>> from rag_ft.evaluation.metrics import ndcg_of_gains
        >>> round(ndcg_of_gains([0, 1], [1], 10), 3)
        0.631
    """
    dcg, ideal_dcg = (
        float(cut @ (1 / np.log2(np.arange(2, len(cut) + 2))))
        for cut in (np.asarray(gains, dtype=float)[:k], np.asarray(ideal, dtype=float)[:k])
    )
    return dcg / ideal_dcg if ideal_dcg > 0 else 0.0


def _parse(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"([a-z_]+)@([1-9]\d*)", name)
    if not match or match[1] not in _FORMULAS:
        raise InputError(f"unknown metric {name!r}: use one of {', '.join(_FORMULAS)} followed by @ and a number")
    return match[1], int(match[2])


Matrix = NDArray[np.float64]


def _hit_rate(gains: Matrix, ideal: Matrix, relevant: Matrix, k: int) -> Matrix:
    return (gains[:, :k] > 0).any(axis=1).astype(float)


def _mrr(gains: Matrix, ideal: Matrix, relevant: Matrix, k: int) -> Matrix:
    hits = gains[:, :k] > 0
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)


def _recall(gains: Matrix, ideal: Matrix, relevant: Matrix, k: int) -> Matrix:
    return (gains[:, :k] > 0).sum(axis=1) / np.maximum(relevant, 1)


def _precision(gains: Matrix, ideal: Matrix, relevant: Matrix, k: int) -> Matrix:
    return (gains[:, :k] > 0).sum(axis=1) / k


def _map(gains: Matrix, ideal: Matrix, relevant: Matrix, k: int) -> Matrix:
    hits = gains[:, :k] > 0
    precision = hits.cumsum(axis=1) / np.arange(1, k + 1)
    return (precision * hits).sum(axis=1) / np.maximum(relevant, 1)


def _ndcg(gains: Matrix, ideal: Matrix, relevant: Matrix, k: int) -> Matrix:
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = ideal[:, :k] @ discount
    return np.divide(gains[:, :k] @ discount, best, out=np.zeros(len(best)), where=best > 0)


_FORMULAS = {"hit_rate": _hit_rate, "mrr": _mrr, "ndcg": _ndcg, "recall": _recall, "precision": _precision, "map": _map}
