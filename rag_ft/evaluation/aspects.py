"""Kinds of questions on which a gain may differ: by shared words, length, who made them, cut passages, document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.dataset.sources import HEADING, HUMAN, KEY_PHRASES, SENTENCE
from rag_ft.dataset.text.language import corpus_language
from rag_ft.dataset.text.overlap import content_words
from rag_ft.dataset.units import MIN_DOCUMENTS

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from rag_ft.dataset.qa_dataset import QADataset

FEWEST = 20
"""Questions of a kind, under which it is not told apart."""

FEW_WORDS, MANY_WORDS = 1 / 3, 2 / 3
"""Share of a question's content words that stand in its passage. Questions with many are easy for every retriever, and
generated ones mostly have many: they must not carry the headline."""

SHORT, LONG = 6, 15
"""Words of a question."""

TRUNCATED = "truncated passages"
MAKING = {KEY_PHRASES: "of key phrases", SENTENCE: "sentences", HEADING: "headings"}

AT_ONCE = 256
"""Passages that are cut into tokens at once."""


def aspects_of(dataset: QADataset, split: str, cut: Collection[str] = ()) -> dict[str, NDArray[np.bool_]]:
    """Which questions of a split are of which kind: name -> one truth value a question, in the order of the qrels.

    Kinds of under 20 questions, and of all questions, are left out. Where the questions come from under 10 documents,
    each document is a kind.

    Args:
        dataset: whose questions are asked.
        split: which of them.
        cut: passages that a candidate does not read to their end (`characters_read`).

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
    shared, lengths, styles, truncated, documents = [], [], [], [], []
    for query, relevant in qrels.items():
        words = content(dataset.queries[query].text)
        shares = [len(words & words_in(passage)) / len(words) for passage in list(relevant)[:3] if words]
        shared.append(max(shares, default=0.0))
        lengths.append(len(dataset.queries[query].text.split()))
        styles.append(dataset.queries[query].source)
        truncated.append(any(passage in cut for passage in relevant))
        documents.append(dataset.passages[next(iter(relevant))].document)
    in_common, words_of = np.array(shared), np.array(lengths)
    found = {
        "few words in common": in_common < FEW_WORDS,
        "some words in common": (in_common >= FEW_WORDS) & (in_common < MANY_WORDS),
        "most words in common": in_common >= MANY_WORDS,
        f"short (up to {SHORT} words)": words_of <= SHORT,
        f"long (over {LONG} words)": words_of > LONG,
        TRUNCATED: np.array(truncated),
    }
    made = np.array([style if style not in ("", HUMAN) else "asked by people" for style in styles])
    if len(set(made.tolist())) > 1:
        found |= {name: made == name for name in sorted(set(made.tolist()))}
    asked = np.array(documents)
    if len(set(documents)) < MIN_DOCUMENTS:
        found |= {f"document {name}": asked == name for name in dict.fromkeys(documents)}
    return {name: mask for name, mask in found.items() if FEWEST <= mask.sum() < len(mask)}


def characters_read(model: BaseEmbedding | Any, texts: Mapping[str, str]) -> dict[str, int]:
    """How far a model reads the passages that it does not read to their end, by its own tokenizer.

    Args:
        model: a `FineTunedEmbedding`. Of another embedding nobody knows where it stops: nothing is cut.
        texts: passage id -> text as it is embedded.

    Returns:
        Passage id -> characters that are read, of the passages that are cut.

    Example:
        >>> from rag_ft import FineTunedEmbedding
        >>> from rag_ft.evaluation.aspects import characters_read
        >>> model = FineTunedEmbedding.load("local", max_length=8)
        >>> characters_read(model, {"a": "Leave is booked in HELM, by noon of the day before.", "b": "Leave."})
        {'a': 24}
    """
    transformer = getattr(model, "sentence_transformer", None)
    tokenizer, reach = getattr(transformer, "tokenizer", None), getattr(model, "max_length", None)
    if not reach or not getattr(tokenizer, "is_fast", False):
        return {}
    prefix = getattr(model, "passage_prefix", None) or ""
    read: dict[str, int] = {}
    keys = list(texts)
    for start in range(0, len(keys), AT_ONCE):
        part = keys[start : start + AT_ONCE]
        found = tokenizer(  # type: ignore[misc]
            [prefix + texts[key] for key in part], truncation=True, max_length=reach, return_offsets_mapping=True
        )
        for key, offsets in zip(part, found["offset_mapping"], strict=True):
            end = max(0, max((end for _, end in offsets), default=0) - len(prefix))
            if len(offsets) >= reach and texts[key][end:].strip():
                read[key] = end
    return read


def characters_read_by(models: Iterable[object], dataset: QADataset, split: str) -> dict[str, int]:
    """The same for several models and the passages that answer a split's questions: what the shortest reach leaves."""
    wanted = {passage for relevant in dataset.require(split).values() for passage in relevant}
    texts = {passage: dataset.passage_texts[passage] for passage in dataset.passages if passage in wanted}
    read: dict[str, int] = {}
    for model in models:
        for passage, end in characters_read(getattr(model, "embed_model", model), texts).items():
            read[passage] = min(end, read.get(passage, end))
    return read


def about_questions(dataset: QADataset, split: str) -> list[str]:
    """What the questions are, where that limits what the figures can claim."""
    qrels = dataset.require(split)
    said = []
    trained = {plain(dataset.queries[query].text) for query in dataset.qrels.get("train", {}) if split != "train"}
    leaked = sum(plain(dataset.queries[query].text) in trained for query in qrels)
    if leaked:
        said.append(
            f"{leaked} of {len(qrels)} questions stand in train too: a model that was trained on them is flattered. "
            "Take them out of one of the two."
        )
    styles = Counter(dataset.queries[query].source for query in qrels)
    generated = {style: count for style, count in styles.items() if style not in ("", HUMAN)}
    if generated:
        sources: Counter[str] = Counter()
        for style, count in generated.items():
            sources[MAKING.get(style, "by an LLM")] += count
        kinds = ", ".join(f"{count} {source}" for source, count in sorted(sources.items()))
        said.append(
            f"{sum(generated.values())} of {len(qrels)} questions were generated ({kinds}): they share "
            "words with their passages more than real ones do, which flatters BM25. Real questions would tell more."
        )
    return said


def plain(text: str) -> str:
    """A text without case and line breaks."""
    return " ".join(text.lower().split())
