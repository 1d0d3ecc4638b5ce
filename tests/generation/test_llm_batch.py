"""The OpenAI Batch API over real HTTP: partial failures, expiry, restarts, and nothing paid twice."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.openai_llm import expected, served_llm, texts
from fakes.openai_server import State, serve
from fakes.passages import about_in_winter
from typer.testing import CliRunner

from rag_ft import load_dataset
from rag_ft.cli import app
from rag_ft.errors import InputError, OutsideError
from rag_ft.generation import llm_batch
from rag_ft.generation.journal import Journal
from rag_ft.generation.llm_questions import generate_questions, questions_from_llm
from rag_ft.generation.local_llm import LocalLLM
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.remote import openai_batch

pytest.importorskip("openai", reason="pip install 'rag-ft[openai]'")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[State, str]]:
    monkeypatch.setattr(openai_batch, "FIRST_POLL", 0.05)
    running, state, address = serve()
    state.batch_seconds = 0.2
    yield state, address
    running.shutdown()
    running.server_close()


def requested(state: State) -> int:
    """Lines in all batches that the server began."""
    return sum(batch["request_counts"]["total"] for batch in state.batches.values())


def test_a_batch_gives_the_same_questions_as_single_calls(server: tuple[State, str], tmp_path: Path) -> None:
    state, address = server
    journal = tmp_path / "journal.jsonl"
    found = questions_from_llm(
        about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
    )
    assert texts(found) == expected(30)
    assert (found.requests, requested(state), len(state.batches)) == (30, 30, 1)
    lines = [json.loads(line) for line in state.files["file-1"].decode().splitlines()]
    assert {line["url"] for line in lines} == {"/v1/chat/completions"}
    assert lines[0]["body"]["model"] == "fake"
    assert len({line["custom_id"] for line in lines}) == 30
    # The journal is the same for both ways: single calls find everything there, and so does a second batch.
    for batch in (False, True):
        again = questions_from_llm(
            about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=batch)
        )
        assert (texts(again), again.requests) == (texts(found), 0)
    assert requested(state) == 30


@pytest.mark.parametrize("endings", [["partial"], ["expired"], ["partial", "expired"], ["expired", "partial"]])
def test_failed_and_expired_lines_are_sent_again(server: tuple[State, str], endings: list[str], tmp_path: Path) -> None:
    state, address = server
    state.batch_endings = list(endings)
    found = questions_from_llm(
        about_in_winter(30),
        served_llm(address),
        question_options=QuestionOptions(journal=tmp_path / "journal.jsonl", batch=True),
    )
    assert texts(found) == expected(30)
    assert len(state.batches) == len(endings) + 1
    assert state.stats()["answered_twice"] == 0


def test_what_fails_three_times_is_recorded(server: tuple[State, str], tmp_path: Path) -> None:
    state, address = server
    state.batch_endings = ["partial"] * 3
    found = questions_from_llm(
        about_in_winter(30),
        served_llm(address),
        question_options=QuestionOptions(journal=tmp_path / "journal.jsonl", batch=True),
    )
    reasons = {row["reason"] for row in found.dropped}
    assert reasons == {"the LLM failed: The server had an error", "no usable answer: 'I cannot'"}
    assert len(found.dropped) + len({passage for _, passage in found.pairs}) == 30


def test_a_restart_resumes_the_running_batch(
    server: tuple[State, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, address = server
    state.batch_seconds = 10**6
    journal = tmp_path / "journal.jsonl"

    def killed(*rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(openai_batch.BatchJob, "_wait", killed)
        with pytest.raises(KeyboardInterrupt):
            questions_from_llm(
                about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
            )
    noted = json.loads((tmp_path / "journal.jsonl.batches.json").read_text())
    assert noted["open"] == ["batch_1"]
    state.batches["batch_1"]["_ready"] = 0
    found = questions_from_llm(
        about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
    )
    assert texts(found) == expected(30)
    assert requested(state) == 30


def test_a_batch_whose_start_was_not_noted_is_found_again(server: tuple[State, str], tmp_path: Path) -> None:
    state, address = server
    state.batch_endings = ["lost"]
    journal = tmp_path / "journal.jsonl"
    with pytest.raises(OutsideError, match="cannot be reached"):
        questions_from_llm(
            about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
        )
    assert requested(state) == 30
    found = questions_from_llm(
        about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
    )
    assert texts(found) == expected(30)
    assert requested(state) == 30


def test_nothing_is_paid_for_twice_after_a_kill_during_collection(
    server: tuple[State, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, address = server
    monkeypatch.setattr(llm_batch, "MAX_REQUESTS", 10)
    journal = tmp_path / "journal.jsonl"
    read = llm_batch._read
    seen = []

    def killed_in_the_second(result: object, *rest: object) -> object:
        seen.append(result)
        if len(seen) == 15:
            raise KeyboardInterrupt
        return read(result, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(llm_batch, "_read", killed_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            questions_from_llm(
                about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
            )
    assert len(state.batches) == 3
    found = questions_from_llm(
        about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
    )
    assert texts(found) == expected(30)
    assert (len(state.batches), requested(state)) == (3, 30)


def test_a_refused_batch_is_reported_in_one_line(server: tuple[State, str], tmp_path: Path) -> None:
    state, address = server
    state.batch_endings = ["failed"]
    journal = tmp_path / "journal.jsonl"
    with pytest.raises(OutsideError, match=r"the batch batch_1 failed \(Enqueued tokens\): run again"):
        questions_from_llm(
            about_in_winter(5), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
        )
    found = questions_from_llm(
        about_in_winter(5), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
    )
    assert texts(found) == expected(5)


def test_an_interrupt_does_not_wait_for_the_batch(server: tuple[State, str], tmp_path: Path) -> None:
    state, address = server
    state.batch_seconds = 10**6
    journal = tmp_path / "journal.jsonl"

    async def interrupted() -> None:
        options = QuestionOptions(journal=journal, batch=True)
        running = asyncio.create_task(
            generate_questions(about_in_winter(30), served_llm(address), options, seed=0, threads=True)
        )
        while not state.batches:
            await asyncio.sleep(0.05)
        running.cancel()
        await running

    started = time.monotonic()
    with pytest.raises((asyncio.CancelledError, OutsideError)):
        asyncio.run(interrupted())
    assert time.monotonic() - started < 10
    with Journal(journal):
        pass  # nobody holds it any longer
    state.batches["batch_1"]["_ready"] = 0
    assert texts(
        questions_from_llm(
            about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
        )
    ) == expected(30)
    assert requested(state) == 30


def test_lines_of_a_plan_that_changed_are_not_paid_for_again(
    server: tuple[State, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, address = server
    journal = tmp_path / "journal.jsonl"

    def killed(*rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(openai_batch.BatchJob, "_wait", killed)
        with pytest.raises(KeyboardInterrupt):
            questions_from_llm(
                about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
            )
    questions_from_llm(
        about_in_winter(5), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
    )
    assert texts(
        questions_from_llm(
            about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, batch=True)
        )
    ) == expected(30)
    assert requested(state) == 30


def test_other_llms_have_no_batch_api(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not with LocalLLM"):
        questions_from_llm(
            about_in_winter(2),
            LocalLLM(),
            question_options=QuestionOptions(journal=tmp_path / "journal.jsonl", batch=True),
        )
    with pytest.raises(InputError, match="needs a journal file"):
        questions_from_llm(
            about_in_winter(2), served_llm("http://127.0.0.1:9/v1"), question_options=QuestionOptions(batch=True)
        )


def test_an_unreachable_server_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *rest: 0.01)
    with pytest.raises(OutsideError, match=r"the Batch API cannot be reached \(APIConnectionError\)") as failure:
        questions_from_llm(
            about_in_winter(2),
            served_llm("http://127.0.0.1:9/v1"),
            question_options=QuestionOptions(journal=tmp_path / "journal.jsonl", batch=True),
        )
    assert "\n" not in str(failure.value)


def test_the_batch_option_uses_the_batch_api(server: tuple[State, str], acme: Path, tmp_path: Path) -> None:
    state, address = server
    state.batch_endings = ["partial"]
    arguments = ["generate", str(acme / "documents" / "people"), "--output", str(tmp_path / "data"), "--batch", "-q"]
    done = CliRunner().invoke(app, [*arguments, "--llm", "openai-like:fake", "--llm-url", address])
    assert done.exit_code == 0, done.output
    assert len(state.batches) == 2
    assert set(load_dataset(tmp_path / "data").info["styles"]) >= {"question", "keywords", "situation", "reworded"}
    before = requested(state)
    again = CliRunner().invoke(app, [*arguments, "--llm", "openai-like:fake", "--llm-url", address])
    assert again.exit_code == 0
    assert requested(state) == before
