"""Labelled pairs are read from every format that people have, as real files. Broken ones are reported."""

import csv
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.files import write_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_ft.dataset.formats.beir import read_beir, write_beir
from rag_ft.dataset.formats.from_pairs import dataset_from_pairs
from rag_ft.dataset.formats.labelled_pairs import LabelledPair, read_labelled_pairs
from rag_ft.dataset.formats.llama_index_json import write_llama_index_json
from rag_ft.dataset.formats.load import is_dataset, load_dataset
from rag_ft.dataset.formats.real_questions import RealQuestion, read_questions
from rag_ft.dataset.qa_dataset import Passage, ScoredPair
from rag_ft.errors import InputError

Rows = list[dict]

TRIPLETS: Rows = [
    {"query": "How is leave booked?", "positive": "Leave is booked in HELM.", "negative": ["Badges open doors."]},
    {"query": "What opens doors?", "positive": "Badges open doors.", "negative": ["Ask the master.", "Ships sail."]},
]


def as_csv(rows: Rows, file: Path, delimiter: str = ",") -> Path:
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()])
    return file


def as_jsonl(rows: Rows, file: Path) -> Path:
    write_lines(file, rows)
    return file


def as_json(rows: Rows, file: Path) -> Path:
    file.write_text(json.dumps(rows, indent=1))
    return file


def as_parquet(rows: Rows, file: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


def as_saved(rows: Rows, folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_list(rows).with_format("numpy").save_to_disk(str(folder))
    return folder


FORMS: dict[str, Callable[[Rows, Path], Path]] = {
    "pairs.csv": as_csv,
    "semicolons.csv": lambda rows, file: as_csv(rows, file, ";"),
    "tabs.csv": lambda rows, file: as_csv(rows, file, "\t"),
    "pairs.tsv": lambda rows, file: as_csv(rows, file, "\t"),
    "pairs.jsonl": as_jsonl,
    "pairs.json": as_json,
    "pairs.parquet": as_parquet,
    "saved": as_saved,
}


@pytest.mark.parametrize("form", FORMS)
def test_triplets_are_read_from_every_format(form: str, tmp_path: Path) -> None:
    path = FORMS[form](TRIPLETS, tmp_path / form)
    assert read_labelled_pairs(path) == [
        LabelledPair(row["query"], (row["positive"],), tuple(row["negative"])) for row in TRIPLETS
    ]
    assert is_dataset(path)
    dataset = load_dataset(path, "dev")
    assert dataset.splits == ["dev"]
    assert len(dataset.passages) == 4
    assert {key: len(found) for key, found in dataset.negatives.items()} == {"q0": 1, "q1": 2}
    assert [question.positives for question in read_questions(path)] == [(row["positive"],) for row in TRIPLETS]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SAID = TEXT.map(lambda text: " ".join(text.split())).filter(lambda text: text and not text.startswith("["))


@given(rows=st.lists(st.tuples(SAID, st.lists(SAID, min_size=1, max_size=3, unique=True)), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("form", ["pairs.csv", "pairs.tsv", "pairs.jsonl", "pairs.parquet"])
def test_any_text_round_trips(form: str, rows: list, tmp_path: Path) -> None:
    path = FORMS[form]([{"question": query, "passages": texts} for query, texts in rows], tmp_path / form)
    wanted: dict[str, dict[str, None]] = {}
    for query, texts in rows:
        wanted.setdefault(query, {}).update(dict.fromkeys(texts))
    assert {pair.query: list(pair.positives) for pair in read_labelled_pairs(path)} == {
        query: list(texts) for query, texts in wanted.items()
    }


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"Question": "q", "Context": "p"}, LabelledPair("q", ("p",))),
        ({"anchor": "q", "positive": "p", "negative_1": "x", "negative_2": "y"}, LabelledPair("q", ("p",), ("x", "y"))),
        ({"query": "q", "pos": ["p"], "neg": ["x"], "prompt": "find"}, LabelledPair("q", ("p",), ("x",))),
        ({"user_input": "q", "reference_contexts": ["p", "r"], "reference": "a"}, LabelledPair("q", ("p", "r"))),
        ({"question": "q", "context": "p", "answer": "a"}, LabelledPair("q", ("p",), answer="a")),
        ({"question": "q", "answer": "a"}, LabelledPair("q", ("a",))),
        ({"question": "q", "answer": "a", "url": "u"}, LabelledPair("q", documents=("u",), answer="a")),
        ({"query": "q", "clicked": "leave.md"}, LabelledPair("q", documents=("leave.md",))),
        ({"query": "q", "passage": "p", "clicked": 1}, LabelledPair("q", ("p",), score=1.0)),
        ({"query": "q", "document": "leave", "text": "p"}, LabelledPair("q", ("p",), documents=("leave",))),
        ({"query": "q", "document": "so many words that they are a text and no name"},
         LabelledPair("q", ("so many words that they are a text and no name",))),
        ({"text": "q", "documents": ["a", "b"], "evidence": "e"}, LabelledPair("q", (), (), None, ("a", "b"), "e")),
        ({"query-id": 7, "query": "q", "positive_passages": [{"docid": "1", "text": "p"}]},
         LabelledPair("q", ("p",), id="7")),
        ({"query": "q", "passage": "[1] shows it"}, LabelledPair("q", ("[1] shows it",))),
    ],
)  # fmt: skip
def test_columns_are_recognised_by_their_names(row: dict, pair: LabelledPair, tmp_path: Path) -> None:
    assert read_labelled_pairs(as_jsonl([row], tmp_path / "pairs.jsonl")) == [pair]


