"""Which passages answer a generated question, what training makes of them, and the evidence that an LLM gives."""

from __future__ import annotations

import json
import random
import re

import pytest
from fakes.llms import FakeLLM
from fakes.texts import WORDS
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter

from rag_ft import Passage, QADataset, Query, Recipe, generate_qa_dataset
from rag_ft.dataset import RealQuestion, merge_datasets
from rag_ft.dataset.overlap import made_of_smaller
from rag_ft.dataset.text.cloze import located_span
from rag_ft.errors import InputError
from rag_ft.generation.filters import Filters
from rag_ft.generation.llm_questions import questions_from_llm
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.generation.relevance import Relevance, answer_span
from rag_ft.generation.without_llm import shortest_part_with
from rag_ft.training.examples.batch_sampler import NoFalseNegativesBatchSampler, SamplerRows
from rag_ft.training.examples.pairs import pair_examples

UNFILTERED = QuestionOptions(filters=Filters(round_trip="none"))
"""Random words do not lead back to their passage."""


def long_documents(count: int = 12) -> list[Document]:
    """Documents of sixty sentences of random words."""
    documents = []
    for number in range(count):
        draw = random.Random(number)
        sentences = [" ".join(draw.choices(WORDS, k=11)).capitalize() + "." for _ in range(60)]
        metadata = {"file_name": f"rules{number}.md"}
        documents.append(
            Document(text=" ".join(sentences), metadata=metadata, excluded_embed_metadata_keys=["file_name"])
        )
    return documents


@pytest.mark.parametrize("overlap", [0, 64, 128])
def test_every_passage_that_holds_the_sentence_is_relevant(overlap: int) -> None:
    nodes = SentenceSplitter(chunk_size=256, chunk_overlap=overlap).get_nodes_from_documents(long_documents())
    dataset = generate_qa_dataset(nodes, use_llm=False, question_options=UNFILTERED).dataset
    several = 0
    for split in dataset.splits:
        for query, relevant in dataset.qrels[split].items():
            question = dataset.queries[query]
            assert question.one_answer
            span = question.evidence or question.text
            holders = {key for key, passage in dataset.passages.items() if span in " ".join(passage.text.split())}
            assert holders <= relevant.keys()
            several += len(holders) > 1
    assert (several > 0) is (overlap > 0)


def test_in_a_hierarchy_the_smallest_node_is_the_best_answer_and_the_only_positive() -> None:
    nodes = HierarchicalNodeParser.from_defaults(chunk_sizes=[512, 256, 128]).get_nodes_from_documents(long_documents())
    dataset = generate_qa_dataset(nodes, use_llm=False, question_options=UNFILTERED).dataset
    sizes = {key: len(passage.own_text) for key, passage in dataset.passages.items()}
    for query, relevant in dataset.qrels["train"].items():
        best = max(relevant, key=lambda key: (relevant[key], -sizes[key]))
        assert sizes[best] == min(sizes[key] for key in relevant), query
    pairs = dataset.pairs("train")
    assert len(pairs) == len(dataset.qrels["train"])
    positives = {sizes[passage] for _, passage in pairs}
    assert max(positives) < max(sizes.values()) / 2


def test_a_passage_that_holds_the_answer_is_not_in_the_batch() -> None:
    nodes = SentenceSplitter(chunk_size=256, chunk_overlap=128).get_nodes_from_documents(long_documents())
    dataset = generate_qa_dataset(nodes, use_llm=False, question_options=UNFILTERED).dataset
    examples = pair_examples(dataset, Recipe(cloze=0))
    texts = {text: key for key, text in dataset.passage_texts.items()}
    rows = SamplerRows(
        positive_ids=[example.positive_ids for example in examples],
        in_batch_ids=[example.in_batch_ids for example in examples],
    )
    sampler = NoFalseNegativesBatchSampler(list(range(len(examples))), batch_size=16, drop_last=False, rows=rows)  # type: ignore[arg-type]
    by_text = {query.text: query.id for query in dataset.questions("train")}
    batches = list(sampler)
    assert len(batches) > 3
    for batch in batches:
        for row in batch:
            relevant = dataset.qrels["train"][by_text[examples[row].anchor]]
            others = {texts[examples[other].positive] for other in batch if other != row}
            assert not others & relevant.keys()


def test_an_answer_in_many_documents_asks_about_none_of_them() -> None:
    passages = {
        f"p{n}": Passage(f"p{n}", f"Keeper {n} signs. Ask the steward for a printed copy of it.", doc_id=f"d{n}")
        for n in range(8)
    }
    relevance = Relevance(QADataset(passages, {}, {}))
    found = relevance.of(Query("q", "Ask the steward for a printed copy of it.", "sentence"), "p0")
    assert len(found) == 8
    assert relevance.in_many_documents(found)


def test_short_evidence_is_widened_to_its_sentence() -> None:
    passage = Passage("p", "Leave is granted. It lasts up to 40 days a year. Ask the master.")
    assert (
        answer_span(Query("q", "How long?", "question", evidence="40 days"), passage)
        == "It lasts up to 40 days a year."
    )
    assert answer_span(Query("q", "How long?", "question"), passage) == passage.text


THINGS = ["anchor", "buoy", "crane", "derrick", "gauge", "hoist", "lamp"]


@given(
    words=st.lists(st.sampled_from(THINGS[:5]), min_size=1, max_size=3, unique=True),
    text=st.lists(st.sampled_from(THINGS), max_size=30),
)
def test_the_shortest_part_has_all_words(words: list[str], text: list[str]) -> None:
    part = shortest_part_with(words, " ".join(text))
    if set(words) <= set(text):
        assert set(words) <= set(part.split())
        assert {part.split()[0], part.split()[-1]} <= set(words)
    else:
        assert part == ""


