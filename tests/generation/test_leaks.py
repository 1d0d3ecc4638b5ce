"""Nothing leaks on the way from nodes to training pairs: corpora full of repeats, near-repeats and boilerplate."""

import random
from collections import Counter

import pytest
from fakes.texts import WORDS, nearly
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from rag_ft import QADataset, generate_qa_dataset
from rag_ft.dataset import RealQuestion
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.errors import InputError
from rag_ft.generation.generate import GeneratedDataset
from rag_ft.generation.split_assembly import TOO_SIMILAR
from rag_ft.training.examples.pairs import pair_examples
from rag_ft.training.recipe import Recipe

FOOTER = "This page is confidential and may not be given to anybody outside of the harbour without a written permit."


def drawn_nodes(documents: int, repeats: int, footer: bool, seed: int) -> list[TextNode]:
    """Documents of four passages; so many percent of the passages, and of the documents, repeat an earlier one."""
    draw = random.Random(seed)
    seen: list[str] = []
    nodes: list[TextNode] = []
    for document in range(documents):
        whole = document > 0 and draw.random() < repeats / 200
        texts = [node.text for node in nodes if node.ref_doc_id == f"d{draw.randrange(document)}"] if whole else []
        while len(texts) < 4:
            if seen and draw.random() < repeats / 100:
                texts.append(nearly(draw.choice(seen), draw))
            else:
                sentences = [" ".join(draw.choices(WORDS, k=12)).capitalize() + "." for _ in range(4)]
                seen.append(" ".join(sentences))
                texts.append(seen[-1])
        if footer:
            texts.append(FOOTER + f" Page {document}.")
        for place, text in enumerate(texts):
            source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"d{document}")}
            nodes.append(TextNode(id_=f"d{document}#{place}", text=text, relationships=source))
    return nodes


def made(nodes: list[TextNode], **arguments: object) -> GeneratedDataset:
    """What is generated; so few documents may all be one through their repeats that nothing is left to train on."""
    try:
        return generate_qa_dataset(nodes, use_llm=False, **arguments)  # type: ignore[arg-type]
    except InputError as error:
        if "no training questions are left" not in str(error):
            raise
        reject()


def check(dataset: QADataset) -> None:
    """No training pair has anything to do with what is held out."""
    near = dataset.near_duplicates
    trained = {passage for name in ("train", "dev") for q in dataset.qrels.get(name, {}).values() for passage in q}
    trained_documents = {dataset.passages[passage].document for passage in trained}
    held_out = {p.id for p in dataset.passages.values() if p.document not in trained_documents}
    tested = {passage for relevant in dataset.qrels["test"].values() for passage in relevant}
    groups_of_new = {near[p] for p in held_out & tested}
    assert not groups_of_new & {near[passage] for passage in trained}
    # The batches' negatives are the positives of other rows, so the same holds for every negative.
    recipe = Recipe(cloze=0.0)
    texts = dataset.passage_texts
    new_texts = [texts[passage] for passage in sorted(held_out & tested)]
    pair_texts = [pair.positive for pair in pair_examples(dataset, recipe)]
    groups = near_duplicate_groups(new_texts + pair_texts)
    assert not set(groups[: len(new_texts)]) & set(groups[len(new_texts) :])
    # Nor is a held-out question trained on, nor what nearly repeats it.
    sides = [[dataset.queries[q].text for q in dataset.qrels[name]] for name in ("test", "train")]
    groups = near_duplicate_groups(sides[0] + sides[1])
    assert not set(groups[: len(sides[0])]) & set(groups[len(sides[0]) :])


drawn = st.builds(
    drawn_nodes,
    documents=st.integers(16, 30),
    repeats=st.integers(0, 50),
    footer=st.booleans(),
    seed=st.integers(0, 10_000),
)


