"""A few bad rows of a question file are left out and reported. Files are read as Excel and old Macs write them."""

import codecs
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_ft import files
from rag_ft.dataset.formats.labelled_pairs import LabelledPair, read_labelled_pairs
from rag_ft.dataset.formats.real_questions import RealQuestion, read_questions
from rag_ft.dataset.formats.tables import MAX_REPORTED, read_table
from rag_ft.errors import InputError

Reader = Callable[[Path], list]


def lines_of(kind: str, count: int) -> list[str]:
    """The lines of a question file, with the header if there is one."""
    rows = [{"text": f"How {number}?", "documents": ["a"], "_id": f"q{number}"} for number in range(count)]
    if kind == "asked.jsonl":
        return [json.dumps(row) for row in rows]
    if kind == "pairs.jsonl":
        return [json.dumps({"query": row["text"], "document": "a", "id": row["_id"]}) for row in rows]
    if kind == "pairs.json":
        return ["[", *(json.dumps({"query": row["text"], "document": "a", "id": row["_id"]}) + "," for row in rows)]
    return ["id,query,document", *(f"{row['_id']},{row['text']},a" for row in rows)]


BAD = {
    ("asked.jsonl", '{"documents": ["a"]}'): 'no "text"',
    ("asked.jsonl", '{"text": 3, "documents": ["a"]}'): 'no "text"',
    ("asked.jsonl", '{"text": "How?"}'): 'no "documents"',
    ("asked.jsonl", '{"text": "How?", "documents": [null, ""]}'): 'no "documents"',
    ("asked.jsonl", '{"text": "How?", "documents": {"a": 1}}'): "'documents' has {'a': 1}, but must have names",
    ("asked.jsonl", '{"text": "How?", "documents": "a", "evidence": 3}'): "'evidence' is 3",
    ("asked.jsonl", '{"text": "How?", "documents": "a", "_id": "q3"}'): "the id 'q3' was used before",
    ("asked.jsonl", '{"text": "How?", "documents": "a"'): "not valid JSON",
    ("asked.jsonl", '{"text": "\\ud835", "documents": "a"}'): "not valid JSON (half of a surrogate pair)",
    ("asked.jsonl", "How?"): "not valid JSON",
    ("asked.jsonl", '["How?", "a"]'): "is not a JSON object",
    ("pairs.jsonl", '{"query": "", "document": "a"}'): "the question under 'query' is ''",
    ("pairs.jsonl", '{"query": "How?", "document": null}'): "'document' is empty",
    ("pairs.jsonl", '{"query": "How?", "document": {"a": 1}}'): "'document' is {'a': 1}",
    ("pairs.jsonl", '{"query": "How?", "document": "a", "id": "q3"}'): "the id 'q3' is used by two questions",
    ("pairs.json", '["How?"],'): "item 10 is ['How?'], but must be an object",
    ("pairs.csv", ",,a"): "the question under 'query' is ''",
    ("pairs.csv", ",How?,"): "'document' is empty",
    ("pairs.csv", ",How?"): "2 cells, but 3 columns",
    ("pairs.csv", ",How, why?,a"): "4 cells, but 3 columns",
    ("pairs.csv", ',"How" or why?,a'): "not valid CSV",
}