def test_columns_with_other_names_can_be_given(tmp_path: Path) -> None:
    file = as_csv([{"frage": "q", "stelle": "p", "anderes": "x"}], tmp_path / "pairs.csv")
    fields = {"query": "frage", "positive": "stelle", "negative": "anderes"}
    assert read_labelled_pairs(file, fields=fields) == [LabelledPair("q", ("p",), ("x",))]
    assert load_dataset(file, fields=fields).splits == ["train"]
    assert [question.text for question in read_questions(file, fields=fields)] == ["q"]


@pytest.mark.parametrize(
    ("columns", "fields", "said"),
    [
        (
            ["frage", "stelle"],
            {},
            "no column is the question (columns: 'frage', 'stelle'): rename them, or pass fields=",
        ),
        (["query", "stelle"], {}, "no column is the passage or document that answers"),
        (["query", "question", "passage"], {}, "'query' and 'question' may both be the query"),
        (["query", "passage", "context"], {}, "'passage' and 'context' may both be the positive"),
        (["query", "passage", "score", "label"], {}, "'score' and 'label' may both be the score"),
        (["query", "passage"], {"query": "frage"}, "has no column 'frage'"),
        (
            ["query", "passage"],
            {"frage": "query"},
            "fields has the unknown role 'frage': the roles are query, positive",
        ),
    ],
)
def test_ambiguous_columns_are_reported(columns: list, fields: dict, said: str, tmp_path: Path) -> None:
    file = as_csv([dict.fromkeys(columns, "1")], tmp_path / "pairs.csv")
    with pytest.raises(InputError) as failure:
        read_labelled_pairs(file, fields=fields)
    assert str(failure.value).startswith(str(file))
    assert said in str(failure.value)


def scores(values: list, column: str, tmp_path: Path) -> list[float | None]:
    rows = [{"query": f"q{place}", "passage": f"p{place}", column: value} for place, value in enumerate(values)]
    return [pair.score for pair in read_labelled_pairs(as_csv(rows, tmp_path / "pairs.csv", ";"))]


