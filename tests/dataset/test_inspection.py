"""An inspection counts what a dataset contains, and warns of what would spoil training or its evaluation."""

import dataclasses
import io
import json
import random
from pathlib import Path

import pytest
from fakes.command_line import WRONG, rag_ft
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from rag_ft.dataset.formats.beir import read_beir
from rag_ft.dataset.inspection import Inspection, inspect_dataset
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query, ScoredPair
from rag_ft.dataset.text.overlap import content_words
from rag_ft.errors import InputError
from rag_ft.report.inspection_table import print_inspection, sparkline, terminal_text


def some_words(draw: random.Random, count: int) -> str:
    return " ".join("".join(draw.choices("abcdefghijklmnop", k=8)) for _ in range(count))


def sound(train: int = 600, dev: int = 60, test: int = 60) -> QADataset:
    """A dataset without problems: many documents, and questions that do not repeat their passages."""
    passages, queries, draw = {}, {}, random.Random(0)
    splits: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    for number in range(train + dev + test):
        split = "train" if number < train else "dev" if number < train + dev else "test"
        passages[f"p{number}"] = Passage(f"p{number}", some_words(draw, 9))
        queries[f"q{number}"] = Query(f"q{number}", some_words(draw, 5), "human" if number % 2 else "")
        splits[split][f"q{number}"] = {f"p{number}": 1}
    return QADataset(passages, queries, splits)


