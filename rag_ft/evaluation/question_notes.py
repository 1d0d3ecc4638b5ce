"""Notes on the test questions that limit how far the metrics generalise."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rag_ft.dataset.sources import HEADING, HUMAN, KEY_PHRASES, SENTENCE

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset

SOURCE_NAMES = {KEY_PHRASES: "of key phrases", SENTENCE: "sentences", HEADING: "headings"}
"""Source of questions that need no LLM -> its name in a note."""


def notes_on_questions(dataset: QADataset, split: str) -> list[str]:
    """Return notes on the questions of a split that are also in train, and on those that were generated."""
    qrels = dataset.require(split)
    notes = []
    train_texts = {_plain(dataset.queries[query].text) for query in dataset.qrels.get("train", {}) if split != "train"}
    leaked = sum(_plain(dataset.queries[query].text) in train_texts for query in qrels)
    if leaked:
        notes.append(
            f"{leaked} of {len(qrels)} questions are also in train, so a model that was trained on them scores too "
            f"high. Remove them from train or from {split}."
        )
    sources = [dataset.queries[query].source for query in qrels]
    generated = Counter(SOURCE_NAMES.get(source, "by an LLM") for source in sources if source not in ("", HUMAN))
    if generated:
        counts = ", ".join(f"{count} {source}" for source, count in sorted(generated.items()))
        notes.append(
            f"{generated.total()} of {len(qrels)} questions were generated ({counts}): they share "
            "more words with their passages than real ones do, which favours BM25. Use real questions for a reliable "
            "comparison."
        )
    one_answer = sum(len(qrels[query]) > 1 for query in dataset.one_answer(split))
    if one_answer:
        notes.append(
            f"The answers of {one_answer} of {len(qrels)} questions stand in several passages, which overlap, contain "
            "or repeat each other: the first of them in a ranking counts, and the others are ignored. trec_eval's nDCG "
            "would count each of them."
        )
    return notes


def _plain(text: str) -> str:
    """Return a text in lower case, on one line."""
    return " ".join(text.lower().split())
