"""Questions are exported for review and imported again. Decisions also apply to questions generated again."""

import csv
import json
from pathlib import Path

import pytest
from fakes.command_line import WRONG, rag_ft
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_ft.dataset.formats.beir import read_beir
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.dataset.review import COLUMNS, Review, as_cell, export_questions, from_cell, import_review, review_folder
from rag_ft.errors import InputError, UnknownIdError
from rag_ft.files import read_jsonl

SUFFIXES = [".csv", ".tsv", ".jsonl"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CELL = st.one_of(TEXT, st.text(st.sampled_from("'=+-@\t\r\n,;\"a＝"), max_size=6))


def rows_of(file: Path) -> list[dict]:
    if file.suffix == ".jsonl":
        return [row for _, row in read_jsonl(file)]
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ","))


def write_rows(file: Path, rows: list[dict], delimiter: str | None = None) -> None:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with file.open("w", encoding="utf-8", newline="") as stream:
        delimiter = delimiter or ("\t" if file.suffix == ".tsv" else ",")
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def fill(file: Path, changes: dict[str, dict[str, str]]) -> None:
    rows = rows_of(file)
    assert changes.keys() <= {row["id"] for row in rows}
    write_rows(file, [row | changes.get(row["id"], {}) for row in rows])


@given(text=CELL)
@settings(max_examples=300)
def test_a_cell_round_trips_and_is_never_a_formula(text: str) -> None:
    assert from_cell(as_cell(text)) == text
    assert as_cell(text)[:1] not in set("=+-@\t\r\n＝＋－＠")


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(texts=st.lists(CELL.filter(str.strip), min_size=1, max_size=4), passage=CELL)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_untouched_export_has_no_decisions(suffix: str, texts: list[str], passage: str, tmp_path: Path) -> None:
    queries = {f"={place}": Query(f"={place}", text, "@style") for place, text in enumerate(texts)}
    dataset = QADataset({"-p": Passage("-p", passage)}, queries, {"test": {key: {"-p": 1} for key in queries}})
    file = export_questions(dataset, tmp_path / f"questions{suffix}")
    assert import_review(dataset, file) == Review()
    unescape = from_cell if suffix != ".jsonl" else str
    assert [unescape(row["question"]) for row in rows_of(file)] == texts
    assert all(unescape(row["passage"]) == passage for row in rows_of(file))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rejected_questions_are_removed_and_edited_ones_change(suffix: str, beir_folder: Path, tmp_path: Path) -> None:
    dataset = read_beir(beir_folder)
    file = export_questions(dataset, tmp_path / f"questions{suffix}")
    rows = rows_of(file)
    assert tuple(rows[0]) == COLUMNS
    assert rows[0] | {"passage": ""} == {
        "id": "q0", "split": "train", "style": "", "question": "Who signs T-0?", "passage_id": "d0#0",
        "document": "d0", "passage": "", "keep": "", "note": "",
    }  # fmt: skip
    fill(file, {
        "q0": {"keep": " No "}, "q1": {"question": "=who signs the T-1"}, "q2": {"keep": "yes"}, "q3": {"note": "?"},
        "q4": {"question": " Who  signs\nT-4? "}, "q5": {"keep": "x", "question": "gone anyway"},
    })  # fmt: skip
    review = import_review(dataset, file)
    assert review.rejected == [("Who signs T-0?", "d0#0"), ("Who signs T-5?", "d5#0")]
    assert review.edited == {("Who signs T-1?", "d1#0"): "=who signs the T-1"}
    changed, dropped = review.apply(dataset)
    assert changed.queries["q1"].text == "=who signs the T-1"
    assert set(changed.queries) == set(dataset.queries) - {"q0", "q5"}
    assert set(changed.qrels["train"]) == set(dataset.qrels["train"]) - {"q0", "q5"}
    assert dropped == [
        {"query": f"Who signs T-{n}?", "passage": f"d{n}#0", "reason": "rejected by a person", "style": ""}
        for n in (0, 5)
    ]


def test_decisions_apply_to_the_same_questions_generated_again(beir_folder: Path, tmp_path: Path) -> None:
    made = read_beir(beir_folder)
    file = export_questions(made, tmp_path / "questions.csv")
    fill(file, {"q0": {"keep": "no"}, "q1": {"question": "Whose name is on T-1?"}})
    (beir_folder / "dropped.jsonl").write_text('{"query": "old", "reason": "too short"}\n')
    (beir_folder / "negatives.jsonl").write_text('{"query-id": "q0", "corpus-id": "d1#0"}\n')
    review_folder(beir_folder, file)
    assert [row for _, row in read_jsonl(beir_folder / "reviewed.jsonl")] == [
        {"query": "Who signs T-0?", "passage": "d0#0", "decision": "rejected", "text": ""},
        {"query": "Who signs T-1?", "passage": "d1#0", "decision": "edited", "text": "Whose name is on T-1?"},
    ]
    assert [row["query"] for _, row in read_jsonl(beir_folder / "dropped.jsonl")] == ["old", "Who signs T-0?"]
    after = read_beir(beir_folder)
    again, dropped = Review.load(beir_folder).apply(made)
    assert (again.queries, again.qrels) == (after.queries, after.qrels)
    assert len(dropped) == 1
    assert after.negatives == {}
    assert Review.load(beir_folder).apply(after) == (after, [])


