"""Advanced options of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rag_ft.evaluation.metrics import DEFAULT_METRICS
from rag_ft.evaluation.verdict import VerdictRules


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Advanced options of `compare`.

    Attributes:
        name: the name of the dataset, for the report.
        metrics: names like `ndcg@10`. nDCG@10 is always measured.
        rules: the limits of a verdict.
        hybrids: adds the fusion of the baseline and of the first candidate with BM25, if they are embeddings. It is
            learned on dev questions that are not in the compared split.

    Example:
        >>> from rag_ft.evaluation import CompareOptions
        >>> CompareOptions(metrics=["recall@20"], hybrids=False).rules.min_questions
        50
    """

    name: str = ""
    metrics: Sequence[str] = DEFAULT_METRICS
    rules: VerdictRules = field(default_factory=VerdictRules)
    hybrids: bool = True
