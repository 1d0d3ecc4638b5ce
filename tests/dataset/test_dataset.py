"""Datasets round-trip through files. A broken file is refused with its name and line."""

import json
import math
import sys
from pathlib import Path

import pytest
from fakes.files import write_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_ft.dataset.formats.beir import read_beir, write_beir
from rag_ft.dataset.formats.llama_index_json import read_llama_index_json, write_llama_index_json
from rag_ft.dataset.formats.load import is_dataset, load_dataset
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query, ScoredPair
from rag_ft.documents.reader import read_documents
from rag_ft.errors import InputError, UnknownIdError
from rag_ft.files import write_jsonl, write_text, written_beside

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SAID = TEXT.filter(str.strip)
ID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), min_size=1, max_size=12)


@st.composite
def datasets(draw: st.DrawFn) -> QADataset:
    passages = draw(st.lists(st.builds(Passage, ID, TEXT, TEXT, ID), min_size=1, max_size=6, unique_by=lambda p: p.id))
    queries = draw(st.lists(st.builds(Query, ID, SAID, TEXT), min_size=1, max_size=6, unique_by=lambda q: q.id))
    grades = st.dictionaries(st.sampled_from([p.id for p in passages]), st.integers(1, 3), min_size=1, max_size=3)
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    for query in queries:
        qrels.setdefault(draw(st.sampled_from(["train", "dev", "test"])), {})[query.id] = draw(grades)
    info = draw(st.dictionaries(TEXT, st.integers(), max_size=2))
    return QADataset({p.id: p for p in passages}, {q.id: q for q in queries}, qrels, info)


@given(dataset=datasets())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_beir_folder_round_trips(dataset: QADataset, tmp_path: Path) -> None:
    assert read_beir(write_beir(dataset, tmp_path / "dataset")) == dataset


@given(dataset=datasets())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_llama_index_json_round_trips_the_embedded_texts(dataset: QADataset, tmp_path: Path) -> None:
    for split in dataset.splits:
        found = read_llama_index_json(write_llama_index_json(dataset, tmp_path / "dataset.json", split), split)
        assert found.passage_texts == dataset.passage_texts
        assert {key: set(relevant) for key, relevant in found.qrels[split].items()} == {
            key: set(relevant) for key, relevant in dataset.qrels[split].items()
        }
        assert {key: query.text for key, query in found.queries.items()} == {
            key: dataset.queries[key].text for key in dataset.qrels[split]
        }


def test_datasets_and_documents_are_distinguished(beir_folder: Path, tmp_path: Path) -> None:
    file = write_llama_index_json(read_beir(beir_folder), tmp_path / "dataset.json")
    assert is_dataset(beir_folder)
    assert is_dataset(file)
    assert not is_dataset(tmp_path)
    assert load_dataset(beir_folder).splits == ["train", "dev", "test"]
    assert load_dataset(file, "test").splits == ["test"]


def test_a_folder_of_documents_with_a_table_is_not_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,passage\nHow is leave booked?,Leave is booked in HELM.\n")
    (tmp_path / "leave.md").write_text("Leave is booked in HELM.")
    assert not is_dataset(tmp_path)
    assert is_dataset(tmp_path / "pairs.csv")
    assert not is_dataset(tmp_path / "leave.md")


def test_the_title_precedes_the_text_if_titles_differ(beir_folder: Path) -> None:
    texts = read_beir(beir_folder).passage_texts
    assert texts["d3#1"] == "Form T-3\nPart 1 of form T-3 is signed by the master of harbour 3."


def test_a_title_that_all_passages_share_is_left_out() -> None:
    passages = {key: Passage(key, f"text {key}", "Handbook") for key in "ab"}
    assert QADataset(passages, {}, {}).passage_texts == {"a": "text a", "b": "text b"}


def test_an_empty_title_adds_no_empty_line() -> None:
    passages = {"a": Passage("a", "text a", "Handbook"), "b": Passage("b", "text b")}
    assert QADataset(passages, {}, {}).passage_texts == {"a": "Handbook\ntext a", "b": "text b"}


def test_the_json_has_the_texts_that_the_folder_embeds(beir_folder: Path, tmp_path: Path) -> None:
    dataset = read_beir(beir_folder)
    content = json.loads(write_llama_index_json(dataset, tmp_path / "dataset.json").read_text())
    assert set(content) == {"queries", "corpus", "relevant_docs", "mode"}
    assert content["corpus"] == dataset.passage_texts
    assert content["relevant_docs"]["q0"] == ["d0#0"]


