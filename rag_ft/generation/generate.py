"""Nodes -> QADataset: questions of several makings, filtered and split honestly."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.qa_dataset import Passage, QADataset
from rag_ft.dataset.sources import HEADING, KEY_PHRASES, SENTENCE
from rag_ft.documents.nodes import passages_from_nodes
from rag_ft.errors import InputError
from rag_ft.feedback.questions_from_picks import questions_from_feedback
from rag_ft.generation.filters import Filters, Pair, Row, dropped_row, filter_questions, summary
from rag_ft.generation.llm_judge import judge_questions
from rag_ft.generation.llm_questions import Asking, ask_questions, run_coroutine
from rag_ft.generation.real_questions import RealQuestion
from rag_ft.generation.split_assembly import NEW_DOCUMENTS, Located, assemble, make_real, warn_of_few
from rag_ft.generation.without_llm import questions_without_llm

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from rag_ft.feedback.vote_log import Votes

logger = logging.getLogger(__name__)

ENOUGH_PAIRS = 7000
MOST_SENTENCES = 4


@dataclass(frozen=True)
class GeneratedDataset:
    """A dataset, and what was dropped on the way to it.

    Attributes:
        dataset: with the splits train, dev and test.
        dropped: one row for each dropped pair: query, passage, reason, style.
        requests: sent to LLMs, retries included; answers that came from the journal took none.
    """

    dataset: QADataset
    dropped: list[Row]
    requests: int = 0


def generate_qa_dataset(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    use_llm: bool = True,
    questions: Sequence[RealQuestion] = (),
    feedback: str | Path | Votes | None = None,
    filters: Filters | None = None,
    new_documents: float = NEW_DOCUMENTS,
    seed: int = 0,
    show_progress: bool = False,
    **asking: Any,
) -> GeneratedDataset:
    """Make questions about nodes, filter them, and split them into train, dev and test.

    Training questions are sentences taken out of their passages, headings, and an LLM's questions; dev questions are
    of another making: key phrases, and the LLM's where there is one; test questions the LLM's alone, or else key
    phrases. Questions that people asked go to test first: up to 500 all of them, and nothing of those is trained on.

    Args:
        nodes: LlamaIndex nodes; their `MetadataMode.EMBED` text is what is asked about, as it is what is indexed.
        llm: any LlamaIndex LLM; `Settings.llm` where None.
        use_llm: False makes questions without any model.
        questions: questions that people asked, with their documents or passages.
        feedback: a file of votes, whose picks are trained on (`questions_from_feedback`).
        filters: which questions stay.
        new_documents: share of the documents that training does not see: what the comparison says of them holds for
            documents that are yet to come. 0 where all documents are known: all of them are trained on.
        seed: of every draw.
        show_progress: a progress bar with rate and time left.
        **asking: how the LLM is asked; see `Asking`: `questions_per_passage`, `styles`, `answers`, `prompt`,
            `max_passages`, `journal`, `workers`, `requests_per_minute`, `batch`, `judge`, `approve`.

    Raises:
        InputError: where there is no text, or no question could be made of it.
        OutsideError: where the LLM fails again and again; what was answered is in the journal.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import generate_qa_dataset
        >>> text = "The {0} at the {1} is greased by its keeper. Keepers of a {0} log at the {1} whom they relieve."
        >>> machines = ["crane", "winch", "pump", "gauge", "hoist"]
        >>> places = ["quay", "pier", "dock", "depot", "yard", "silo", "ramp", "lock"]
        >>> nodes = [TextNode(text=text.format(machine, place)) for machine in machines for place in places]
        >>> generate_qa_dataset(nodes, use_llm=False).dataset.splits
        ['train', 'dev', 'test']
    """
    return run_coroutine(
        _generate(
            nodes,
            llm,
            use_llm,
            questions,
            feedback,
            filters,
            Asking(**asking),
            new_documents,
            seed,
            show_progress,
            True,
        )
    )


async def agenerate_qa_dataset(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    use_llm: bool = True,
    questions: Sequence[RealQuestion] = (),
    feedback: str | Path | Votes | None = None,
    filters: Filters | None = None,
    new_documents: float = NEW_DOCUMENTS,
    seed: int = 0,
    show_progress: bool = False,
    **asking: Any,
) -> GeneratedDataset:
    """`generate_qa_dataset` within a running event loop, by the LLM's asynchronous method.

    Example:
        >>> import asyncio
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.generation import agenerate_qa_dataset
        >>> text = "The {0} is greased by its keeper. Whoever breaks the {0} tells the warden."
        >>> machines = ["crane", "winch", "pump", "gauge", "hoist", "lamp", "ladder", "rope", "anchor", "buoy"]
        >>> nodes = [TextNode(text=text.format(machine), id_=machine) for machine in machines]
        >>> made = asyncio.run(agenerate_qa_dataset(nodes, use_llm=False))  # in a notebook: await it
        >>> made.dataset.splits
        ['train', 'dev', 'test']
    """
    return await _generate(
        nodes, llm, use_llm, questions, feedback, filters, Asking(**asking), new_documents, seed, show_progress, False
    )


async def _generate(
    nodes: Sequence[BaseNode],
    llm: LLM | None,
    use_llm: bool,
    questions: Sequence[RealQuestion],
    feedback: str | Path | Votes | None,
    filters: Filters | None,
    asking: Asking,
    new_documents: float,
    seed: int,
    show_progress: bool,
    threads: bool,
) -> GeneratedDataset:
    for name, given in (("llm", llm), ("judge", asking.judge)):
        if isinstance(given, str):
            raise InputError(f"{name} is {given!r}: give a LlamaIndex LLM, or resolve_llm({given!r})")
    if not 0 <= new_documents < 1:
        raise InputError(f"new_documents is {new_documents:g}: give a share from 0 to less than 1")
    corpus = QADataset(passages_from_nodes(nodes), {}, {})
    real, dropped = make_real(questions, corpus)
    warn_of_few(real)
    picked, unusable = _picked(feedback, corpus)
    dropped += unusable
    pairs = await asyncio.to_thread(_without_llm, corpus.passages, seed)
    requests = 0
    evaluating = {KEY_PHRASES}
    model: LLM | None = None
    if use_llm:
        from llama_index.core import Settings

        model = llm or Settings.llm
        passages = list(corpus.passages.values())
        found = await ask_questions(passages, model, asking, seed=seed, threads=threads, show_progress=show_progress)
        asked = found.pairs
        dropped += found.dropped
        requests += found.requests
        pairs += asked
        evaluating = found.styles
    if not pairs:
        raise InputError(
            "no question could be made: the passages are too short (sentences of 6 words or more are needed)"
        )
    kept, filtered = await asyncio.to_thread(_filter, pairs, corpus, filters, show_progress)
    dropped += filtered
    if asking.judge is not None:
        kept, judged, sent = await judge_questions(
            kept, corpus.passages, asking.judge, evaluating, asking, threads, show_progress
        )
        dropped += judged
        requests += sent
    training = {SENTENCE, HEADING} | (evaluating if use_llm else set())
    dataset, left_out = await asyncio.to_thread(
        assemble, corpus, kept, real, training, evaluating, seed, new_documents, picked
    )
    dropped += left_out
    if not dataset.qrels.get("train"):
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary(dropped).most_common(3))
        raise InputError(
            f"no training question is left of {len(pairs)} ({reasons or 'none was dropped'}): more or longer documents "
            "are needed"
        )
    info: dict[str, Any] = {
        "made_by": "rag_ft",
        "llm": model.metadata.model_name if model is not None else "none",
        "seed": seed,
        "styles": dict(Counter(query.source for query in dataset.queries.values())),
        "dropped": dict(summary(dropped)),
    }
    return GeneratedDataset(dataset.with_info(info), dropped, requests)


def _picked(feedback: str | Path | Votes | None, corpus: QADataset) -> tuple[list[Located], list[Row]]:
    if feedback is None:
        return [], []
    found, dropped = questions_from_feedback(feedback, corpus.passages)
    located, lost = make_real(found, corpus, "picked")
    return located, dropped + lost


def _without_llm(passages: dict[str, Passage], seed: int) -> list[Pair]:
    per_passage = min(MOST_SENTENCES, max(1, math.ceil(ENOUGH_PAIRS / len(passages))))
    return questions_without_llm(list(passages.values()), per_passage, seed)


def _filter(
    pairs: Sequence[Pair], corpus: QADataset, filters: Filters | None, show_progress: bool
) -> tuple[list[Pair], list[Row]]:
    from rag_ft.dataset.units import MAX_DOCUMENTS_OF_REPEAT

    common = corpus.boilerplate
    reason = f"its passage nearly repeats in more than {MAX_DOCUMENTS_OF_REPEAT} documents"
    dropped = [dropped_row(query, passage, reason) for query, passage in pairs if passage in common]
    pairs = [(query, passage) for query, passage in pairs if passage not in common]
    kept, filtered = filter_questions(
        pairs, corpus.passages, filters, groups=corpus.near_duplicates, show_progress=show_progress
    )
    return kept, dropped + filtered
