"""Kinds of questions on which a gain may differ: by the words that they share, their length, and who made them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.inspection import content_words
from rag_ft.dataset.styles import HUMAN
from rag_ft.dataset.text.language import corpus_language

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.dataset.qa_dataset import QADataset

FEWEST = 20
"""Questions of a kind, under which it is not told apart."""

FEW_WORDS, MANY_WORDS = 1 / 3, 2 / 3
"""Share of a question's content words that stand in its passage. Questions with many are easy for every retriever, and
generated ones mostly have many: they must not carry the headline."""

SHORT, LONG = 6, 15
"""Words of a question."""


def aspects_of(dataset: QADataset, split: str) -> dict[str, NDArray[np.bool_]]:
    """Which questions of a split are of which kind: name -> one truth value a question, in the order of the qrels.

    Kinds of under 20 questions, and of all questions, are left out.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation.aspects import aspects_of
        >>> asked = ["Where is leave booked, and when?", "How do I get my holidays at all?"]
        >>> queries = {f"q{n}": Query(f"q{n}", asked[n % 2]) for n in range(60)}
        >>> dataset = QADataset({"p": Passage("p", "Leave is booked in HELM.")}, queries,
        ...                     {"test": {query: {"p": 1} for query in queries}})
        >>> {name: int(mask.sum()) for name, mask in aspects_of(dataset, "test").items()}
        {'few words in common': 30, 'most words in common': 30, 'short (up to 6 words)': 30}
    """
    qrels = dataset.require(split)
    texts = dataset.passage_texts
    content = content_words(corpus_language(list(texts.values())[:500]) or "en")
    words_in = lru_cache(maxsize=10_000)(lambda passage: content(texts[passage]))
    shared, lengths, styles = [], [], []
    for query, relevant in qrels.items():
        words = content(dataset.queries[query].text)
        shares = [len(words & words_in(passage)) / len(words) for passage in list(relevant)[:3] if words]
        shared.append(max(shares, default=0.0))
        lengths.append(len(dataset.queries[query].text.split()))
        styles.append(dataset.queries[query].style)
    in_common, words_of = np.array(shared), np.array(lengths)
    found = {
        "few words in common": in_common < FEW_WORDS,
        "some words in common": (in_common >= FEW_WORDS) & (in_common < MANY_WORDS),
        "most words in common": in_common >= MANY_WORDS,
        f"short (up to {SHORT} words)": words_of <= SHORT,
        f"long (over {LONG} words)": words_of > LONG,
    }
    made = np.array([style if style not in ("", HUMAN) else "asked by people" for style in styles])
    if len(set(made.tolist())) > 1:
        found |= {name: made == name for name in sorted(set(made.tolist()))}
    return {name: mask for name, mask in found.items() if FEWEST <= mask.sum() < len(mask)}
