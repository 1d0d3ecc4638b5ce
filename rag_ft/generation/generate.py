"""Generate a dataset from nodes: questions from several sources, filtered and split."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.formats.real_questions import RealQuestion
from rag_ft.dataset.overlap import made_of_smaller, measure_overlap
from rag_ft.dataset.qa_dataset import Passage, QADataset
from rag_ft.dataset.sources import HEADING, KEY_PHRASES, SENTENCE
from rag_ft.dataset.units import MAX_DOCUMENTS_OF_REPEAT
from rag_ft.documents.node_documents import other_names
from rag_ft.documents.nodes import passages_from_nodes
from rag_ft.errors import InputError
from rag_ft.feedback.questions_from_picks import questions_from_feedback
from rag_ft.generation.filters import Pair, count_by_reason, filter_questions
from rag_ft.generation.llm_judge import judge_questions
from rag_ft.generation.llm_questions import LLMQuestions, generate_questions
from rag_ft.generation.located_questions import LocatedQuestion, locate_questions, warn_if_few
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.generation.split_assembly import UNSEEN_DOCUMENTS, SplitPlan, assemble
from rag_ft.generation.without_llm import questions_without_llm
from rag_ft.remote.event_loop import run_coroutine

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

TARGET_PAIRS = 7000
"""Approximate number of sentence questions: a small corpus gets more sentences per passage."""

MAX_SENTENCES = 4
"""Maximum number of sentences taken from a passage."""


@dataclass(frozen=True)
class GeneratedDataset:
    """A generated dataset and the dropped questions.

    Attributes:
        dataset: the dataset with the splits train, dev and test.
        dropped: one row for each dropped pair: query, passage, reason, style.
        requests: number of requests sent to LLMs, including retries. Responses from the journal do not count.
    """

    dataset: QADataset
    dropped: list[DroppedRow]
    requests: int = 0


def generate_qa_dataset(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    use_llm: bool = True,
    questions: Sequence[RealQuestion] = (),
    unseen_documents: float = UNSEEN_DOCUMENTS,
    seed: int = 0,
    question_options: QuestionOptions | None = None,
) -> GeneratedDataset:
    """Generate questions about nodes, filter them, and split them into train, dev and test.

    Training questions are sentences taken out of their passages, headings, and an LLM's questions. Dev questions come
    from another source: key phrases, and the LLM's if there is one. Test questions are the LLM's; without an LLM they
    are key phrases. Real questions go to test first: up to 500 are all used for test and not for training.

    Args:
        nodes: LlamaIndex nodes. The questions are about their `MetadataMode.EMBED` text, which the index embeds.
        llm: any LlamaIndex LLM; `Settings.llm` if None.
        use_llm: if False, questions are generated without an LLM.
        questions: questions that people asked, with their documents or passages.
        unseen_documents: fraction of the documents that training does not see. Results on them predict the quality on
            future documents. If 0, training sees all documents.
        seed: seeds every random choice.
        question_options: what the LLM is asked for and how it is called, the filters, and the vote log.

    Raises:
        InputError: if there is no text, or no question can be generated from it.
        OutsideError: if the LLM fails repeatedly. The responses so far are in the journal.

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
    options = question_options or QuestionOptions()
    generation = _Generation(llm, use_llm, questions, unseen_documents, seed, options, threads=True)
    return run_coroutine(generation.run(nodes))


async def agenerate_qa_dataset(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    use_llm: bool = True,
    questions: Sequence[RealQuestion] = (),
    unseen_documents: float = UNSEEN_DOCUMENTS,
    seed: int = 0,
    question_options: QuestionOptions | None = None,
) -> GeneratedDataset:
    """Do the same as `generate_qa_dataset` within a running event loop, with the LLM's asynchronous method.

    Example:
        >>> import asyncio
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.generation import agenerate_qa_dataset
        >>> text = "The {0} is greased by its keeper. Whoever breaks the {0} tells the warden."
        >>> machines = ["crane", "winch", "pump", "gauge", "hoist", "lamp", "ladder", "rope", "anchor", "buoy"]
        >>> nodes = [TextNode(text=text.format(machine), id_=machine) for machine in machines]
        >>> generated = asyncio.run(agenerate_qa_dataset(nodes, use_llm=False))  # in a notebook: await it
        >>> generated.dataset.splits
        ['train', 'dev', 'test']
    """
    options = question_options or QuestionOptions()
    return await _Generation(llm, use_llm, questions, unseen_documents, seed, options, threads=False).run(nodes)


