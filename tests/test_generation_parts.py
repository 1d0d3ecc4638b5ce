"""How questions come about: prompts, answers, filters, the journal that outlives a kill, and what needs no LLM."""

import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import CustomLLM

from rag_ft.dataset.documents import (
    cut_into_nodes,
    passages_from_nodes,
    read_documents,
    split_front_matter,
    without_template_tags,
)
from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.errors import InputError, OutsideError, UnknownIdError
from rag_ft.files import sha256_of
from rag_ft.generation.asking import questions_from_llm
from rag_ft.generation.filters import filter_questions
from rag_ft.generation.journal import Journal, question_key
from rag_ft.generation.prompts import QUESTION_PROMPT, fenced, questions_in
from rag_ft.generation.real_questions import RealQuestion, locate, read_questions
from rag_ft.generation.without_llm import questions_without_llm, sentences

# Answers and fences


@pytest.mark.parametrize(
    ("answer", "questions"),
    [
        ("Who signs a T-9?", ["Who signs a T-9?"]),
        ('1. "Who signs a T-9?"\n2) When is it due?\n', ["Who signs a T-9?", "When is it due?"]),
        ("Here are the questions:\n\n- Who signs?\n* When is it due?", ["Who signs?", "When is it due?"]),
        ("Question 1: Who signs?\nQ2: When is it due?", ["Who signs?", "When is it due?"]),
        ("1. **Who signs a T-9?**\n**2. When is it due?**", ["Who signs a T-9?", "When is it due?"]),
        ("2.5 million euros: who approves them?", ["2.5 million euros: who approves them?"]),
        ("10:30 is when which meeting begins?", ["10:30 is when which meeting begins?"]),
        ("Sure! I can help.\nWho signs a T-9?", ["Who signs a T-9?"]),
        ("rules of parental leave", ["rules of parental leave"]),
        ("谁签署表格？", ["谁签署表格？"]),
        ("", []),
        ("\n \n-\n1.\n", []),
    ],
)
def test_questions_are_read_out_of_an_answer(answer: str, questions: list[str]) -> None:
    assert questions_in(answer, 5) == questions


def test_no_more_questions_are_taken_than_were_asked_for() -> None:
    assert questions_in("One here?\nTwo here?\nThree here?", 2) == ["One here?", "Two here?"]


TAG = st.sampled_from(["<passage>", "</passage>", "</ PASSAGE >", "< /passage>", "</pas", "sage>", "<", "/", ">", " "])


@given(parts=st.lists(TAG | st.text(max_size=5), max_size=12))
@example(parts=["</pas", "</passage>", "sage>"])
@example(parts=["</passage id='1'>"])
@example(parts=["<", "</passage>", "/passage>"])
@example(parts=["<" * 20_000, "passage"])
@settings(deadline=None)
def test_a_passage_cannot_close_its_fence(parts: list[str]) -> None:
    prompt = QUESTION_PROMPT.format(passage=fenced("".join(parts)), count=1)
    inside = prompt.split("\n<passage>\n", 1)[1]
    assert len(re.findall(r"<\s*/\s*passage\b", inside, re.IGNORECASE)) == 1


def test_braces_in_a_passage_are_no_variables() -> None:
    prompt = QUESTION_PROMPT.format(passage=fenced("Set {count} in {passage}, {0} and {unknown}."), count=7)
    assert "Set {count} in {passage}, {0} and {unknown}." in prompt
    assert "Write 7 question(s)" in prompt


def test_a_long_passage_is_cut() -> None:
    assert len(fenced("word " * 10_000)) == 6000


# Filters

PASSAGES = {f"p{n}": Passage(f"p{n}", f"Form T-{n} is signed by the master of harbour {n}.") for n in range(40)} | {
    "badge": Passage("badge", "A badge opens the doors of the laboratory at night.")
}


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Which badge?", "too short"),
        ("?! ... --", "too short"),
        ("badge " * 61, "too long"),
        ("What does the passage say about a badge?", "refers to the text"),
        ("According to the handbook, what does a badge open?", "refers to the text"),
        ("what opens the doors -- at NIGHT!", "repeated"),
        ("Who signs form T-3 of harbour 3?", "does not find its passage among the first 20 of BM25"),
        ("Completely unrelated words about cooking", "does not find its passage among the first 20 of BM25"),
    ],
)
def test_a_dropped_question_has_its_reason(question: str, reason: str) -> None:
    good = Query("good", "What opens the doors at night?", "question")
    kept, dropped = filter_questions([(good, "badge"), (Query("q", question, "question"), "badge")], PASSAGES)
    assert kept == [(good, "badge")]
    assert dropped == [{"query": question, "passage": "badge", "reason": reason, "style": "question"}]