def test_a_sound_dataset_has_no_warning() -> None:
    found = inspect_dataset(sound())
    assert found.warnings == []
    assert (found.passages, found.documents, found.repeated) == (720, 720, 0)
    assert found.questions == {"train": 600, "dev": 60, "test": 60}
    assert (found.seen, found.unseen) == (0, 60)
    assert found.sources == {split: {"given": n // 2, "human": n // 2} for split, n in found.questions.items()}
    assert set(found.overlap) == {"given", "human"}
    assert {sample.source for sample in found.samples} == {"given", "human"}
    assert len(found.samples) == 6


def warned(dataset: QADataset, sign: str) -> str:
    (warning,) = [warning for warning in inspect_dataset(dataset).warnings if sign in warning]
    assert "\n" not in warning
    assert ";" in warning or ":" in warning
    assert len(warning) < 300
    return warning


def test_too_few_questions_are_a_warning() -> None:
    assert warned(sound(train=499), "training pairs").startswith("499 training pairs, fewer than 500: ")
    assert warned(sound(test=49), "test questions").startswith("49 test questions, fewer than 50: their hit rate")
    assert "±0.14" in warned(sound(test=49), "test questions")
    assert "training holds one out of train" in warned(sound(dev=0), "no dev split")
    assert "hold some out" in warned(sound(test=0), "no test question")
    assert "generate questions" in warned(sound(train=0, dev=0), "no training question")


def test_scored_pairs_count_as_training_pairs() -> None:
    dataset = sound(train=10)
    scored = [ScoredPair(f"q{number}", "p", 0.5) for number in range(500)]
    found = inspect_dataset(dataclasses.replace(dataset, scored_pairs=scored))
    assert not any("training pairs" in warning for warning in found.warnings)
    assert found.scored_pairs == 500


def test_questions_copied_from_their_passage_are_easy_unless_training_cuts_them_out() -> None:
    dataset = sound()
    for source, split, easy in (("keywords", "train", True), ("sentence", "train", False), ("sentence", "test", True)):
        queries = dict(dataset.queries)
        for query, relevant in dataset.qrels[split].items():
            queries[query] = Query(query, dataset.passages[next(iter(relevant))].text, source)
        found = inspect_dataset(dataclasses.replace(dataset, queries=queries))
        assert found.overlap[source].median == 1
        assert sum(found.histograms[source]) == found.histograms[source][-1] == found.questions[split]
        said = [warning for warning in found.warnings if f"source {source!r} are easy (median 100%" in warning]
        assert len(said) == easy


def test_the_overlap_counts_stemmed_content_words() -> None:
    assert content_words("en")("How many holidays could I be booking?") == {"holiday", "book"}
    passages = {"p": Passage("p", "Holidays are booked in HELM."), "r": Passage("r", "Nothing.")}
    queries = {
        "half": Query("half", "Where do I book a ferry?"), "none": Query("none", "Who can?"),
        "best": Query("best", "Holiday booking"),
    }  # fmt: skip
    qrels = {"half": {"p": 1}, "none": {"p": 1}, "best": {"r": 1, "p": 1}}
    found = inspect_dataset(QADataset(passages, queries, {"test": qrels}))
    assert {sample.question: sample.overlap for sample in found.samples} == {
        "Where do I book a ferry?": 0.5, "Who can?": None, "Holiday booking": 1.0,
    }  # fmt: skip
    assert (found.overlap["given"].count, found.overlap["given"].median) == (2, 0.75)


def test_one_document_with_most_questions_is_a_warning() -> None:
    dataset = sound()
    passages = {
        key: dataclasses.replace(passage, doc_id="big\x1b" if int(key[1:]) < 300 else "") for key, passage in
        dataset.passages.items()
    }  # fmt: skip
    assert "42% of the questions are about the document 'big\\x1b'" in warned(
        dataclasses.replace(dataset, passages=passages), "are about"
    )


def test_a_test_question_that_training_sees_is_a_warning() -> None:
    dataset = sound()
    texts = {"q0": dataset.queries["q700"].text.upper(), "q610": dataset.queries["q701"].text + "?"}
    queries = dataset.queries | {key: Query(key, text) for key, text in texts.items()}
    said = warned(dataclasses.replace(dataset, queries=queries), "repeat a test question")
    assert said.startswith("2 train or dev questions nearly repeat a test question ('")


def test_a_test_passage_that_training_sees_is_a_warning() -> None:
    dataset = sound()
    copy = dataclasses.replace(dataset.passages["p0"], id="p700")
    found = dataclasses.replace(dataset, passages=dataset.passages | {"p700": copy})
    assert warned(found, "repeat a training passage").startswith(
        "1 test passages nearly repeat a training passage ('p700')"
    )
    assert inspect_dataset(found).repeated == 1


def test_long_passages_and_questions_in_no_split_are_warnings() -> None:
    dataset = sound()
    long = Passage("p1", " ".join(f"word{number}" for number in range(400)))
    extra = dataset.queries | {"q_none": Query("q_none", "Who asked this at all?")}
    found = dataclasses.replace(dataset, passages=dataset.passages | {"p1": long}, queries=extra)
    assert warned(found, "longer than").startswith("1 passages are longer than about 512 tokens")
    assert warned(found, "no split").startswith("1 questions are in no split")


def test_negatives_that_answer_their_question_are_a_warning() -> None:
    dataset = sound()
    copy = Passage("copy", dataset.passages["p1"].text + " ")
    negatives = {"q0": ["p0", "p5"], "q1": ["copy"], "q2": ["p3"]}
    found = dataclasses.replace(dataset, passages=dataset.passages | {"copy": copy}, negatives=negatives)
    assert warned(found, "negatives").startswith(
        "2 negatives are, repeat, or contain a passage that answers their question"
    )
    assert inspect_dataset(found).negatives == 4


def test_samples_follow_the_seed_and_the_split() -> None:
    dataset = sound()
    assert inspect_dataset(dataset, seed=4) == inspect_dataset(dataset, seed=4)
    assert inspect_dataset(dataset, seed=4).samples != inspect_dataset(dataset, seed=5).samples
    found = inspect_dataset(dataset, "dev", samples=1)
    assert {sample.split for sample in found.samples} == {"dev"}
    assert len(found.samples) == 2
    assert found.sources == {"dev": {"given": 30, "human": 30}}
    assert found.questions["train"] == 600
    with pytest.raises(InputError, match="no questions in split 'other'"):
        inspect_dataset(dataset, "other")


def test_a_dataset_without_questions_is_inspected() -> None:
    found = inspect_dataset(QADataset({"p": Passage("p", "")}, {}, {}))
    assert found.questions == {}
    assert json.loads(json.dumps(found.to_dict()))["passages"] == 1
    assert "no training question" in found.warnings[0]
    assert "0 questions" in printed(found, 80)


def printed(found: Inspection, width: int) -> str:
    text = io.StringIO()
    print_inspection(found, Console(file=text, width=width, color_system=None, force_jupyter=False))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_the_terminal_and_escapes_its_content(width: int) -> None:
    dataset = sound(train=20)
    evil = "[red]bold[/] \x1b[2J\x07\u202e" + "long " * 200
    passages = dataset.passages | {"p0": Passage("p0", evil, "", "[link=x]doc\x1b")}
    queries = {key: dataclasses.replace(query, text=evil, source="[b]") for key, query in dataset.queries.items()}
    said = printed(inspect_dataset(dataclasses.replace(dataset, passages=passages, queries=queries)), width)
    assert "[red]bold[/] [2Jlong" in said
    assert "[b]" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert all(len(line) <= width for line in said.splitlines())
    assert "questions by source" in said
    assert "! " in said


@given(text=st.text(max_size=60), length=st.none() | st.integers(1, 30))
@example(text="\\", length=None)
@example(text="\\[", length=None)
@example(text="\\\\[b] \\[ [/ \\[/]", length=None)
@settings(max_examples=200)
def test_any_text_is_shown_unchanged(text: str, length: int | None) -> None:
    said = io.StringIO()
    Console(file=said, width=1000, color_system=None, force_jupyter=False).print(
        terminal_text(text, length), highlight=False
    )
    plain = said.getvalue().removesuffix("\n")
    assert "\n" not in plain
    assert plain.isprintable() or not plain
    if length is None and text.isascii() and text.isprintable():
        assert plain.rstrip() == " ".join(text.split())


@given(counts=st.lists(st.integers(0, 300_000), min_size=10, max_size=10))
def test_bars_show_every_count_above_0(counts: list[int]) -> None:
    found = sparkline(counts)
    assert [bar != " " for bar in found] == [count > 0 for count in counts]
    assert sorted(found) == [found[place] for place in sorted(range(10), key=lambda place: counts[place])]


def test_the_inspect_command(beir_folder: Path, tmp_path: Path) -> None:
    done = rag_ft("inspect", beir_folder, "--split", "test", "--samples", 1, "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    assert "24 passages of 12 documents" in done.stdout
    assert "! 8 training pairs, fewer than 500" in done.stdout
    assert (
        json.loads((tmp_path / "found.json").read_text())
        == inspect_dataset(read_beir(beir_folder), "test", samples=1).to_dict()
    )
    done = rag_ft("inspect", beir_folder, "--split", "other")
    assert (done.returncode, done.stderr.count("\n")) == (WRONG, 1)
    (tmp_path / "pairs.csv").write_text("frage,stelle\nWie?,So.\n")
    done = rag_ft("inspect", tmp_path / "pairs.csv")
    assert "no column is the question (columns: 'frage', 'stelle')" in done.stderr