@pytest.mark.parametrize(
    ("values", "column", "found"),
    [
        ([0, 0.25, 1], "score", [0, 0.25, 1]),
        (["0,5", "1,0"], "similarity", [0.5, 1]),
        ([1, 4, 5], "rating", [0.2, 0.8, 1]),
        ([0, 1], "label", [0, 1]),
        (["Yes", "not relevant", "no"], "relevant", [1, 0, 0]),
        ([0, 3, 40], "clicks", [0, 1, 1]),
    ],
)
def test_scores_are_scaled_to_0_to_1(values: list, column: str, found: list, tmp_path: Path) -> None:
    assert scores(values, column, tmp_path) == pytest.approx(found)


def test_clicks_are_divided_by_the_largest_of_their_question(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "doc": name, "clicks": clicks} for name, clicks in (("a", 40), ("b", 30), ("c", 4), ("d", 0))
    ]
    file = as_csv([*rows, {"query": "r", "doc": "e", "clicks": 2}], tmp_path / "clicks.csv")
    passages = {name: Passage(name, f"text of {name}") for name in "abcde"}
    dataset, dropped = dataset_from_pairs(read_labelled_pairs(file), passages)
    assert dataset.qrels == {"train": {"q0": {"a": 1, "b": 1}, "q1": {"e": 1}}}
    assert dataset.negatives == {"q0": ["d"]}
    assert dropped == []
    assert [question.documents for question in read_questions(file)] == [("a", "b"), ("e",)]


def test_scored_pairs_keep_their_scores(tmp_path: Path) -> None:
    rows = [
        {"sentence1": "How?", "sentence2": text, "score": score}
        for text, score in (("So.", 0.9), ("Maybe so.", 0.3), ("Not so.", 0))
    ]
    dataset = load_dataset(as_jsonl(rows, tmp_path / "pairs.jsonl"))
    assert dataset.qrels == {"train": {"q0": {"p0": 1}}}
    assert dataset.negatives == {"q0": ["p2"]}
    assert dataset.scored_pairs == [
        ScoredPair("How?", "So.", 0.9), ScoredPair("How?", "Maybe so.", 0.3), ScoredPair("How?", "Not so.", 0.0),
    ]  # fmt: skip
    again = read_beir(write_beir(dataset, tmp_path / "dataset"))
    assert (again.negatives, again.scored_pairs) == (dataset.negatives, dataset.scored_pairs)


def test_a_table_of_low_scores_is_a_dataset_without_questions(tmp_path: Path) -> None:
    file = as_csv([{"query": "q", "passage": "p", "score": 0.2}], tmp_path / "pairs.csv")
    assert len(load_dataset(file).scored_pairs) == 1
    with pytest.raises(InputError, match=r"every score is below 0\.5"):
        read_questions(file)


