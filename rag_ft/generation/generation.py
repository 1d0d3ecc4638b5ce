"""Nodes -> QADataset: questions of several makings, filtered and split honestly."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.documents import passages_from_nodes
from rag_ft.dataset.near_duplicates import near_duplicate_groups
from rag_ft.dataset.qa_dataset import Passage, QADataset, Qrels, Query
from rag_ft.dataset.splitting import split_questions
from rag_ft.errors import InputError
from rag_ft.generation.asking import QUESTION, questions_from_llm
from rag_ft.generation.filters import Pair, filter_questions
from rag_ft.generation.real_questions import HUMAN, RealQuestion, locate
from rag_ft.generation.without_llm import HEADING, KEYWORDS, SENTENCE, questions_without_llm

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

ENOUGH_PAIRS = 1000
MOST_SENTENCES = 4
LOCAL_PASSAGES = 300
"""Passages that a local LLM is asked about at most: on two cores it takes one to three seconds for each."""


@dataclass(frozen=True)
class GeneratedDataset:
    """A dataset, and what was dropped on the way to it.

    Attributes:
        dataset: with the splits train, dev and test.
        dropped: one row for each dropped pair: question, passage, reason, style.
    """

    dataset: QADataset
    dropped: list[dict[str, str]]


def generate_qa_dataset(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    use_llm: bool = True,
    questions: Sequence[RealQuestion] = (),
    questions_per_passage: int = 1,
    max_passages: int | None = None,
    prompt: BasePromptTemplate | None = None,
    journal: str | Path | None = None,
    workers: int = 8,
    seed: int = 0,
    show_progress: bool = False,
) -> GeneratedDataset:
    """Make questions about nodes, filter them, and split them into train, dev and test.

    Training questions are sentences taken out of their passages, headings, and an LLM's questions; dev and test
    questions are of another making: the LLM's alone, or key phrases without an LLM. Questions that
    people asked all go to test, and nothing of them is trained on.

    Args:
        nodes: LlamaIndex nodes; their `MetadataMode.EMBED` text is what is asked about, as it is what is indexed.
        llm: any LlamaIndex LLM; `Settings.llm` where None.
        use_llm: False makes questions without any model.
        questions: questions that people asked, with their documents.
        questions_per_passage: asked of the LLM.
        max_passages: a random sample that the LLM is asked about; a local LLM gets 300 where None, others all.
        prompt: with the variables `passage` and `count`, in place of the built-in one.
        journal: a file that keeps each answer; a run that was killed goes on from it.
        workers: LLM calls in flight.
        seed: of every draw.
        show_progress: a progress bar with rate and time left.

    Raises:
        InputError: where there is no text, or no question could be made of it.
        OutsideError: where the LLM fails again and again; what was answered is in the journal.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import generate_qa_dataset
        >>> texts = [f"Form T-{n} is signed by master number {n}. It is valid for {n} months." for n in range(40)]
        >>> nodes = [TextNode(text=text, id_=f"n{place}") for place, text in enumerate(texts)]
        >>> generate_qa_dataset(nodes, use_llm=False).dataset.splits
        ['train', 'dev', 'test']
    """
    passages = passages_from_nodes(nodes)
    dropped: list[dict[str, str]] = []
    pairs = _without_llm(passages, seed)
    if use_llm:
        asked, dropped = _with_llm(
            passages, llm, questions_per_passage, max_passages, prompt, journal, workers, seed, show_progress
        )
        # The LLM's questions take the place of key phrases as the other making.
        pairs = [pair for pair in pairs if pair[0].style != KEYWORDS] + asked
    if not pairs:
        raise InputError(
            "no question could be made: the passages are too short (sentences of 6 words or more are needed)"
        )
    kept, filtered = filter_questions(pairs, passages)
    dropped += filtered
    evaluating = {QUESTION} if use_llm else {KEYWORDS}
    training = {SENTENCE, HEADING, QUESTION}
    dataset = _split(passages, kept, questions, training, evaluating, seed)
    if not dataset.qrels.get("train"):
        raise InputError(
            f"no training question is left of {len(pairs)} ({_summary(dropped)}): more or longer documents are needed"
        )
    info: dict[str, Any] = {
        "made_by": "rag_ft",
        "llm": _llm_name(llm) if use_llm else "none",
        "seed": seed,
        "styles": dict(Counter(query.style for query in dataset.queries.values())),
        "dropped": dict(Counter(row["reason"].split(":")[0] for row in dropped)),
    }
    return GeneratedDataset(QADataset(dataset.passages, dataset.queries, dataset.qrels, info), dropped)


def _without_llm(passages: dict[str, Passage], seed: int) -> list[Pair]:
    per_passage = min(MOST_SENTENCES, max(1, math.ceil(ENOUGH_PAIRS / len(passages))))
    return questions_without_llm(list(passages.values()), per_passage, seed)


def _llm_name(llm: LLM | None) -> str:
    from llama_index.core import Settings

    return str((llm or Settings.llm).metadata.model_name)


def _with_llm(
    passages: dict[str, Passage],
    llm: LLM | None,
    count: int,
    max_passages: int | None,
    prompt: BasePromptTemplate | None,
    journal: str | Path | None,
    workers: int,
    seed: int,
    show_progress: bool,
) -> tuple[list[Pair], list[dict[str, str]]]:
    from llama_index.core import Settings

    model = llm or Settings.llm
    if max_passages is None and hasattr(model, "complete_many"):
        max_passages = LOCAL_PASSAGES
    chosen = list(passages.values())
    if max_passages is not None and max_passages < len(chosen):
        drawn = sorted(random.Random(seed).sample(range(len(chosen)), max_passages))
        chosen = [chosen[place] for place in drawn]
        logger.info("the LLM is asked about %d of %d passages", len(chosen), len(passages))
    return questions_from_llm(
        chosen,
        model,
        count=count,
        prompt=prompt,
        journal=Path(journal) if journal else None,
        workers=workers,
        show_progress=show_progress,
    )


def _split(
    passages: dict[str, Passage],
    pairs: Sequence[Pair],
    questions: Sequence[RealQuestion],
    training: set[str],
    evaluating: set[str],
    seed: int,
) -> QADataset:
    queries = {query.id: query for query, _ in pairs}
    qrels: Qrels = {query.id: {passage: 1} for query, passage in pairs}
    real: Qrels = {}
    for place, question in enumerate(questions):
        query = Query(question.id or f"human{place}", question.text, HUMAN)
        queries[query.id] = query
        real[query.id] = locate(question, passages)
    dataset = QADataset(passages, queries, {})
    # With real questions to test on, questions about known documents need not be taken from training.
    splits = split_questions(dataset, qrels, new_questions=0.0 if real else 0.15, seed=seed)
    wanted = {"train": training, "dev": evaluating, "test": evaluating}
    splits = {
        name: {query: relevant for query, relevant in part.items() if queries[query].style in wanted[name]}
        for name, part in splits.items()
    }
    if real:
        splits = {name: _unlike(part, real, queries) for name, part in splits.items()}
        splits["test"] = real
    used = {query for part in splits.values() for query in part}
    return QADataset(passages, {key: query for key, query in queries.items() if key in used}, splits)


def _unlike(part: Qrels, real: Qrels, queries: dict[str, Query]) -> Qrels:
    """The questions of a split that do not nearly repeat a real one, which is the test."""
    ids = [*real, *part]
    groups = near_duplicate_groups([queries[query].text for query in ids])
    asked = set(groups[: len(real)])
    return {
        query: part[query]
        for query, group in zip(ids[len(real) :], groups[len(real) :], strict=True)
        if group not in asked
    }


def _summary(dropped: Sequence[dict[str, str]]) -> str:
    reasons = Counter(row["reason"].split(":")[0] for row in dropped)
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)) or "none was dropped"