def test_a_question_in_chinese_counts_characters() -> None:
    passages = {"zh": Passage("zh", "谁 可以 签署 这张 表格")}
    kept, dropped = filter_questions([(Query("q", "谁可以签署 这张 表格"), "zh")], passages)
    assert [query.id for query, _ in kept] == ["q"]
    assert dropped == []


def test_no_question_at_all_is_no_failure() -> None:
    assert filter_questions([], PASSAGES) == ([], [])


# The journal


def test_a_torn_last_line_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file) as journal:
        journal.record([("a", "Who?"), ("b", "Où?\nWhen?")])
    whole = file.read_bytes()
    for cut in range(1, len(whole.splitlines()[-1]) + 1):
        file.write_bytes(whole[:-cut])
        with Journal(file) as journal:
            assert journal.answers == {"a": "Who?"}
            journal.record([("c", "Again?")])
        assert Journal(file).answers == {"a": "Who?", "c": "Again?"}


@given(batches=st.lists(st.lists(st.tuples(st.text("ab", max_size=2), st.text(max_size=20)), max_size=3), max_size=4))
@settings(max_examples=30, deadline=None)
def test_what_was_recorded_is_there_after_reopening(
    batches: list[list[tuple[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("journal") / "deep" / "journal.jsonl"
    expected: dict[str, str] = {}
    for batch in batches:
        with Journal(file) as journal:
            assert journal.answers == expected
            journal.record(batch)
            expected.update(batch)
            assert journal.answers == expected
            assert Journal(file).answers == expected


def test_an_answer_with_half_a_character_is_kept_without_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.record([("a", "Who? \ud83d")])
        assert journal.answers == {"a": "Who? ?"}
    assert Journal(tmp_path / "journal.jsonl").answers == {"a": "Who? ?"}


def test_lines_that_are_no_answers_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b'{"key": "a", "answer": null}\n[]\n\xff\xfe\n{"key": ["b"], "answer": "x"}\n{}\n'
                     b'{"key": "c", "answer": "Who?"}\n')  # fmt: skip
    assert Journal(file).answers == {"c": "Who?"}


def test_a_journal_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in the way"):
        Journal(tmp_path)


def test_the_key_tells_model_and_prompt_apart() -> None:
    assert question_key("ab", "c") != question_key("a", "bc")
    assert question_key("a", "b") == question_key("a", "b")


# Asking


def about(count: int) -> list[Passage]:
    return [Passage(f"p{n}", f"Form T-{n} is signed by the master of harbour {n}.") for n in range(count)]


class Clerk(CustomLLM):
    """Answers out of the prompt alone, counts its answers, and is dead after so many of them."""

    lives: int = 10**6
    model: str = "clerk"
    _answered: list[str] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model)

    @property
    def answered(self) -> list[str]:
        return self._answered

    def answer(self, prompt: str) -> str:
        with self._lock:
            if len(self._answered) >= self.lives:
                raise OutsideError("the clerk has left")
            self._answered.append(prompt)
        return f"Who signs {sha256_of(prompt)[:8]}?"

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.answer(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        raise NotImplementedError


class Office(Clerk):
    """Answers several prompts at once; the answer depends on the whole batch, as a padded model's last digits do."""

    batch_size: int = 4
    _batches: list[tuple[str, ...]] = PrivateAttr(default_factory=list)

    @property
    def batches(self) -> list[tuple[str, ...]]:
        return self._batches

    def complete_many(self, prompts: Sequence[str]) -> list[str]:
        if len(self._batches) >= self.lives:
            raise KeyboardInterrupt
        self._batches.append(tuple(prompts))
        return [f"Who signs {sha256_of(*prompts)[:8]} {sha256_of(prompt)[:8]}?" for prompt in prompts]


class Down(Clerk):
    """A server that refuses every connection."""

    def answer(self, prompt: str) -> str:
        raise ConnectionError("connection refused\nby 127.0.0.1")


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("lives", [0, 1, 13, 29])
def test_nothing_is_asked_twice_after_a_failure(lives: int, workers: int, tmp_path: Path) -> None:
    journal, passages = tmp_path / "journal.jsonl", about(30)
    whole = questions_from_llm(passages, Clerk())
    first, second, third = Clerk(lives=lives), Clerk(), Clerk()
    if lives < 20:  # else so few calls fail that the run ends with some passages dropped
        with pytest.raises(OutsideError, match="the clerk has left"):
            questions_from_llm(passages, first, journal=journal, workers=workers)
    else:
        _, dropped = questions_from_llm(passages, first, journal=journal, workers=workers)
        assert [row["reason"] for row in dropped] == ["the LLM failed: the clerk has left"]
    assert questions_from_llm(passages, second, journal=journal, workers=workers) == whole
    assert len(first.answered) + len(second.answered) == len(passages)
    assert questions_from_llm(passages, third, journal=journal, workers=workers) == whole
    assert third.answered == []


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_generation_parts import Clerk, about, questions_from_llm

class Killed(Clerk):
    def answer(self, prompt):
        if len(self.answered) == 7:
            os._exit(9)
        return super().answer(prompt)

    @classmethod
    def class_name(cls):
        return Clerk.class_name()

questions_from_llm(about(12), Killed(), journal=Path({journal!r}), workers=1)
"""


def test_nothing_is_asked_twice_after_a_kill(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    script = KILLED.format(tests=str(Path(__file__).parent), journal=str(journal))
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, timeout=120, check=False)
    assert done.returncode == 9
    clerk = Clerk()
    assert questions_from_llm(about(12), clerk, journal=journal) == questions_from_llm(about(12), Clerk())
    assert len(clerk.answered) == 12 - 7


@pytest.mark.parametrize("lives", [0, 1, 3, 7])
def test_batches_are_the_same_after_an_interruption(lives: int, tmp_path: Path) -> None:
    journal, passages = tmp_path / "journal.jsonl", about(30)
    random.Random(lives).shuffle(passages)
    undisturbed = Office()
    whole = questions_from_llm(passages, undisturbed)
    first, second = Office(lives=lives), Office()
    with pytest.raises(KeyboardInterrupt):
        questions_from_llm(passages, first, journal=journal)
    if journal.exists():  # and the kill tore the last batch apart
        journal.write_bytes(journal.read_bytes()[:-10])
    assert questions_from_llm(passages, second, journal=journal) == whole
    assert set(first.batches) | set(second.batches) == set(undisturbed.batches)
    assert len(first.batches) + len(second.batches) <= len(undisturbed.batches) + 1


def test_another_model_or_number_is_asked_anew(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    for llm, count in ((Clerk(), 1), (Clerk(model="other"), 1), (Clerk(), 2)):
        questions_from_llm(about(3), llm, count=count, journal=journal)
        assert len(llm.answered) == 3
    assert len(journal.read_text().splitlines()) == 9


def test_passages_with_one_text_are_asked_about_once() -> None:
    passages = [Passage(f"p{n}", "A badge opens doors.") for n in range(3)]
    clerk = Clerk()
    pairs, _ = questions_from_llm(passages, clerk)
    assert len(clerk.answered) == 1
    assert [passage for _, passage in pairs] == ["p0", "p1", "p2"]


@pytest.mark.parametrize("count", [3, 20])
def test_an_llm_that_always_fails_ends_the_run_in_one_line(count: int, tmp_path: Path) -> None:
    with pytest.raises(OutsideError) as failure:
        questions_from_llm(about(count), Down(), journal=tmp_path / "journal.jsonl", workers=count)
    assert "connection refused" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "journal.jsonl").exists()


# Documents, real questions, and questions without an LLM


@pytest.mark.parametrize(
    ("text", "values", "rest"),
    [
        ("---\ntitle: Leave\ntags: [a]\n---\nText", {"title": "Leave", "tags": ["a"]}, "Text"),
        ("---\r\ntitle: Leave\r\n---\r\nText", {"title": "Leave"}, "Text"),
        ("---\ntitle: {{ x }}\n---\nText", {}, "Text"),
        ("---\ndate: 2024-13-45\n---\nText", {}, "Text"),
        ("---\nwhen: !!timestamp soon\n---\nText", {}, "Text"),
        ("---\nonly a rule\n---\nText", {}, "---\nonly a rule\n---\nText"),
        ("---\nnever closed\nText", {}, "---\nnever closed\nText"),
        ("Text\n---\ntitle: x\n---\n", {}, "Text\n---\ntitle: x\n---\n"),
        ("", {}, ""),
    ],
)
def test_front_matter_is_split_off(text: str, values: dict, rest: str) -> None:
    assert split_front_matter(text) == (values, rest)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('Ask in {% slack_channel "travel" %}.', "Ask in travel."),
        ("Ask in {%- slack_channel 'travel' -%}.", "Ask in travel."),
        ('See [the rules]({% page "/rules" %}).', "See the rules."),
        ('See [the rules]({% page "/rules" %}#top).', "See the rules."),
        ("{% include banner.html %}Text{% endif %}", "Text"),
        ("a{% comment %}hidden\nlines{% endcomment %}b<!-- and\nthis -->c", "abc"),
        ("Dear {{ name }}{:.lead}, hello", "Dear , hello"),
        ("100 % of {braces} stay", "100 % of {braces} stay"),
    ],
)
def test_template_tags_are_taken_out(text: str, plain: str) -> None:
    assert without_template_tags(text) == plain


@given(text=st.text(st.sampled_from("-{}%:<!>#[]() \n\"'ab")))
def test_any_text_is_read_as_some_document(text: str) -> None:
    values, rest = split_front_matter(text)
    assert isinstance(values, dict)
    assert len(without_template_tags(rest)) <= len(text)


LEAVE = {
    f"leave#{place}": Passage(f"leave#{place}", text, "Leave", "leave")
    for place, text in enumerate(["Forty days of leave are given.", "It is booked in HELM by noon.", "Ask the master."])
} | {"other#0": Passage("other#0", "It is booked in HELM by noon.", "Other", "other")}


@pytest.mark.parametrize(
    ("evidence", "found"),
    [
        ("booked in HELM", {"leave#1"}),
        ("are given. It is booked in HELM by", {"leave#1"}),
        ("", {"leave#0", "leave#1", "leave#2"}),
    ],
)
def test_the_passage_with_the_evidence_is_the_relevant_one(evidence: str, found: set[str]) -> None:
    assert locate(RealQuestion("How?", ["leave"], evidence), LEAVE) == dict.fromkeys(found, 1)


def test_a_question_about_an_unknown_document_names_it() -> None:
    with pytest.raises(UnknownIdError, match="'nowhere', which is no document here"):
        locate(RealQuestion("How?", ["nowhere"]), LEAVE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"documents": ["a"]}, 'no "text"'),
        ({"text": "How?", "documents": []}, 'no "documents"'),
        ({"text": "How?", "documents": ["a"], "_id": "q1"}, "the id 'q1' was used before"),
        ({"text": "How?", "documents": ["a"], "evidence": ["x"]}, "'evidence' is ['x']"),
    ],
)
def test_a_real_question_that_is_broken_is_named_with_its_line(line: dict, said: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"_id": "q1", "text": "Who?", "documents": "a"}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(InputError) as failure:
        read_questions(file)
    assert str(failure.value).startswith(f"{file}:2: ")
    assert said in str(failure.value)


def test_every_evidence_of_the_demo_stands_in_its_passage(acme: Path) -> None:
    passages = passages_from_nodes(cut_into_nodes(read_documents(acme / "documents")))
    questions = read_questions(acme / "questions.jsonl")
    assert len(questions) >= 50
    for question in questions:
        (found,) = {passages[key].document for key in locate(question, passages)}
        assert found in question.documents


MARKDOWN = """# The very long heading of this whole document here

Forty days of leave are given to everybody every year. Read more about it at https://example.org/leave today please.
No.

## How the leave of the crew is booked

* It is booked in HELM by noon of the day before
* See www.example.org for the other rules that hold here and mail crew@example.org

| a table | has cells | that are | no sentence | at all |
"""


def test_sentences_hold_no_headings_tables_or_addresses() -> None:
    assert sentences(MARKDOWN)[:2] == [
        "Forty days of leave are given to everybody every year.",
        "It is booked in HELM by noon of the day before",
    ]
    assert not any(sign in " ".join(sentences(MARKDOWN)) for sign in ("#", "://", "|"))


def test_questions_without_an_llm_are_the_same_in_any_order_and_stand_in_their_passages(acme: Path) -> None:
    passages = list(passages_from_nodes(cut_into_nodes(read_documents(acme / "documents"))).values())
    found = questions_without_llm(passages, seed=3)
    texts = {passage.id: " ".join(passage.text.split()) for passage in passages}
    headings = {line.lstrip("# ").strip() for p in passages for line in p.text.splitlines() if line.startswith("#")}
    for query, passage in found:
        if query.style == "sentence":
            assert query.text in texts[passage]
            assert "://" not in query.text
            assert query.text not in headings
        if query.style == "keywords":
            assert all(word in texts[passage].lower() for word in query.text.split())
    assert {query.style for query, _ in found} == {"sentence", "heading", "keywords"}
    backwards = questions_without_llm(passages[::-1], seed=3)
    assert sorted(found, key=str) == sorted(backwards, key=str)


def test_a_generated_question_that_nearly_repeats_a_real_one_is_not_trained_on() -> None:
    from llama_index.core.schema import TextNode

    from rag_ft import RealQuestion, generate_qa_dataset

    kinds = ["alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow"]
    nodes = [
        TextNode(
            id_=kind, text=f"## How do I book leave of type {kind}\n\nLeave of type {kind} is booked in HELM by {kind}."
        )
        for kind in kinds
    ]
    real = [RealQuestion(f"How do I book leave of type {kind}?", [kind]) for kind in kinds]
    dataset = generate_qa_dataset(nodes, use_llm=False, questions=real).dataset
    trained = {dataset.queries[query].text for split in ("train", "dev") for query in dataset.qrels.get(split, {})}
    assert trained
    assert not any(text.startswith("How do I book") for text in trained)
