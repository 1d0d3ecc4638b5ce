"""Comparisons without a model: each answer has the rank that a test needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.evaluation import CompareOptions, Comparison, Run, score_runs

ATTACK = "<script>alert('x')</script> & \"quotes\" </td></table>"
ARABIC = "يحق لكل موظف عشرون يوما من الإجازة."
TRAINING = {
    "base_model": "a/base",
    "recipe": {"epochs": 3, "shares": [0.5, 0.25]},
    "training": {
        "pairs": 40,
        "share": 0.5,
        "dev_ndcg@10": {"base": 0.5, "share 0.5": 0.625},
        "question_styles": {"sentence": 12, "human": 28},
    },
}


def dataset_of(documents: int = 30) -> QADataset:
    """Two passages for each document and a question about each; training asks about the even documents."""
    passages = {
        f"p{d}{side}": Passage(f"p{d}{side}", f"Rule {side} of section {d}.", doc_id=f"section-{d}")
        for d in range(documents)
        for side in "ab"
    }
    passages["p1a"] = Passage("p1a", ATTACK, doc_id="<b>evil</b>.md")
    passages["p3a"] = Passage("p3a", ARABIC, doc_id="section-3")
    qrels: dict[str, dict[str, dict[str, int]]] = {"train": {}, "test": {}}
    for place, passage in enumerate(passages):
        side = "train" if passage.endswith("b") and place % 4 == 1 else "test"
        qrels[side][f"q-{passage}"] = {passage: 1}
    queries = {f"q-{passage}": Query(f"q-{passage}", f"What does {passage} say?") for passage in passages}
    return QADataset(passages, queries, qrels)


def ranking(dataset: QADataset, relevant: str, rank: int | None) -> list[str]:
    """All passages, the relevant one at a given rank, or missing."""
    others = [passage for passage in dataset.passages if passage != relevant]
    return others if rank is None else [*others[: rank - 1], relevant, *others[rank - 1 :]]


def compared(
    dataset: QADataset, baseline: int | None = 4, candidate: int | None = 1, candidate_name: str = "tuned"
) -> Comparison:
    """A comparison in which each model ranks every answer alike; BM25 never finds it."""
    ranks = {"baseline": baseline, "candidate": candidate, "bm25": None}
    wanted = [next(iter(relevant)) for relevant in dataset.qrels["test"].values()]
    rankings = {role: [ranking(dataset, passage, rank) for passage in wanted] for role, rank in ranks.items()}
    names = {"baseline": "a/base", "candidate": candidate_name, "bm25": "bm25"}
    details = {"baseline": {"exact_agreement": 0.998}, "candidate": {"exact_agreement": 1.0}}
    return score_runs(dataset, "test", runs_of(rankings, names, details), CompareOptions(name="policies"))


def runs_of(
    rankings: Mapping[str, list[list[str]]],
    names: Mapping[str, str] | None = None,
    details: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Run]:
    """Runs with these rankings, by role."""
    return {
        role: Run(lists, (names or {}).get(role, ""), (details or {}).get(role, {})) for role, lists in rankings.items()
    }