def test_a_file_can_be_imported_repeatedly(beir_folder: Path, tmp_path: Path) -> None:
    file = export_questions(read_beir(beir_folder), tmp_path / "questions.csv")
    second = export_questions(read_beir(beir_folder), tmp_path / "second.csv")
    fill(file, {"q0": {"keep": "no"}, "q1": {"question": "Whose name is on T-1?"}})
    assert len(review_folder(beir_folder, file).decisions) == 2
    assert review_folder(beir_folder, file) == Review()
    # A second person's file shows what the first has decided as it was.
    fill(second, {"q2": {"keep": "no"}})
    assert review_folder(beir_folder, second).rejected == [("Who signs T-2?", "d2#0")]
    dataset = read_beir(beir_folder)
    assert dataset.queries["q1"].text == "Whose name is on T-1?"
    assert {"q0", "q2"}.isdisjoint(dataset.queries)


def test_a_question_that_was_edited_and_then_rejected_stays_rejected(beir_folder: Path, tmp_path: Path) -> None:
    made = read_beir(beir_folder)
    for change in ({"question": "Whose name?"}, {"question": "Whose?"}, {"keep": "no"}):
        file = export_questions(read_beir(beir_folder), tmp_path / "questions.jsonl")
        fill(file, {"q1": change})
        review_folder(beir_folder, file)
    assert Review.load(beir_folder).decisions == {("Who signs T-1?", "d1#0"): None}
    assert "q1" not in Review.load(beir_folder).apply(made)[0].queries


def test_an_edit_that_is_undone_is_no_decision() -> None:
    first = Review({("a", "p"): "b"})
    assert first.merged(Review({("b", "p"): "a"})) == Review()
    assert first.merged(Review({("b", "other"): None})).rejected == [("b", "other")]
    assert first.merged(Review({("a", "p"): "c"})).edited == {("a", "p"): "c"}


def test_a_spreadsheet_that_writes_semicolons_and_moves_columns_is_read(beir_folder: Path, tmp_path: Path) -> None:
    dataset = read_beir(beir_folder)
    file = export_questions(dataset, tmp_path / "questions.csv")
    rows = [{key: row[key] for key in ("keep", "question", "id")} | {"who": "me"} for row in rows_of(file)][:3]
    rows[1]["keep"] = "FALSE"
    write_rows(file, rows, ";")
    assert import_review(dataset, file).rejected == [("Who signs T-1?", "d1#0")]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "q99"}, "the dataset has no question with the id 'q99'"),
        ({"id": "q0"}, "the id 'q0' appears twice"),
        ({"keep": "perhaps"}, "keep is 'perhaps': write yes, no or nothing"),
        ({"question": " "}, "the question 'q2' is empty: write no under keep"),
    ],
)
def test_an_invalid_cell_is_reported_with_its_line(
    suffix: str, change: dict, said: str, beir_folder: Path, tmp_path: Path
) -> None:
    file = export_questions(read_beir(beir_folder), tmp_path / f"questions{suffix}")
    fill(file, {"q2": change})
    before = {path: path.read_bytes() for path in beir_folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as failure:
        review_folder(beir_folder, file)
    # A passage has two lines.
    assert str(failure.value).startswith(f"{file}:{3 if suffix == '.jsonl' else 6}: ")
    assert said in str(failure.value)
    assert isinstance(failure.value, UnknownIdError) == ("q99" in said)
    assert {path: path.read_bytes() for path in beir_folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("column", ["id", "question", "keep"])
def test_a_missing_column_is_reported(column: str, beir_folder: Path, tmp_path: Path) -> None:
    file = export_questions(read_beir(beir_folder), tmp_path / "questions.csv")
    write_rows(file, [{key: value for key, value in row.items() if key != column} for row in rows_of(file)])
    with pytest.raises(InputError, match=f"questions.csv has no column '{column}'"):
        import_review(read_beir(beir_folder), file)


@pytest.mark.parametrize(
    "line",
    [
        '{"query": "q", "passage": "p", "decision": "perhaps"}',
        '{"query": 1, "passage": "p", "decision": "rejected"}',
        '{"query": "q", "passage": "p", "decision": "edited", "text": " "}',
        "[]",
    ],
)
def test_broken_decisions_are_reported(line: str, tmp_path: Path) -> None:
    (tmp_path / "reviewed.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"reviewed\.jsonl:1: "):
        Review.load(tmp_path)
    assert Review.load(tmp_path / "nowhere") == Review()


def test_rejecting_every_question_is_an_error(beir_folder: Path, tmp_path: Path) -> None:
    file = export_questions(read_beir(beir_folder), tmp_path / "questions.csv")
    write_rows(file, [row | {"keep": "no"} for row in rows_of(file)])
    with pytest.raises(InputError, match="rejects every question"):
        review_folder(beir_folder, file)
    assert not (beir_folder / "reviewed.jsonl").exists()


def test_the_review_command_round_trips(beir_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    done = rag_ft("review", beir_folder, "--export", file)
    assert (done.returncode, "12 questions" in done.stdout) == (0, True), done.stderr
    fill(file, {"q0": {"keep": "no"}, "q1": {"question": "[bold]Who[/] \x1b[2Jsigns?"}})
    done = rag_ft("review", beir_folder, "--import", file)
    assert done.returncode == 0, done.stderr
    assert "rejected  Who signs T-0?" in done.stdout
    assert "-> [bold]Who[/] [2Jsigns?" in done.stdout
    assert "1 rejected, 1 edited" in done.stdout
    assert "q0" not in read_beir(beir_folder).queries


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "pass either --export FILE or --import FILE"),
        (["--export", "a.csv", "--import", "b.csv"], "pass either --export FILE or --import FILE"),
        (["--export", "a.xlsx"], "a.xlsx is not a supported format: choose a .csv"),
        (["--import", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--import", "a.xlsx"], "a.xlsx is not a supported format: choose a .csv"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], said: str, beir_folder: Path) -> None:
    done = rag_ft("review", beir_folder, *arguments)
    assert done.returncode == WRONG
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