@pytest.mark.parametrize(("kind", "line"), BAD)
def test_a_bad_row_is_left_out_and_reported(
    kind: str, line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / kind
    for good, is_left_out in ((19, True), (18, False)):
        lines = lines_of(kind, good)
        place = 9 + (kind in ("pairs.csv", "pairs.json"))
        lines.insert(place, line)
        file.write_text("\n".join(lines).removesuffix(",") + "]" * (kind == "pairs.json"))
        location = f"{file}: item 10" if kind == "pairs.json" else f"{file}:{place + 1}: "
        if is_left_out:
            with caplog.at_level(logging.WARNING):
                assert [question.id for question in read_questions(file)] == [f"q{number}" for number in range(good)]
            (message,) = caplog.messages
            assert message.startswith(f"a row is left out: {location}")
            assert BAD[kind, line] in message
        else:
            with pytest.raises(InputError) as failure:
                read_questions(file)
            assert str(failure.value).startswith(location)
            assert BAD[kind, line] in str(failure.value)


@pytest.mark.parametrize("read", [read_questions, read_labelled_pairs])
def test_many_bad_rows_are_counted(read: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "pairs.csv"
    lines = lines_of("pairs.csv", 200)
    file.write_text("\n".join([*lines, *["x,,a"] * 10]))
    assert len(read(file)) == 200
    assert caplog.messages[-1] == f"{file}: 10 of 210 rows are left out"
    assert len(caplog.messages) == MAX_REPORTED + 1
    file.write_text("\n".join([*lines, *["x,,a"] * 11]))
    with pytest.raises(InputError, match=r"is '', but must be a text \(the first of 11 such errors in 211 rows\)"):
        read(file)


def test_the_first_line_of_json_may_be_the_bad_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "asked.txt"
    for line in ("# my questions", '{"text": "How?"}'):
        file.write_text("\n".join([line, *lines_of("asked.jsonl", 30)]))
        assert len(read_questions(file)) == 30
    assert len(caplog.messages) == 2


def test_an_open_quote_does_not_hide_the_rows_that_it_swallows(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    lines = lines_of("pairs.csv", 100)
    lines[50] = 'q49,"How 49?,a'
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"pairs\.csv:51: not valid CSV"):
        read_questions(file)
    lines[80] = 'q79,"How 79?",a'
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"pairs\.csv:51: not valid CSV"):
        read_questions(file)


def test_other_readers_of_tables_still_refuse_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("\n".join([*lines_of("pairs.csv", 100), "1,2"]))
    with pytest.raises(InputError, match="2 cells, but 3 columns"):
        list(read_table(file).rows)
    jsonl = tmp_path / "review.jsonl"
    jsonl.write_text('{"id": "q", "question": "How?", "keep": ""}\n' * 50 + "{")
    with pytest.raises(InputError, match=r":51: not valid JSON"):
        read_table(jsonl)


ROWS = 'query,document\nHow?,leave.md\n"Two\nlines?","Über, 年.md"\n'
WANTED = [LabelledPair("How?", documents=("leave.md",)), LabelledPair("Two\nlines?", documents=("Über, 年.md",))]
MARKS = {
    "utf-8": b"", "utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
}  # fmt: skip


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["", "sep=,", '"sep=,"', "SEP=;", "sep=|", "sep=\t"])
def test_files_of_excel_and_old_macs_are_read(separator: str, end: str, encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "asked.csv"
    delimiter = separator.strip('"')[-1:] or ","
    text = ROWS.replace("query,document", f"query{delimiter}document").replace("How?,", f"How?{delimiter}")
    text = text.replace('",', f'"{delimiter}')
    lines = ([separator] if separator else []) + text.splitlines()
    content = end.join([*lines, ""])
    file.write_bytes(MARKS[encoding] + content.encode(encoding.removesuffix("-sig")))
    assert [
        LabelledPair(pair.query.replace("\r\n", "\n").replace("\r", "\n"), documents=pair.documents)
        for pair in read_labelled_pairs(file)
    ] == WANTED
    broken = end.join([*lines, f"a{delimiter}b{delimiter}c", ""])
    file.write_bytes(MARKS[encoding] + broken.encode(encoding.removesuffix("-sig")))
    with pytest.raises(InputError) as failure:
        read_labelled_pairs(file)
    assert str(failure.value).startswith(f"{file}:{len(lines) + 1}: 3 cells, but 2 columns")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"sep=;\n", ":1: no header"),
        (b"sep=;\nquery;query\n", ":2: two columns are named 'query'"),
        (b"sep=a\nquery,document\nHow?,a\n", ":2: 2 cells, but 1 columns"),
        (b"\xff\xfeq", "not valid UTF-16"),
        ("query,document\nHow?,a\n".encode("utf-16") + b"\x00\xd8x\0", ":3: not valid UTF-16: save the file as UTF-8"),
        (b"query,document\rHow?,a\rW\xe9?,a\r", ":3: byte 0xe9 is not UTF-8"),
    ],
)
def test_a_file_with_a_broken_structure_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "asked.csv"
    file.write_bytes(content)
    with pytest.raises(InputError) as failure:
        read_questions(file)
    assert said in str(failure.value)
    assert str(failure.value).startswith(str(file))


def test_json_lines_of_old_macs_are_read(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "How?", "documents": "a"}\r{"text": "Why?", "documents": [7]}\r')
    assert read_questions(file) == [RealQuestion("How?", ["a"]), RealQuestion("Why?", ["7"])]


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60), ends=st.lists(st.sampled_from("\r\n")))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-be", "utf-16-le"])
def test_lines_are_those_of_the_text(encoding: str, text: str, ends: list[str], tmp_path: Path) -> None:
    content = text.removeprefix("\ufeff").replace("a", "\r\n") + "".join(ends)
    file = tmp_path / "x.txt"
    mark = b"" if encoding == "utf-8-sig" else MARKS[encoding]
    file.write_bytes(mark + content.encode(encoding))
    lines = list(files.read_lines(file, keep_ends=True))
    assert "".join(line for _, line in lines) == content
    assert [number for number, _ in lines] == list(range(1, len(lines) + 1))
    plain = content.replace("\r\n", "\n").replace("\r", "\n")
    assert [line for _, line in files.read_lines(file)] == plain.removesuffix("\n").split("\n") * bool(content)


def test_a_line_is_never_read_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1_000_000)
    file = tmp_path / "x.txt"
    for content, number in ((b"x" * 2_000_000, 1), (b"a\rb\r" + "é".encode() * 600_000, 3)):
        file.write_bytes(content)
        with pytest.raises(InputError, match=f":{number}: a line of more than 1 MB"):
            list(files.read_lines(file))
    # A file of an old Mac has no line feed, but its lines are short.
    file.write_bytes(b"short\r" * 500_000)
    assert sum(1 for _ in files.read_lines(file)) == 500_000


def test_a_title_names_the_document_if_nothing_else_does(tmp_path: Path) -> None:
    file = tmp_path / "asked.csv"
    file.write_text("question,title\nHow?,Sick leave\n")
    assert read_labelled_pairs(file) == [LabelledPair("How?", documents=("Sick leave",))]
    file.write_text("question,title,passage\nHow?,Sick leave,So.\n")
    assert read_labelled_pairs(file) == [LabelledPair("How?", ("So.",))]
    file.write_text("question,source file\nHow?,a.md\n")
    assert read_labelled_pairs(file) == [LabelledPair("How?", documents=("a.md",))]
