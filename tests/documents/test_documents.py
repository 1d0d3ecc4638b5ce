"""Reading documents, cutting them into nodes, and generating questions from them without an LLM."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_ft.dataset.formats.real_questions import RealQuestion, read_questions
from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.cloze import sentences
from rag_ft.dataset.text.locating import Locator
from rag_ft.documents.front_matter import split_front_matter, without_template_tags
from rag_ft.documents.nodes import DocumentNodes, cut_into_nodes, passages_from_nodes
from rag_ft.documents.reader import read_documents
from rag_ft.errors import InputError, UnknownIdError
from rag_ft.generation.without_llm import questions_without_llm


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
def test_template_tags_are_removed(text: str, plain: str) -> None:
    assert without_template_tags(text) == plain


@given(text=st.text(st.sampled_from("-{}%:<!>#[]() \n\"'ab")))
def test_any_text_is_read_without_an_error(text: str) -> None:
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
def test_the_passage_with_the_evidence_is_relevant(evidence: str, found: set[str]) -> None:
    assert Locator(LEAVE).locate(RealQuestion("How?", ["leave"], evidence)) == dict.fromkeys(found, 1)


def test_an_unknown_document_is_named() -> None:
    with pytest.raises(UnknownIdError, match="'nowhere', which is not a document or passage"):
        Locator(LEAVE).locate(RealQuestion("How?", ["nowhere"]))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"documents": ["a"]}, 'no "text"'),
        ({"text": "How?", "documents": []}, 'no "documents"'),
        ({"text": "How?", "documents": ["a"], "_id": "q1"}, "the id 'q1' was used before"),
        ({"text": "How?", "documents": ["a"], "evidence": ["x"]}, "'evidence' is ['x']"),
    ],
)
def test_a_broken_real_question_is_reported_with_its_line(line: dict, said: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"_id": "q1", "text": "Who?", "documents": "a"}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(InputError) as failure:
        read_questions(file)
    assert str(failure.value).startswith(f"{file}:2: ")
    assert said in str(failure.value)


def test_every_evidence_of_the_demo_is_in_its_passage(acme: Path) -> None:
    passages = passages_from_nodes(cut_into_nodes(read_documents(acme / "documents")))
    questions = read_questions(acme / "questions.jsonl")
    assert len(questions) >= 50
    for question in questions:
        (found,) = {passages[key].document for key in Locator(passages).locate(question)}
        assert found in question.documents


MARKDOWN = """# The very long heading of this whole document here

Forty days of leave are given to everybody every year. Read more about it at https://example.org/leave today please.
No.

## How the leave of the crew is booked

* It is booked in HELM by noon of the day before
* See www.example.org for the other rules that hold here and mail crew@example.org

| a table | has cells | that are | no sentence | at all |
"""


def test_sentences_have_no_headings_tables_or_addresses() -> None:
    assert sentences(MARKDOWN)[:2] == [
        "Forty days of leave are given to everybody every year.",
        "It is booked in HELM by noon of the day before",
    ]
    assert not any(sign in " ".join(sentences(MARKDOWN)) for sign in ("#", "://", "|"))


def test_questions_without_an_llm_are_independent_of_order_and_taken_from_their_passages(acme: Path) -> None:
    passages = list(passages_from_nodes(cut_into_nodes(read_documents(acme / "documents"))).values())
    found = questions_without_llm(passages, seed=3)
    texts = {passage.id: " ".join(passage.text.split()) for passage in passages}
    headings = {line.lstrip("# ").strip() for p in passages for line in p.text.splitlines() if line.startswith("#")}
    for query, passage in found:
        if query.source == "sentence":
            assert query.text in texts[passage]
            assert "://" not in query.text
            assert query.text not in headings
        if query.source == "key-phrases":
            assert all(word in texts[passage].lower() for word in query.text.split())
    assert {query.source for query, _ in found} == {"sentence", "heading", "key-phrases"}
    backwards = questions_without_llm(passages[::-1], seed=3)
    assert sorted(found, key=str) == sorted(backwards, key=str)


def test_a_generated_question_that_nearly_repeats_a_real_one_is_not_in_training() -> None:
    from llama_index.core.schema import TextNode

    from rag_ft import generate_qa_dataset
    from rag_ft.dataset import RealQuestion

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


def test_documents_are_cut_while_they_are_read(acme: Path) -> None:
    """A stream yields the same nodes as all documents at once, one document at a time, in every pass."""
    folder = acme / "documents"
    at_once = [(node.node_id, node.text) for node in cut_into_nodes(read_documents(folder), 128, 16)]
    stream = DocumentNodes(folder, 128, 16)
    assert [(node.node_id, node.text) for node in stream] == at_once
    assert [node.node_id for node in stream] == [key for key, _ in at_once]
    assert next(iter(stream)).node_id == at_once[0][0]


def test_a_stream_reports_errors_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        DocumentNodes(tmp_path / "none")
    (tmp_path / "a.md").write_text("A text.")
    with pytest.raises(InputError, match="--chunk-overlap 9"):
        DocumentNodes(tmp_path, 8, 9)
