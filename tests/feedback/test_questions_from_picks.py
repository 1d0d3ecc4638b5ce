"""Picks become training pairs: what people chose, if it is still there, and never on both sides of a split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rag_ft import InputError, Passage, cut_into_nodes, fine_tune, generate_qa_dataset, read_documents
from rag_ft.ab import ABRetriever
from rag_ft.cli import app
from rag_ft.dataset import read_labelled_pairs
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.documents.nodes import passages_from_nodes
from rag_ft.feedback import ShownResults, Votes, questions_from_feedback
from rag_ft.generation import QuestionOptions

TEXTS = {
    "claims#0": "A Kittiwake is an expenses claim and is filed within thirty days of the journey.",
    "claims#1": "The bursar pays a Kittiwake on the last working day of the month.",
    "visitors#0": "Visitors wear a badge and sign the book at the gatehouse.",
    "leave#0": "Leave is booked in HELM by noon of the day before.",
}
PASSAGES = {key: Passage(key, text, "", key.split("#")[0]) for key, text in TEXTS.items()}


@pytest.fixture
def votes(tmp_path: Path) -> Votes:
    return Votes(tmp_path / "votes.jsonl")


@pytest.fixture
def show(votes: Votes) -> Callable[..., None]:
    def shown(query: str, question: str, **more: Any) -> None:
        keys = more.get("passages") or [key for ranking in more["rankings"].values() for key in ranking]
        votes.shown(
            query, "page", "me", question, ShownResults(**more), texts={key: TEXTS[key] for key in keys if key in TEXTS}
        )

    return shown


def test_a_pick_is_a_positive_and_a_skipped_passage_above_it_a_negative(
    votes: Votes, show: Callable[..., None]
) -> None:
    show("q", "How do I claim?", rankings={"a": ["visitors#0", "leave#0", "claims#0"], "b": ["claims#1", "claims#0"]})
    votes.pick("q", "claims#0", "a")
    (question,), dropped = questions_from_feedback(votes, PASSAGES)
    assert question.positives == (TEXTS["claims#0"],)
    assert question.negatives == (TEXTS["visitors#0"], TEXTS["leave#0"])  # not claims#1: it stood in the other list
    assert not dropped


def test_the_same_question_of_several_people_is_one_question(votes: Votes, show: Callable[..., None]) -> None:
    for query, question, picked in (
        ("q1", "How do I claim?", "claims#0"),
        ("q2", " how do  I CLAIM?", "claims#1"),
        ("q3", "How do I claim?", "claims#0"),
    ):
        show(query, question, passages=["visitors#0", "claims#0", "claims#1"], teams=["a", "b", "a"])
        votes.pick(query, picked)
    (question,), _ = questions_from_feedback(votes, PASSAGES)
    assert set(question.positives) == {TEXTS["claims#0"], TEXTS["claims#1"]}
    assert question.negatives == (TEXTS["visitors#0"],)  # claims#0 stood above a pick, and was picked by somebody


def test_a_pick_of_a_removed_passage_is_dropped_with_a_warning(
    votes: Votes, show: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    for query, picked in (("q1", "claims#0"), ("q2", "leave#0")):
        show(query, f"What of {picked}?", passages=["claims#0", "leave#0"], teams=["a", "b"])
        votes.pick(query, picked)
    # The id is there, and stands for another text now.
    corpus = {**PASSAGES, "claims#0": Passage("claims#0", "The foghorn sounds when the fog is thick.")}
    (question,), dropped = questions_from_feedback(votes, corpus)
    assert question.text == "What of leave#0?"
    assert question.negatives == ()
    assert [row["reason"] for row in dropped] == ["its picked passage is not in the corpus any more"]
    assert "1 picks cannot be used" in caplog.text
    with pytest.raises(InputError, match="contains no picks to train on"):
        questions_from_feedback(votes, {"x": Passage("x", "The foghorn sounds when the fog is thick.")})


def test_a_passage_is_found_under_another_id_and_with_other_boundaries(votes: Votes, show: Callable[..., None]) -> None:
    show("q", "How do I claim?", passages=["claims#0"], teams=["a"])
    votes.pick("q", "claims#0")
    cut = {"n7": Passage("n7", TEXTS["claims#0"] + " The bursar pays it."), "n8": Passage("n8", TEXTS["leave#0"])}
    (question,), _ = questions_from_feedback(votes, cut)
    assert question.documents == ("n7",)


def test_withdrawn_picks_votes_and_strange_questions_train_nothing(votes: Votes, show: Callable[..., None]) -> None:
    for query, question in (("taken", "How?"), ("voted", "Who?"), ("empty", "\u202e \x07"), ("long", "why " * 600)):
        show(query, question, rankings={"a": ["claims#0"], "b": ["leave#0"]}, order=["a", "b"])
        if query != "voted":
            votes.pick(query, "claims#0")
    votes.unpick("taken", "claims#0")
    votes.vote("voted", "a")
    with pytest.raises(InputError, match="2 cannot be used, the first because: its question is empty"):
        questions_from_feedback(votes, PASSAGES)


def test_control_characters_and_text_direction_marks_are_removed_from_a_question(
    votes: Votes, show: Callable[..., None]
) -> None:
    show("q", "How do\u202e I\x00 claim\x1b[31m?\ud800", passages=["claims#0"], teams=["a"])
    votes.pick("q", "claims#0")
    (question,), _ = questions_from_feedback(votes, PASSAGES)
    assert question.text == "How do I claim [31m??"


def test_picks_of_somebody_who_picks_everything_are_dropped(votes: Votes) -> None:
    texts = {f"p{n}": f"Form T-{n} is signed by the master of harbour {n}." for n in range(8)}
    votes.shown("q", "page", "me", "Who signs?", ShownResults(passages=list(texts), teams=["a"] * 8), texts=texts)
    for key in list(texts)[:6]:
        votes.pick("q", key)
    with pytest.raises(InputError, match="more than 5 passages were picked"):
        questions_from_feedback(votes, {key: Passage(key, text) for key, text in texts.items()})


def test_a_text_that_does_not_match_its_digest_is_ignored(votes: Votes, show: Callable[..., None]) -> None:
    show("q", "How do I claim?", passages=["claims#0"], teams=["a"])
    votes.pick("q", "claims#0")
    forged = votes.file.read_text(encoding="utf-8").replace(TEXTS["claims#0"], TEXTS["leave#0"])
    votes.file.write_text(forged, encoding="utf-8")
    with pytest.raises(InputError, match="not in the corpus any more"):
        questions_from_feedback(Votes(votes.file), PASSAGES)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(["How?", "how ?"]), st.permutations(list(TEXTS)), st.sampled_from(list(TEXTS))),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_no_passage_is_positive_and_negative_for_one_question(asked: list[tuple[str, list[str], str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        votes = Votes(Path(folder) / "votes.jsonl")
        for number, (question, ranking, picked) in enumerate(asked):
            votes.shown(
                f"q{number}", "page", "me", question, ShownResults(passages=ranking, teams=["a"] * 4), texts=TEXTS
            )
            votes.pick(f"q{number}", picked)
        questions, _ = questions_from_feedback(votes, PASSAGES)
    assert len({" ".join(question.text.casefold().split()) for question in questions}) == len(questions)
    for question in questions:
        assert set(question.positives).isdisjoint(question.negatives)


def people_who_ask(acme_people: Path, file: Path) -> list[str]:
    """Picks for hand-written questions of the demo, by people who see the right passage second."""
    nodes = {node.node_id: node for node in cut_into_nodes(read_documents(acme_people / "documents"))}
    texts = {key: node.get_content(metadata_mode="embed") for key, node in nodes.items()}
    votes, asked = Votes(file), []
    rows = [json.loads(line) for line in (acme_people / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows[:40]):
        right = next((key for key in nodes if key.split("#")[0] == row["documents"][0]), None)
        above = next(key for key in nodes if key.split("#")[0] != row["documents"][0])
        assert right is not None
        shown = [above, right]
        votes.shown(
            f"q{number}",
            "interleave",
            f"u{number % 7}",
            row["text"],
            ShownResults(passages=shown, teams=["a", "b"]),
            texts={key: texts[key] for key in shown},
        )
        votes.pick(f"q{number}", right)
        asked.append(row["text"])
    return asked


def test_feedback_trains_and_no_question_is_in_two_splits(acme_people: Path, tmp_path: Path) -> None:
    asked = people_who_ask(acme_people, tmp_path / "votes.jsonl")
    nodes = cut_into_nodes(read_documents(acme_people / "documents"))
    made = generate_qa_dataset(
        nodes, use_llm=False, question_options=QuestionOptions(feedback=tmp_path / "votes.jsonl")
    ).dataset
    of = {split: {made.queries[query].text for query in made.qrels[split]} & set(asked) for split in made.splits}
    assert len(of["train"]) > 15
    texts = [(split, text) for split in made.splits for text in of[split]]
    groups = near_duplicate_groups([text for _, text in texts])
    sides: dict[int, set[str]] = {}
    for (split, _), group in zip(texts, groups, strict=True):
        sides.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())
    trained = [query for query in made.qrels["train"] if made.queries[query].text in asked]
    assert sum(bool(made.negatives.get(query)) for query in trained) > 10
    assert all(made.queries[query].source == "human" for query in trained)


@pytest.mark.slow
def test_new_picks_make_a_new_dataset(acme_people: Path, tmp_path: Path) -> None:
    people_who_ask(acme_people, tmp_path / "votes.jsonl")
    nodes = cut_into_nodes(read_documents(acme_people / "documents"))

    def dataset_after_a_run(feedback: object) -> str:
        options = QuestionOptions(feedback=feedback)  # type: ignore[arg-type]
        fine_tune(
            nodes,
            use_llm=False,
            output_dir=tmp_path / "run",
            base_model="local",
            max_length=64,
            max_pairs=48,
            question_options=options,
        )
        return json.dumps(json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["dataset"])

    before = dataset_after_a_run(tmp_path / "votes.jsonl")
    votes = Votes(tmp_path / "votes.jsonl")
    assert dataset_after_a_run(votes) == dataset_after_a_run(str(votes.file)) == before
    right = nodes[0]
    votes.shown(
        "new",
        "page",
        "me",
        "Which form is it?",
        ShownResults(rankings={"a": [right.node_id], "b": []}),
        texts={right.node_id: right.text},
    )
    votes.pick("new", right.node_id, "a")
    assert dataset_after_a_run(votes) != before


def test_generate_from_feedback_writes_a_dataset(acme_people: Path, tmp_path: Path) -> None:
    asked = people_who_ask(acme_people, tmp_path / "votes.jsonl")
    arguments = ["generate", str(acme_people / "documents"), "--output", str(tmp_path / "data"), "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--from-feedback", str(tmp_path / "votes.jsonl")])
    assert done.exit_code == 0, done.output
    written = (tmp_path / "data" / "queries.jsonl").read_text(encoding="utf-8")
    assert sum(json.dumps(text, ensure_ascii=False) in written for text in asked) > 20
    assert (tmp_path / "data" / "negatives.jsonl").is_file()


def test_a_vote_log_is_not_read_as_a_table(votes: Votes, show: Callable[..., None]) -> None:
    show("q", "How do I claim?", passages=["claims#0"], teams=["a"])
    with pytest.raises(InputError, match="--from-feedback"):
        read_labelled_pairs(votes.file)
    with pytest.raises(InputError, match="is not a file"):
        questions_from_feedback(votes.file.parent / "none.jsonl", PASSAGES)


def test_picks_in_an_app_can_be_trained_on(acme_people: Path, tmp_path: Path) -> None:
    from fakes.ab_variants import A, B, node

    both = ABRetriever(A, B, "interleave", votes=tmp_path / "votes.jsonl")
    found = both.retrieve("What is a Kittiwake?")
    right = next(each for each in found if each.node_id == "claims#0")
    both.pick(right.metadata["ab_query"], right.node_id)
    corpus = passages_from_nodes([node(key) for key in (*A.keys, "claims#1")])
    (question,), _ = questions_from_feedback(tmp_path / "votes.jsonl", corpus)
    assert question.documents == ("claims#0",)