@given(nodes=drawn, seed=st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_nothing_leaks_into_training(nodes: list[TextNode], seed: int) -> None:
    check(made(nodes, seed=seed).dataset)


@given(nodes=drawn, seed=st.integers(0, 20), asked=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_real_questions_are_the_test_split_and_nothing_like_them_is_trained_on(
    nodes: list[TextNode], seed: int, asked: int
) -> None:
    draw = random.Random(seed)
    chosen = draw.sample(nodes, min(asked, len(nodes)))
    # Some of them are sentences of the passages, as generated questions are.
    questions = [RealQuestion(node.text.split(". ")[0] + ".", [node.ref_doc_id or ""]) for node in chosen]
    dataset = made(nodes, questions=questions, seed=seed).dataset
    assert {query.source for query in map(dataset.queries.__getitem__, dataset.qrels["test"])} == {"human"}
    sides = [[dataset.queries[q].text for q in dataset.qrels[name]] for name in ("test", "train")]
    groups = near_duplicate_groups(sides[0] + sides[1])
    assert not set(groups[: len(sides[0])]) & set(groups[len(sides[0]) :])


def test_a_footer_merges_no_documents_and_gets_no_questions() -> None:
    nodes = drawn_nodes(30, 0, footer=True, seed=1)
    dataset = generate_qa_dataset(nodes, use_llm=False).dataset
    footers = {node.node_id for node in nodes if node.text.startswith("This page")}
    assert dataset.boilerplate == footers
    assert len(set(dataset.split_units.values())) == 30
    assert not footers & {p for part in dataset.qrels.values() for relevant in part.values() for p in relevant}
    assert dataset.seen_queries("test") != set(dataset.qrels["test"])


def test_many_real_questions_on_whole_documents_with_a_footer_are_split() -> None:
    nodes = drawn_nodes(60, 0, footer=True, seed=1)
    draw = random.Random(3)
    questions = [RealQuestion(" ".join(draw.choices(WORDS, k=9)) + "?", [f"d{n % 60}"]) for n in range(800)]
    found = generate_qa_dataset(nodes, use_llm=False, questions=questions)
    styles = {
        split: Counter(found.dataset.queries[q].source for q in part) for split, part in found.dataset.qrels.items()
    }
    assert set(styles["test"]) == {"human"}
    assert styles["test"]["human"] >= 450
    assert styles["train"]["human"] > 0
    lost = [row for row in found.dropped if row["style"] == "human"]
    assert sum(count["human"] for count in styles.values()) + len(lost) == 800
    footers = {node.node_id for node in nodes if node.text.startswith("This page")}
    assert not footers & {p for part in found.dataset.qrels.values() for relevant in part.values() for p in relevant}


def test_ids_of_real_questions_do_not_collide() -> None:
    nodes = drawn_nodes(20, 0, footer=False, seed=1)
    questions = [RealQuestion("Who is asked first here?", ["d1"], id="human0"), RealQuestion("And who then?", ["d2"])]
    dataset = generate_qa_dataset(nodes, use_llm=False, questions=questions).dataset
    assert {dataset.queries[query].text for query in dataset.qrels["test"]} == {q.text for q in questions}
    twice = [RealQuestion("Who?", ["d1"], id="a"), RealQuestion("When?", ["d2"], id="a")]
    with pytest.raises(InputError, match="two real questions have the id 'a'"):
        generate_qa_dataset(nodes, use_llm=False, questions=twice)


def test_a_near_duplicate_of_a_relevant_passage_is_relevant_too() -> None:
    nodes = drawn_nodes(20, 0, footer=False, seed=1)
    nodes.append(TextNode(id_="copy", text=nodes[5].text.upper()))
    questions = [RealQuestion("Who is asked first here?", positives=(nodes[5].text,))]
    dataset = generate_qa_dataset(nodes, use_llm=False, questions=questions).dataset
    assert dataset.qrels["test"]["human0"] == {nodes[5].node_id: 1, "copy": 1}


@given(nodes=drawn, seed=st.integers(0, 20), real=st.booleans())
@settings(max_examples=8, deadline=None)
def test_if_all_documents_are_seen_all_of_them_train_but_no_held_out_question_does(
    nodes: list[TextNode], seed: int, real: bool
) -> None:
    asked = [RealQuestion(node.text.split(". ")[0] + ".", [node.ref_doc_id or ""]) for node in nodes[::7]]
    made_of = made(nodes, questions=asked if real else (), unseen_documents=0.0, seed=seed)
    dataset = made_of.dataset
    common = dataset.boilerplate
    documents = {passage.document for passage in dataset.passages.values() if passage.id not in common}
    trained = set(dataset.documents_of(dataset.qrels["train"], "train"))
    left_out = documents - trained
    # BM25 finds none of the sentences of some documents: few words are drawn here. Of the others, those whose every
    # sentence nearly repeats a held-out question are left out, and their questions count as new.
    too_like = {
        dataset.passages[row["passage"]].document
        for row in made_of.dropped
        if row["reason"] == TOO_SIMILAR and row["passage"]
    }
    assert len(too_like & left_out) <= 0.2 * len(too_like | trained)
    unknown = set(dataset.qrels["test"]) - dataset.seen_queries("test")
    assert {dataset.passages[p].document for query in unknown for p in dataset.qrels["test"][query]} <= left_out
    for held_out in ("dev", "test"):
        sides = [[dataset.queries[q].text for q in dataset.qrels.get(name, {})] for name in (held_out, "train")]
        groups = near_duplicate_groups(sides[0] + sides[1])
        assert not set(groups[: len(sides[0])]) & set(groups[len(sides[0]) :])


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_an_invalid_share_of_unseen_documents_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=f"unseen_documents is {share:g}"):
        generate_qa_dataset(drawn_nodes(16, 0, False, 0), use_llm=False, unseen_documents=share)