def test_a_beir_folder_made_elsewhere_is_read(tmp_path: Path) -> None:
    """No doc_id, numbers for ids, no header, TREC's four columns, grade 0, a byte-order mark, Windows line ends."""
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_bytes(
        b'\xef\xbb\xbf{"_id": 1, "text": "one", "metadata": {}}\r\n\r\n{"_id": 2, "text": "two", "title": null}\r\n'
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": 7, "text": "which"}\n{"_id": "8", "text": "where"}\n')
    (tmp_path / "qrels" / "train.tsv").write_bytes(b"7\t0\t1\t1\r\n7\t0\t2\t2\r\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n8\t2\t1\n8\t1\t0\n")
    dataset = read_beir(tmp_path)
    assert dataset.qrels == {"train": {"7": {"1": 1, "2": 2}}, "test": {"8": {"2": 1}}}
    assert dataset.documents == {"1": ["1"], "2": ["2"]}
    assert dataset.seen_queries() == {"8"}


def test_a_question_is_seen_if_its_document_is_in_train_or_dev(beir_folder: Path) -> None:
    (beir_folder / "qrels" / "test.tsv").write_text("q10\td0#1\t1\nq11\td11#0\t1\nq9\td9#1\t1\n")
    dataset = read_beir(beir_folder)
    assert dataset.seen_queries("test") == {"q10", "q9"}
    assert dataset.seen_queries("dev") == set()


BREAKS = {
    "an unknown query id": ("qrels/dev.tsv", 3, b"q99\td8#0\t1\n", "the query id 'q99' is not in queries.jsonl"),
    "an unknown passage id": ("qrels/dev.tsv", 3, b"q8\td99#0\t1\n", "the passage id 'd99#0' is not in corpus.jsonl"),
    "a score that is no number": ("qrels/dev.tsv", 3, b"q8\td8#0\tyes\n", "the score 'yes' is not a whole number"),
    "a missing column": ("qrels/dev.tsv", 3, b"q8\td8#0\n", "2 columns, not 3"),
    "a repeated passage id": ("corpus.jsonl", 5, b'{"_id": "d0#0", "text": "x"}\n', "'d0#0' was used before"),
    "a repeated question id": ("queries.jsonl", 5, b'{"_id": "q0", "text": "x"}\n', "'q0' was used before"),
    "no id": ("corpus.jsonl", 2, b'{"text": "x"}\n', 'no "_id"'),
    "an id with a tab": ("corpus.jsonl", 2, b'{"_id": "a\\tb", "text": "x"}\n', "has a tab or a line break"),
    "a text that is a list": ("corpus.jsonl", 2, b'{"_id": "x", "text": ["x"]}\n', "'text' is ['x']"),
    "an empty question": ("queries.jsonl", 2, b'{"_id": "x", "text": " "}\n', "the question 'x' is empty"),
    "broken JSON": ("corpus.jsonl", 4, b'{"_id": "x", "text"\n', "not valid JSON"),
    "a line that is a list": ("corpus.jsonl", 4, b'["x"]\n', "is not a JSON object"),
    "a nest without end": ("corpus.jsonl", 4, b"[" * 100_000 + b"\n", "not valid JSON"),
    "a number without end": ("corpus.jsonl", 4, b'{"_id": ' + b"1" * 5000 + b"}\n", "not valid JSON"),
    "half a character": ("queries.jsonl", 4, b'{"_id": "x", "text": "\\ud800"}\n', "half of a surrogate pair"),
    "a byte that is not UTF-8": ("corpus.jsonl", 6, b'{"_id": "x", "text": "\xe9"}\n', "byte 0xe9 is not UTF-8"),
    "a line of 20 MB": ("corpus.jsonl", 6, b'{"_id": "' + b"x" * 20_000_000 + b'"}\n', "a line of more than 10 MB"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_file_is_reported_with_its_line(what: str, beir_folder: Path) -> None:
    name, number, line, said = BREAKS[what]
    file = beir_folder / name
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[: number - 1], line, *lines[number - 1 :]]))
    with pytest.raises(InputError) as failure:
        read_beir(beir_folder)
    assert str(failure.value).startswith(f"{file}:{number}: ")
    assert said in str(failure.value)
    assert isinstance(failure.value, UnknownIdError) == ("unknown" in what)
    assert len(str(failure.value)) < 400 + len(str(file))


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_file_is_reported(name: str, beir_folder: Path) -> None:
    (beir_folder / name).unlink()
    with pytest.raises(InputError, match=name):
        read_beir(beir_folder)


