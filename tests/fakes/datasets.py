"""Datasets whose answers can be learned, or are noise."""

from __future__ import annotations

import random

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query

WORDS = [f"word{n}" for n in range(30)]
JARGON = {word: f"jargon{n}" for n, word in enumerate(WORDS)}


def jargon_dataset(documents: int = 60, noise: bool = False, seed: int = 0) -> QADataset:
    """Questions that replace the words of their passage with jargon; with noise, questions about random passages."""
    draw = random.Random(seed)
    passages, queries = {}, {}
    qrels: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    for document in range(documents):
        for place in range(3):
            key = f"d{document}#{place}"
            text = draw.sample(WORDS, 8)
            passages[key] = Passage(key, " ".join(text), doc_id=f"d{document}")
            split = "train" if document % 5 < 3 else "dev" if document % 5 == 3 else "test"
            query = f"q{key}"
            queries[query] = Query(query, " ".join(JARGON[word] for word in draw.sample(text, 5)))
            answer = f"d{draw.randrange(document + 1)}#{draw.randrange(3)}" if noise else key
            if noise:
                queries[query] = Query(query, " ".join(draw.sample(WORDS, 5)))
            qrels[split][query] = {answer: 1}
    return QADataset(passages, queries, qrels)