class LLMWithEvidence(FakeLLM):
    """Gives evidence: once copied from the passage, once made up."""

    def answer(self, prompt: str) -> str:
        assert '"evidence"' in prompt
        assert "file_path" not in prompt
        good = {"style": "question", "question": "Where is leave booked?", "evidence": "booked  in\nHELM by noon"}
        made_up = {"style": "keywords", "question": "leave booking office", "evidence": "in the office of the master"}
        return json.dumps({"questions": [good, made_up]})


def test_an_llm_reads_the_own_text_and_is_always_asked_for_evidence_which_is_checked() -> None:
    passages = [
        Passage(
            "leave", "file_path: /x\n\nLeave is booked in HELM by noon.", content="Leave is booked in HELM by noon."
        )
    ]
    options = QuestionOptions(questions_per_passage=2, styles=("question", "keywords"))
    found = questions_from_llm(passages, LLMWithEvidence(), question_options=options)
    assert [query.evidence for query, _ in found.pairs] == ["booked in HELM by noon", ""]
    assert all(query.one_answer for query, _ in found.pairs)


def test_a_persons_snippet_is_found_in_all_passages_that_overlap() -> None:
    nodes = SentenceSplitter(chunk_size=256, chunk_overlap=128).get_nodes_from_documents(long_documents())
    snippet = re.findall(r"[^.]+\.", long_documents()[1].text)[30].strip()
    questions = [
        RealQuestion("Who signs the form?", ["rules1"], snippet),
        RealQuestion("Who is in rules 2?", ["rules2.md"]),
    ]
    dataset = generate_qa_dataset(nodes, use_llm=False, questions=questions, question_options=UNFILTERED).dataset
    first, second = dataset.qrels["test"]
    holders = {key for key, passage in dataset.passages.items() if snippet in " ".join(passage.text.split())}
    assert len(holders) > 1
    assert dataset.qrels["test"][first].keys() == holders
    assert dataset.queries[first].one_answer
    assert not dataset.queries[second].one_answer  # each passage may have another part of the answer


@pytest.mark.parametrize("quote", ["{}", '"{}"', "{}...", "…{}", "“{}”", "{}."])
def test_evidence_is_found_whatever_is_around_it(quote: str) -> None:
    passage = "Badges open doors. **Leave** isn't booked by\nphone: use HELM. Ask the master."
    assert located_span(quote.format("leave isn’t booked by phone: use HELM"), passage).startswith(
        "Leave** isn't booked"
    )
    assert located_span(quote.format("leave is booked in the office"), passage) == ""


def test_a_general_sentence_elsewhere_is_no_better_answer() -> None:
    sentence = "Contact the people team for all details of this."
    leave = f"Parental leave lasts sixteen weeks and is paid in full. It begins at birth at the earliest. {sentence}"
    passages = {
        "leave": Passage("leave", leave, doc_id="leave.md"),
        "badge": Passage("badge", f"Badges open doors. {sentence}", doc_id="badges.md"),
    }
    found = Relevance(QADataset(passages, {}, {})).of(Query("q", "Whom do I ask?", evidence=sentence), "leave")
    assert next(iter(found)) == "leave"
    assert found["leave"] == max(found.values())


def test_a_footer_does_not_hide_the_passages_that_it_is_in() -> None:
    passages = {}
    for n in range(20):
        draw = random.Random(n)
        body = " ".join(draw.choices(WORDS, k=60)).capitalize() + "."
        footer = "Printed copies of this page are not controlled at all."
        passages[f"b{n}"] = Passage(f"b{n}", f"{body} {footer}", doc_id=f"d{n}")
        passages[f"f{n}"] = Passage(f"f{n}", footer, doc_id=f"d{n}")
    assert made_of_smaller(QADataset(passages, {}, {})) == set()


def test_merged_corpora_know_all_passages_that_hold_an_answer() -> None:
    cuts = [SentenceSplitter(chunk_size=size, chunk_overlap=0) for size in (256, 128)]
    earlier, later = (
        generate_qa_dataset(
            cut.get_nodes_from_documents(long_documents()), use_llm=False, question_options=UNFILTERED
        ).dataset
        for cut in cuts
    )
    merged = merge_datasets(earlier, later)
    texts = {key: " ".join(passage.text.split()) for key, passage in merged.passages.items()}
    for qrels in merged.qrels.values():
        for query, relevant in qrels.items():
            question = merged.queries[query]
            if question.source == "sentence":
                assert {key for key, text in texts.items() if question.text in text} <= relevant.keys()


def test_questions_that_cannot_be_stored_are_refused_before_any_is_generated() -> None:
    nodes = SentenceSplitter(chunk_size=256).get_nodes_from_documents(long_documents())
    with pytest.raises(InputError, match="the id 'a\\\\tb' of a question has a tab"):
        generate_qa_dataset(nodes, use_llm=False, questions=[RealQuestion("Who?", ["rules1"], id="a\tb")])
    questions = [
        RealQuestion("Who \ud835 signs?", ["rules1.md"]),
        *[RealQuestion(f"Who {n}?", ["rules2"]) for n in range(40)],
    ]
    dataset = generate_qa_dataset(nodes, use_llm=False, questions=[*questions, RealQuestion(" ", ["rules1"])]).dataset
    assert "Who \ufffd signs?" in dataset.texts("test")
