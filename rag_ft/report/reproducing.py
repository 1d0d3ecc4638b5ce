"""How a comparison is made again: versions, seed, command, and fingerprints of what went in and came out."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.evaluation.comparison import Comparison
from rag_ft.files import sha256_of

PACKAGES = (
    "rag-ft", "torch", "sentence-transformers", "transformers", "chromadb", "llama-index-core", "bm25s", "numpy",
)  # fmt: skip
DIGITS = 16


def how_to_reproduce(
    comparison: Comparison, dataset: QADataset | None = None, training: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What has to be the same for the same figures, as name -> value.

    Args:
        comparison: any.
        dataset: that was compared on.
        training: the content of the model's `rag_ft.json`.
    """
    found = {"seed": str(comparison.seed)}
    if dataset is not None:
        found["dataset"] = f"sha256 {fingerprint(dataset, comparison.split)}"
    for role, name in comparison.names.items():
        if name != role:
            found[role] = name
    if weights := (training or {}).get("weights_sha256"):
        found["weights of the candidate"] = f"sha256 {weights[:DIGITS]}"
    if comparison.rankings:
        found["rankings"] = f"sha256 {sha256_of(json.dumps(comparison.rankings, sort_keys=True))[:DIGITS]}"
    return found | {"Python": platform.python_version()} | versions()


def versions() -> dict[str, str]:
    """Package -> version, of those that a figure may depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def fingerprint(dataset: QADataset, split: str) -> str:
    """16 digits that change with any passage, question or judgement of a split.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.report.reproducing import fingerprint
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