def test_missing_qrels_are_reported(beir_folder: Path, tmp_path: Path) -> None:
    for file in (beir_folder / "qrels").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"qrels has no \.tsv file"):
        read_beir(beir_folder)
    with pytest.raises(InputError, match="does not exist"):
        load_dataset(tmp_path / "nowhere")


def test_requiring_an_empty_split_is_an_error(beir_folder: Path) -> None:
    (beir_folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    dataset = read_beir(beir_folder)
    assert dataset.splits == ["train", "dev"]
    with pytest.raises(InputError, match=r"no questions in split 'test' \(splits with questions: train, dev\)"):
        dataset.require("test")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "not an EmbeddingQAFinetuneDataset"),
        ('{"queries": {}, "corpus": {}}', "needs the objects"),
        ('{"queries": {"q": 1}, "corpus": {}, "relevant_docs": {}}', "queries 'q' is 1"),
        ('{"queries": {}, "corpus": {"p": "x"}, "relevant_docs": {"q": ["p"]}}', "the query 'q'"),
        ('{"queries": {"q": "x"}, "corpus": {}, "relevant_docs": {"q": ["p"]}}', "the passage 'p'"),
        ('{"queries": {"q": "x"}, "corpus": {"p": "x"}, "relevant_docs": {"q": null}}', "a list of passage ids"),
        ('{"queries": {"q": "x"}, "corpus": {"p": "x"}, "relevant_docs": {"q": "p"}}', "a list of passage ids"),
        ('{"queries": {"q": "x"}, "corpus": {"p": "x"}, "relevant_docs": {"q": [["p"]]}}', "a list of passage ids"),
        ('{"queries":\n {"q": }', ":2: not valid JSON"),
        ('{"queries": {"q": "\\udc00"}}', "half of a surrogate pair"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_json_file_of_another_format_is_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    file.write_text(content)
    with pytest.raises(InputError) as failure:
        read_llama_index_json(file)
    assert str(failure.value).startswith(str(file))
    assert said in str(failure.value)


def test_an_interrupted_write_leaves_the_old_folder(beir_folder: Path) -> None:
    before = read_beir(beir_folder)

    def stop() -> None:
        with written_beside(beir_folder) as target:
            target.mkdir()
            write_text(target / "corpus.jsonl", "half a line")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert read_beir(beir_folder) == before
    assert [path.name for path in beir_folder.parent.iterdir()] == [beir_folder.name]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [{"a": 1}])

    def rows() -> object:
        yield {"a": 2}
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        write_jsonl(file, rows())
    assert file.read_text() == '{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [file]


def test_an_interrupt_between_the_two_renames_restores_the_old_folder(beir_folder: Path) -> None:
    before = read_beir(beir_folder)
    renames: list[str] = []

    def interrupt_the_second(event: str, arguments: tuple) -> None:
        if event == "os.rename" and len(renames) < 2:
            renames.append(str(arguments[0]))
            if len(renames) == 2:
                raise KeyboardInterrupt

    def write() -> None:
        with written_beside(beir_folder) as target:
            target.mkdir()
            sys.addaudithook(interrupt_the_second)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert renames[0] == str(beir_folder)
    assert read_beir(beir_folder) == before
    assert [path.name for path in beir_folder.parent.iterdir()] == [beir_folder.name]


def test_a_written_dataset_replaces_the_previous_one(beir_folder: Path) -> None:
    small = QADataset({"p": Passage("p", "text", doc_id="d")}, {"q": Query("q", "what")}, {"test": {"q": {"p": 1}}})
    write_beir(small, beir_folder, dropped=[{"query": "x", "reason": "too short"}])
    assert read_beir(beir_folder) == small
    assert sorted(path.name for path in beir_folder.iterdir()) == [
        "corpus.jsonl", "dropped.jsonl", "qrels", "queries.jsonl",
    ]  # fmt: skip
    assert [path.name for path in beir_folder.parent.iterdir()] == [beir_folder.name]


