"""The pairs of a dataset as the texts that training reads, and what kind of questions they have."""

from __future__ import annotations

import random
from dataclasses import dataclass

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.styles import HUMAN
from rag_ft.dataset.text.cloze import without_copy
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.training.recipe import Recipe


@dataclass(frozen=True)
class Pair:
    """A question and a passage that answers it, as texts.

    Attributes:
        keys: the passages, by groups of near-duplicates, that answer the question: none of them may be its
            negative.
    """

    query: str
    passage: str
    keys: frozenset[object] = frozenset()


def training_pairs(dataset: QADataset, recipe: Recipe, max_pairs: int | None = None) -> list[Pair]:
    """The pairs of the train split; a question that is a sentence of its passage is mostly taken out of it.

    Args:
        dataset: with a train split.
        recipe: its `cloze` and `seed`.
        max_pairs: a random sample of so many.
    """
    draw = random.Random(recipe.seed)
    pairs = dataset.pairs("train")
    if max_pairs is not None and max_pairs < len(pairs):
        pairs = [pairs[place] for place in sorted(draw.sample(range(len(pairs)), max_pairs))]
    texts = dataset.passage_texts
    used = list(dict.fromkeys(passage for _, passage in pairs))
    group = dict(zip(used, near_duplicate_groups([texts[passage] for passage in used]), strict=True))
    found = []
    seen: set[tuple[str, int]] = set()
    for query_id, passage_id in pairs:
        # Of passages that nearly repeat each other one is enough.
        if (query_id, group[passage_id]) in seen:
            continue
        seen.add((query_id, group[passage_id]))
        query, passage = dataset.queries[query_id].text, texts[passage_id]
        rest = without_copy(query, passage)
        if rest is not None and draw.random() < recipe.cloze:
            passage = rest
        if query.strip() and passage.strip():
            answers = dataset.qrels["train"][query_id]
            found.append(Pair(query, passage, frozenset(group.get(answer, answer) for answer in answers)))
    return found


def question_styles(dataset: QADataset) -> dict[str, int]:
    """How many training questions of each style there are; those of an unknown making count as `given`."""
    styles: dict[str, int] = {}
    for query in dataset.qrels["train"]:
        style = dataset.queries[query].style or "given"
        styles[style] = styles.get(style, 0) + 1
    return styles


def is_generated(dataset: QADataset) -> bool:
    """Whether most training questions were generated: a style says how."""
    styles = question_styles(dataset)
    return sum(count for style, count in styles.items() if style not in ("given", HUMAN)) * 2 > sum(styles.values())