BROKEN = {
    "no question": (["", "p", "1"], "the question under 'query' is ''"),
    "no passage": (["q", " ", "1"], "'passage' is empty"),
    "no score": (["q", "p", ""], "the score under 'score' is ''"),
    "a score that is no number": (["q", "p", "entailment"], "the score under 'score' is 'entailment'"),
    "a score below 0": (["q", "p", "-1"], "a number of at least 0"),
    "a score without end": (["q", "p", "inf"], "a number of at least 0"),
    "a list as Python prints it": (["q", "['a' 'b']", "1"], 'write ["…", "…"]'),
    "too many cells": (["q", "p", "1", "2"], "4 cells, but 3 columns"),
    "too few cells": (["q", "p"], "2 cells, but 3 columns"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_row_is_reported_with_its_line(what: str, tmp_path: Path) -> None:
    cells, said = BROKEN[what]
    file = tmp_path / "pairs.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["query", "passage", "score"], ["two\nlines", "p", "1"], [], cells])
    with pytest.raises(InputError) as failure:
        read_labelled_pairs(file)
    assert str(failure.value).startswith(f"{file}:5: ")
    assert said in str(failure.value)
    assert len(str(failure.value)) < 300 + len(str(file))


FILES = {
    "an open quote": ("x.csv", b'query,passage\nq,"p\nq,p\n', ":2: not valid CSV"),
    "latin-1": ("x.csv", b"query,passage\nq,\xe9\n", ":2: byte 0xe9 is not UTF-8"),
    "two columns of one name": ("x.csv", b"query,passage,query\nq,p,r\n", ":1: two columns are named 'query'"),
    "an empty table": ("x.csv", b"\n\n", ":1: no header"),
    "a header alone": ("x.csv", b"query,passage\n", "contains no questions"),
    "a cell of 11 MB": ("x.csv", b'query,passage\nq,"' + b"x\n" * 5_500_000 + b'"\n', ":2: not valid CSV"),
    "a number for a text": ("x.jsonl", b'{"query": "q", "passage": 3}\n', ":1: 'passage' is 3"),
    "a list for a question": ("x.jsonl", b'{"query": ["q"], "passage": "p"}\n', ":1: the question under 'query' is"),
    "a nested list": ("x.jsonl", b'{"query": "q", "passage": {"is_selected": [1]}}\n', ":1: 'passage' is {"),
    "an id for two questions": (
        "x.jsonl", b'{"id": 1, "query": "q", "passage": "p"}\n{"id": 1, "query": "r", "passage": "p"}\n',
        ":2: the id '1' is used by two questions",
    ),
    "an id with a tab": ("x.jsonl", b'{"id": "a\\tb", "query": "q", "passage": "p"}\n', ":1: the id 'a\\tb' has a tab"),
    "broken JSON": ("x.jsonl", b'{"query": \n', ":1: not valid JSON"),
    "a list of texts": ("x.json", b'["q", "p"]', ": item 1 is 'q'"),
    "an object": ("x.json", b'{"query": "q"}', "is not an EmbeddingQAFinetuneDataset"),
    "no Parquet": ("x.parquet", b"PAR1 or not", "cannot be read as Parquet"),
    "a spreadsheet": ("x.xlsx", b"PK", "is not a table"),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_a_broken_file_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    name, content, said = FILES[what]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError) as failure:
        read_labelled_pairs(file)
    assert str(failure.value).startswith(str(file))
    assert said in str(failure.value)
    assert len(str(failure.value)) < 300 + len(str(file))


def test_a_broken_saved_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "/etc/passwd"}]}')
    with pytest.raises(InputError, match="cannot be read as a saved dataset"):
        read_labelled_pairs(tmp_path)
    (tmp_path / "state.json").unlink()
    with pytest.raises(InputError, match=r"it needs state\.json"):
        read_labelled_pairs(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_labelled_pairs(tmp_path / "nowhere")


@given(content=st.one_of(st.binary(max_size=200), st.text("qp,;\t\n\"[]{}:' 1", max_size=80).map(str.encode)))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_random_bytes_are_refused_without_a_crash(suffix: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    with suppress(InputError):
        load_dataset(file)


def test_the_splits_of_a_dataset_dict_are_kept(tmp_path: Path) -> None:
    import datasets

    parts = {
        name: datasets.Dataset.from_list([{"query": text, "positive": f"{name} says so"} for text in ("both", name)])
        for name in ("train", "validation", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    dataset = load_dataset(tmp_path / "saved")
    assert dataset.splits == ["train", "dev", "test"]
    assert {split: [dataset.queries[key].text for key in qrels] for split, qrels in dataset.qrels.items()} == {
        "test": ["both", "test"], "train": ["both", "train"], "dev": ["both", "validation"],
    }  # fmt: skip
    (question, *_) = read_questions(tmp_path / "saved")
    assert len(question.positives) == 3


def test_beir_and_llama_index_datasets_are_read_as_pairs(beir_folder: Path, tmp_path: Path) -> None:
    dataset = read_beir(beir_folder)
    pairs = read_labelled_pairs(beir_folder)
    assert {(pair.id, pair.split) for pair in pairs} == {
        (q, split) for split in dataset.splits for q in dataset.qrels[split]
    }
    assert dataset_from_pairs(pairs, dataset.passages)[0] == dataset
    file = write_llama_index_json(dataset, tmp_path / "dataset.json")
    assert [pair.id for pair in read_labelled_pairs(file)] == list(dataset.qrels["train"])


def test_the_texts_of_pairs_become_a_corpus_with_documents() -> None:
    pairs = [
        LabelledPair("one", ("shared\ntext",), documents=("a",), id="q0"),
        LabelledPair("two", ("shared text", "other text"), ("third text",)),
        LabelledPair("two", ("second",), documents=("b",)),
        LabelledPair("ask", documents=("page",), answer="an answer"),
        LabelledPair("lost", documents=("page",)),
    ]
    dataset, dropped = dataset_from_pairs(pairs)
    assert {passage.text: passage.document for passage in dataset.passages.values()} == {
        "shared\ntext": "a", "other text": "p1", "third text": "p2", "second": "b", "an answer": "page",
    }  # fmt: skip
    assert dataset.qrels == {"train": {"q0": {"p0": 1}, "q1": {"p0": 1, "p1": 1, "p3": 1}, "q2": {"p4": 1}}}
    assert dataset.queries["q2"].answer == "an answer"
    assert [(row["query"], row["reason"]) for row in dropped] == [
        ("lost", "it names a document, and no corpus holds its text")
    ]


def test_a_passage_marked_both_ways_is_relevant_and_reported(tmp_path: Path) -> None:
    dataset, dropped = dataset_from_pairs([LabelledPair("q", ("p", "r"), ("p", "x"))])
    assert dataset.qrels["train"]["q0"] == {"p0": 1, "p1": 1}
    assert dataset.negatives == {"q0": ["p2"]}
    assert [row["reason"] for row in dropped] == ["it is marked both as relevant and as not relevant"]


def test_texts_are_located_in_a_corpus_or_dropped() -> None:
    pairs = [
        LabelledPair("in", ("Leave is booked in HELM by noon of the day before.",), ("Badges open doors and gates.",)),
        LabelledPair("out", ("Nobody ever wrote this sentence anywhere in the corpus.",)),
        LabelledPair("half", ("Nobody wrote this either.",), documents=("leave",)),
        LabelledPair("whole", documents=("badges",)),
        LabelledPair("unknown", documents=("nowhere",)),
        LabelledPair("scored", ("Leave is booked in HELM",), score=0.7, documents=("leave",)),
    ]
    passages = {
        "l0": Passage("l0", "Leave is booked\nin HELM by noon of the day before.", "Leave", "leave"),
        "b0": Passage("b0", "Badges open doors and gates.", "Badges", "badges"),
    }
    dataset, dropped = dataset_from_pairs(pairs, passages, "test")
    assert dataset.passages == passages
    assert dataset.qrels == {"test": {"q0": {"l0": 1}, "q3": {"b0": 1}, "q5": {"l0": 1}}}
    assert dataset.negatives == {"q0": ["b0"]}
    assert dataset.scored_pairs == [ScoredPair("scored", dataset.passage_texts["l0"], 0.7)]
    assert [(row["query"], row["reason"].split(":")[0]) for row in dropped] == [
        ("out", "its passage is not in the corpus"),
        ("half", "its passage is not in the corpus"),
        ("unknown", "its document is not in the corpus"),
    ]


def test_questions_with_their_documents_are_read_as_before(acme: Path, tmp_path: Path) -> None:
    first = read_questions(acme / "questions.jsonl")[0]
    assert (first.documents, first.id, first.positives) == (["people/lantern.md"], "q001", ())
    file = tmp_path / "questions.txt"
    file.write_text('{"text": "How?", "documents": "a"}\n')
    assert read_questions(file) == [RealQuestion("How?", ["a"])]


def test_a_question_with_several_documents(tmp_path: Path) -> None:
    rows = [
        {"question": "How?", "document": name, "evidence": f"so says {name}", "id": "q7", "answer": "So."}
        for name in "ab"
    ]
    (question,) = read_questions(as_csv(rows, tmp_path / "asked.csv"))
    assert question == RealQuestion("How?", ("a", "b"), "", "q7", ("so says a", "so says b"), (), "So.")