def test_a_folder_that_is_not_a_dataset_is_not_overwritten(beir_folder: Path, tmp_path: Path) -> None:
    other, file = tmp_path / "thesis", tmp_path / "notes.txt"
    other.mkdir()
    (other / "chapter1.tex").write_text("years of work")
    file.write_text("notes")
    dataset = read_beir(beir_folder)
    for place in (other, file):
        with pytest.raises(InputError, match="choose another folder"):
            write_beir(dataset, place)
    assert (other / "chapter1.tex").read_text() == "years of work"
    assert file.read_text() == "notes"


def test_documents_become_titles_and_texts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "leave.md").write_text("---\ntitle: Leave\n---\nForty days {% include x.html %}a year.")
    (tmp_path / "badge.txt").write_text("\ufeff# Badges\n\nThey open doors.", encoding="utf-8")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / ".hidden.md").write_text("secret")
    (tmp_path / "empty.md").write_text("---\ntitle: Nothing\n---\n")
    found = {document.id_: (document.metadata["title"], document.text) for document in read_documents(tmp_path)}
    assert found == {
        "deep/leave.md": ("Leave", "Forty days a year."),
        "badge.txt": ("Badges", "# Badges\n\nThey open doors."),
    }


SOME_TEXT = TEXT.filter(bool)
LINE = SOME_TEXT.map(lambda text: " ".join(text.split())).filter(bool)


@st.composite
def labelled(draw: st.DrawFn) -> QADataset:
    ids = [f"p{number}" for number in range(draw(st.integers(1, 4)))]
    queries = {
        f"q{number}": Query(f"q{number}", draw(LINE), "", draw(SOME_TEXT), draw(SOME_TEXT)) for number in range(3)
    }
    negatives = draw(
        st.dictionaries(st.sampled_from(list(queries)), st.lists(st.sampled_from(ids), min_size=1, unique=True))
    )
    scored = draw(st.lists(st.builds(ScoredPair, LINE, LINE, st.floats(0, 1)), max_size=3))
    passages = {key: Passage(key, draw(SOME_TEXT), "", "d") for key in ids}
    return QADataset(passages, queries, {"train": {"q0": {"p0": 1}}}, {}, negatives, scored)


@given(dataset=labelled())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_negatives_scores_answers_and_evidence_are_kept(dataset: QADataset, tmp_path: Path) -> None:
    assert read_beir(write_beir(dataset, tmp_path / "dataset")) == dataset


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        (
            "negatives.jsonl",
            {"query-id": "nobody", "corpus-id": "d0#0"},
            "the query id 'nobody' is not in queries.jsonl",
        ),
        ("negatives.jsonl", {"query-id": "q0", "corpus-id": "x"}, "the passage id 'x' is not in corpus.jsonl"),
        ("scored_pairs.jsonl", {"query": "q", "passage": "p", "score": 2}, "the score 2 is not a number from 0 to 1"),
        ("scored_pairs.jsonl", {"query": "q", "passage": "p", "score": True}, "the score True"),
        ("scored_pairs.jsonl", {"query": "q", "passage": "p", "score": math.nan}, "the score nan"),
        ("scored_pairs.jsonl", {"query": "q", "score": 1}, 'no "query" or no "passage"'),
    ],
)
def test_broken_labels_are_reported(name: str, row: dict, said: str, beir_folder: Path) -> None:
    file = beir_folder / name
    write_lines(file, [row])
    with pytest.raises(InputError) as failure:
        read_beir(beir_folder)
    assert str(failure.value).startswith(f"{file}:1: ")
    assert said in str(failure.value)


def test_writing_a_dataset_keeps_other_files(beir_folder: Path) -> None:
    (beir_folder / "README.md").write_text("mine")
    (beir_folder / "notes").mkdir()
    (beir_folder / "notes" / "a.txt").write_text("mine too")
    (beir_folder / "negatives.jsonl").write_text('{"query-id": "q0", "corpus-id": "d1#0"}\n')
    dataset = read_beir(beir_folder)
    write_beir(QADataset(dataset.passages, dataset.queries, dataset.qrels), beir_folder)
    assert (beir_folder / "README.md").read_text() == "mine"
    assert (beir_folder / "notes" / "a.txt").read_text() == "mine too"
    assert read_beir(beir_folder).negatives == {}
