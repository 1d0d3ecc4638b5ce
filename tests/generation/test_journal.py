"""Answers that are on the disk before they count."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft.errors import InputError
from rag_ft.generation.journal import Journal, request_key


def test_a_torn_last_line_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file) as journal:
        journal.record([("a", "Who?"), ("b", "Où?\nWhen?")])
    whole = file.read_bytes()
    for cut in range(1, len(whole.splitlines()[-1]) + 1):
        file.write_bytes(whole[:-cut])
        with Journal(file) as journal:
            assert journal.responses == {"a": "Who?"}
            journal.record([("c", "Again?")])
        assert Journal(file).responses == {"a": "Who?", "c": "Again?"}


@given(batches=st.lists(st.lists(st.tuples(st.text("ab", max_size=2), st.text(max_size=20)), max_size=3), max_size=4))
@settings(max_examples=30, deadline=None)
def test_what_was_recorded_is_there_after_reopening(
    batches: list[list[tuple[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("journal") / "deep" / "journal.jsonl"
    expected: dict[str, str] = {}
    for batch in batches:
        with Journal(file) as journal:
            assert journal.responses == expected
            journal.record(batch)
            expected.update(batch)
            assert journal.responses == expected
            assert Journal(file).responses == expected


def test_an_answer_with_half_a_character_is_kept_without_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.record([("a", "Who? \ud83d")])
        assert journal.responses == {"a": "Who? ?"}
    assert Journal(tmp_path / "journal.jsonl").responses == {"a": "Who? ?"}


def test_lines_that_are_no_responses_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b'{"key": "a", "answer": null}\n[]\n\xff\xfe\n{"key": ["b"], "answer": "x"}\n{}\n'
                     b'{"key": "c", "answer": "Who?"}\n')  # fmt: skip
    assert Journal(file).responses == {"c": "Who?"}


def test_a_journal_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in the way"):
        Journal(tmp_path)


def test_the_key_depends_on_the_model_and_the_prompt() -> None:
    assert request_key("ab", "c") != request_key("a", "bc")
    assert request_key("a", "b") == request_key("a", "b")


def test_a_full_disk_keeps_whole_lines_and_reports_an_error(tmp_path: Path) -> None:
    """An unbuffered write may take a part and say nothing; a limit on the size of a file stands for a full disk."""
    file = tmp_path / "journal.jsonl"
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from rag_ft.errors import OutsideError\n"
        "from rag_ft.generation.journal import Journal\n"
        "with Journal(Path(sys.argv[1])) as journal:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "    try:\n"
        "        journal.record([(f'key{n}', 'Who signs the form?') for n in range(20)])\n"
        "    except OutsideError as error:\n"
        "        print(len(journal.responses), error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("0 no space left on the disk")
    with Journal(file) as journal:  # whole lines are kept, the torn one is not
        assert 0 < len(journal.responses) < 20
        journal.record([("more", "When?")])
    assert Journal(file).responses["more"] == "When?"


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("remember the milk")
    with pytest.raises(InputError, match=r"notes\.txt is not a journal of responses"):
        Journal(file)
    assert file.read_text() == "remember the milk"