@dataclass(frozen=True)
class _Generation:
    """The arguments of `generate_qa_dataset`; `threads` as in `CallOptions`."""

    llm: LLM | None
    use_llm: bool
    questions: Sequence[RealQuestion]
    unseen_documents: float
    seed: int
    options: QuestionOptions
    threads: bool

    def __post_init__(self) -> None:
        if isinstance(self.llm, str):
            raise InputError(f"llm is {self.llm!r}: pass a LlamaIndex LLM, or resolve_llm({self.llm!r})")
        if not 0 <= self.unseen_documents < 1:
            raise InputError(f"unseen_documents is {self.unseen_documents:g}: pass a fraction from 0 to less than 1")

    async def run(self, nodes: Sequence[BaseNode]) -> GeneratedDataset:
        corpus = QADataset(passages_from_nodes(nodes), {}, {})
        for warning in measure_overlap(corpus).warnings():
            logger.warning("%s", warning)
        document_of = {key: passage.doc_id for key, passage in corpus.passages.items()}
        real, dropped = locate_questions(self.questions, corpus, other_names=other_names(nodes, document_of))
        warn_if_few(real)
        picked, unusable = self._located_picks(corpus)
        # Questions about a chapter are those about its paragraphs.
        larger = await asyncio.to_thread(made_of_smaller, corpus)
        passages = [passage for key, passage in corpus.passages.items() if key not in larger]
        pairs = await asyncio.to_thread(self._pairs_without_llm, passages)
        llm = self._resolve_llm()
        llm_questions = await self._ask_llm(passages, llm)
        pairs += llm_questions.pairs
        if not pairs:
            raise InputError(
                "no questions were generated: the passages are too short (sentences of 6 words or more are needed)"
            )
        kept, filtered = await asyncio.to_thread(self._filter, pairs, corpus)
        kept, rejected, judge_requests = await self._judge(kept, corpus, llm_questions.styles)
        plan = SplitPlan(
            training={SENTENCE, HEADING} | (llm_questions.styles if self.use_llm else set()),
            evaluation=llm_questions.styles, unseen_documents=self.unseen_documents, seed=self.seed,
        )  # fmt: skip
        dataset, left_out = await asyncio.to_thread(assemble, corpus, kept, real, picked, plan)
        dropped += [*unusable, *llm_questions.dropped, *filtered, *rejected, *left_out]
        if not dataset.qrels.get("train"):
            reasons = ", ".join(f"{count} {reason}" for reason, count in count_by_reason(dropped).most_common(3))
            raise InputError(
                f"no training questions are left of {len(pairs)} generated ones ({reasons or 'none was dropped'}): "
                "add more or longer documents"
            )
        info = {
            "made_by": "rag_ft",
            "llm": llm.metadata.model_name if llm is not None else "none",
            "seed": self.seed,
            "styles": dict(Counter(query.source for query in dataset.queries.values())),
            "dropped": dict(count_by_reason(dropped)),
        }
        return GeneratedDataset(dataset.with_info(info), dropped, llm_questions.requests + judge_requests)

    def _located_picks(self, corpus: QADataset) -> tuple[list[LocatedQuestion], list[DroppedRow]]:
        if self.options.feedback is None:
            return [], []
        questions, unusable = questions_from_feedback(self.options.feedback, corpus.passages)
        located, missing = locate_questions(questions, corpus, "picked")
        return located, unusable + missing

    def _pairs_without_llm(self, passages: Sequence[Passage]) -> list[Pair]:
        per_passage = min(MAX_SENTENCES, max(1, math.ceil(TARGET_PAIRS / len(passages))))
        return questions_without_llm(passages, per_passage, self.seed)

    def _resolve_llm(self) -> LLM | None:
        from llama_index.core import Settings

        return (self.llm or Settings.llm) if self.use_llm else None

    async def _ask_llm(self, passages: Sequence[Passage], llm: LLM | None) -> LLMQuestions:
        if llm is None:
            return LLMQuestions([], [], 0, {KEY_PHRASES})
        return await generate_questions(passages, llm, self.options, seed=self.seed, threads=self.threads)

    def _filter(self, pairs: Sequence[Pair], corpus: QADataset) -> tuple[list[Pair], list[DroppedRow]]:
        reason = f"its passage nearly repeats in more than {MAX_DOCUMENTS_OF_REPEAT} documents"
        dropped = [dropped_row(query, passage, reason) for query, passage in pairs if passage in corpus.boilerplate]
        kept, filtered = filter_questions(
            [pair for pair in pairs if pair[1] not in corpus.boilerplate], corpus.passages, self.options.filters,
            groups=corpus.near_duplicates, show_progress=self.options.show_progress,
        )  # fmt: skip
        return kept, dropped + filtered

    async def _judge(
        self, pairs: list[Pair], corpus: QADataset, sources: Set[str]
    ) -> tuple[list[Pair], list[DroppedRow], int]:
        judge = self.options.judge
        if judge is None:
            return pairs, [], 0
        return await judge_questions(pairs, corpus.passages, judge, sources, self.options, threads=self.threads)
