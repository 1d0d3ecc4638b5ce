"""List what is needed to reproduce a comparison: versions, the seed, and fingerprints of its inputs and outputs."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.evaluation.comparison import Comparison
from rag_ft.files import sha256_of

PACKAGES = (
    "rag-ft", "torch", "sentence-transformers", "transformers", "chromadb", "llama-index-core", "bm25s", "numpy",
)  # fmt: skip
"""Packages whose version may affect the metrics."""

DIGITS = 16
"""Number of digits of a fingerprint."""


def how_to_reproduce(
    comparison: Comparison, dataset: QADataset | None = None, training: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return name -> value of everything that must be the same to reproduce the metrics.

    Args:
        comparison: any comparison.
        dataset: the dataset of the comparison.
        training: the contents of the model's `rag_ft.json`.
    """
    facts = {"seed": str(comparison.seed)}
    if dataset is not None:
        facts["dataset"] = f"sha256 {fingerprint(dataset, comparison.split)}"
    facts |= {role: name for role, name in comparison.names.items() if name != role}
    if weights := (training or {}).get("weights_sha256"):
        facts["weights of the candidate"] = f"sha256 {weights[:DIGITS]}"
    if comparison.rankings:
        facts["rankings"] = f"sha256 {sha256_of(json.dumps(comparison.rankings, sort_keys=True))[:DIGITS]}"
    facts["Python"] = platform.python_version()
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            facts[name] = importlib.metadata.version(name)
    return facts


def fingerprint(dataset: QADataset, split: str) -> str:
    """Return a fingerprint of 16 digits that changes with any passage, question or judgement of a split.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.report.reproducibility import fingerprint
        >>> dataset = QADataset({"p": Passage("p", "So.")}, {"q": Query("q", "How?")}, {"test": {"q": {"p": 1}}})
        >>> fingerprint(dataset, "test") == fingerprint(dataset.with_qrels({"test": {"q": {"p": 2}}}), "test")
        False
    """
    qrels = dataset.require(split)
    passages = (part for key, text in dataset.passage_texts.items() for part in (key, _bytes(text)))
    questions = (part for key in qrels for part in (key, _bytes(dataset.queries[key].text)))
    return sha256_of(*passages, *questions, json.dumps(qrels, sort_keys=True))[:DIGITS]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
