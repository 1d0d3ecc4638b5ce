"""Calls to an LLM over real HTTP: faults, budgets, kills, and two processes on one journal."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.llms import FakeLLM, FormQuestionLLM, UnreachableLLM
from fakes.openai_llm import expected, served_llm, texts
from fakes.openai_server import State, answer_to, serve
from fakes.passages import about_in_winter, forms

from rag_ft.errors import InputError, OutsideError
from rag_ft.generation.journal import Journal
from rag_ft.generation.llm_questions import LLMQuestions, generate_questions, questions_from_llm
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.remote import retries

pytest.importorskip("llama_index.llms.openai_like", reason="pip install 'rag-ft[openai]'")


@pytest.fixture
def server() -> Iterator[tuple[State, str]]:
    running, state, address = serve()
    yield state, address
    running.shutdown()
    running.server_close()


def test_every_passage_gets_questions_in_several_styles(server: tuple[State, str]) -> None:
    state, address = server
    found = questions_from_llm(about_in_winter(40), served_llm(address), question_options=QuestionOptions(workers=8))
    assert texts(found) == expected(40)
    assert {query.source for query, _ in found.pairs} == {"question", "keywords", "situation", "reworded"}
    assert state.stats()["outcomes"] == {"ok": 40}
    assert 2 <= state.stats()["most_in_flight"] <= 8


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_dataset_is_complete_although_a_third_of_the_requests_fails(
    server: tuple[State, str], asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_ATTEMPTS", retries.ATTEMPTS)
    state, address = server
    state.faults = 0.3
    llm, passages = served_llm(address), about_in_winter(120)
    if asynchronous:
        coroutine = generate_questions(passages, llm, QuestionOptions(workers=16), seed=0, threads=False)
        found = asyncio.run(coroutine)
    else:
        found = questions_from_llm(passages, llm, question_options=QuestionOptions(workers=16))
    assert texts(found) == expected(120)
    assert found.dropped == []
    outcomes = state.stats()["outcomes"]
    assert set(outcomes) == {"ok", "429", "500", "reset", "cut", "rubbish"}
    # Each fault takes one request more, and nothing else does; a torn answer may have been of use after all.
    assert found.requests == state.stats()["requests"]
    assert outcomes["ok"] <= 120
    assert found.requests <= 120 + sum(count for outcome, count in outcomes.items() if outcome != "ok")
    assert state.stats()["answered_twice"] == 0


def test_retry_after_is_honoured(server: tuple[State, str], monkeypatch: pytest.MonkeyPatch) -> None:
    state, address = server
    faults = iter(["429", "429", ""])
    monkeypatch.setattr(state, "fault", lambda: next(faults))
    started = time.monotonic()
    questions_from_llm(about_in_winter(1), served_llm(address))
    assert time.monotonic() - started >= 0.4  # the server asks for 0.2 s each time
    assert state.stats()["outcomes"] == {"429": 2, "ok": 1}


@pytest.mark.parametrize(
    ("value", "seconds"), [("3", 3), ("0.5", 0.5), (None, 0), ("soon", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", -1)]
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float) -> None:
    found = retries.retry_after_seconds(value)
    assert found == seconds if seconds >= 0 else found < 0


def test_a_budget_of_requests_is_kept(server: tuple[State, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_index.core.rate_limiter as limits

    monkeypatch.setattr(limits, "_SLIDING_WINDOW_SECONDS", 1.0)  # a minute that a test can wait for
    state, address = server
    started = time.monotonic()
    questions_from_llm(
        about_in_winter(25), served_llm(address), question_options=QuestionOptions(workers=25, requests_per_minute=10)
    )
    assert time.monotonic() - started >= 2
    assert state.stats()["outcomes"] == {"ok": 25}


def test_a_response_that_stays_invalid_is_recorded_with_its_reason(
    server: tuple[State, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fakes import openai_server

    def answer(prompt: str) -> str:
        return "You are a helpful assistant that" if "number 3 " in prompt else answer_to(prompt)

    monkeypatch.setattr(openai_server, "answer_to", answer)
    state, address = server
    found = questions_from_llm(about_in_winter(12), served_llm(address))
    (row,) = found.dropped
    assert row["passage"] == "p3"
    assert row["reason"] == "no usable answer: 'You are a helpful assistant that'"
    assert len({passage for _, passage in found.pairs}) == 11
    assert state.stats()["requests"] == 11 + 4  # asked twice, and in the last round twice again


def test_a_refused_passage_stops_nothing(server: tuple[State, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from fakes.openai_server import Handler

    plain = Handler.chat

    def chat(self: Handler, prompt: str) -> None:
        if any(f"number {n} " in prompt for n in range(3, 20)):
            self.state.count("400")
            self.reply(400, {"error": {"message": "content filter"}})
        else:
            plain(self, prompt)

    monkeypatch.setattr(Handler, "chat", chat)
    state, address = server
    found = questions_from_llm(about_in_winter(30), served_llm(address), question_options=QuestionOptions(workers=1))
    assert {passage for _, passage in found.pairs} == {f"p{n}" for n in [*range(3), *range(20, 30)]}
    assert all(row["reason"].startswith("the LLM failed: Error code: 400") for row in found.dropped)
    assert state.stats()["outcomes"]["400"] == 2 * 17  # a refusal is not asked again at once


def test_a_wrong_key_ends_the_run_soon_and_is_not_printed(
    server: tuple[State, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fakes.openai_server import Handler

    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key-123456")

    def chat(self: Handler, prompt: str) -> None:
        self.state.count("401")
        self.reply(401, {"error": {"message": "Incorrect API key provided: sk-very-secret-key-123456."}})

    monkeypatch.setattr(Handler, "chat", chat)
    state, address = server
    with pytest.raises(OutsideError) as failure:
        questions_from_llm(
            about_in_winter(200),
            served_llm(address),
            question_options=QuestionOptions(journal=tmp_path / "journal.jsonl", workers=4),
        )
    assert "secret" not in str(failure.value)
    assert "401" in str(failure.value)
    assert state.stats()["requests"] < 20


def test_the_estimate_comes_before_the_first_call(server: tuple[State, str], tmp_path: Path) -> None:
    state, address = server
    seen = []

    def refuse(estimate: object) -> bool:
        seen.append(estimate)
        return False

    journal = tmp_path / "journal.jsonl"
    questions_from_llm(about_in_winter(10), served_llm(address), question_options=QuestionOptions(journal=journal))
    with pytest.raises(InputError, match=r"nothing was sent, .*: 20 calls to fake, about .* tokens in"):
        questions_from_llm(
            about_in_winter(30), served_llm(address), question_options=QuestionOptions(journal=journal, approve=refuse)
        )
    assert len(seen) == 1
    assert state.stats()["requests"] == 10


def test_it_runs_within_a_running_event_loop(server: tuple[State, str]) -> None:
    async def notebook() -> LLMQuestions:
        return questions_from_llm(about_in_winter(3), served_llm(server[1]))

    assert texts(asyncio.run(notebook())) == expected(3)


@pytest.mark.slow
def test_an_unknown_error_does_not_end_the_run() -> None:
    class BlockedLLM(FakeLLM):
        def answer(self, prompt: str) -> str:
            if any(f"number {n} " in prompt for n in range(3, 20)):
                self.prompts.append(prompt)
                raise ValueError("response blocked by safety")
            return super().answer(prompt)

    blocked = BlockedLLM()
    found = questions_from_llm(about_in_winter(30), blocked, question_options=QuestionOptions(workers=1))
    assert len({passage for _, passage in found.pairs}) == 13
    assert {row["reason"] for row in found.dropped} == {"the LLM failed: response blocked by safety"}
    assert len(blocked.prompts) <= 13 + 17 * 2 * 2


def test_an_outage_for_all_remaining_calls_is_an_error(server: tuple[State, str], tmp_path: Path) -> None:
    class GoneLLM(UnreachableLLM):
        @classmethod
        def class_name(cls) -> str:
            return FakeLLM.class_name()

    journal = tmp_path / "journal.jsonl"
    questions_from_llm(about_in_winter(30), FakeLLM(), question_options=QuestionOptions(journal=journal))
    with pytest.raises(OutsideError, match="all 9 calls failed"):
        questions_from_llm(about_in_winter(39), GoneLLM(), question_options=QuestionOptions(journal=journal))


@pytest.mark.timeout(60)
def test_a_panic_in_a_library_ends_the_run_and_does_not_hang_it() -> None:
    class PanicError(BaseException):
        """As Rust code under Python raises it."""

    class PanickingLLM(FakeLLM):
        def answer(self, prompt: str) -> str:
            if "number 3 " in prompt:
                raise PanicError
            return super().answer(prompt)

    with pytest.raises(PanicError):
        questions_from_llm(about_in_winter(8), PanickingLLM(), question_options=QuestionOptions(workers=2))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("styles", ()), ("styles", "question"), ("workers", 0), ("questions_per_passage", 0), ("requests_per_minute", -1)],
)
def test_an_invalid_setting_is_named(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{setting} is "):
        QuestionOptions(**{setting: value})  # type: ignore[arg-type]


def test_the_judge_is_in_the_estimate_too(server: tuple[State, str]) -> None:
    from rag_ft import generate_qa_dataset

    class Judge(FakeLLM):
        model: str = "judge"

        def answer(self, prompt: str) -> str:
            super().answer(prompt)
            return '{"keep": true}'

    judge = Judge()
    with pytest.raises(InputError, match=r"nothing was sent, .*: .* calls to judge"):
        generate_qa_dataset(
            forms(60),
            FormQuestionLLM(),
            question_options=QuestionOptions(judge=judge, approve=lambda expected: expected.model != "judge"),
        )
    assert judge.prompts == []


# Kills

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from fakes.openai_llm import served_llm
from fakes.passages import about_in_winter
from rag_ft.generation import QuestionOptions, questions_from_llm

options = QuestionOptions(journal=Path({journal!r}), workers=8)
found = questions_from_llm(about_in_winter({count}), served_llm({address!r}), question_options=options)
Path({output!r}).write_text("".join(f"{{query.text}}\\t{{passage}}\\n" for query, passage in found.pairs))
"""


def start(address: str, journal: Path, output: Path, count: int) -> subprocess.Popen[bytes]:
    script = RUN.format(
        tests=str(Path(__file__).parents[1]), count=count, address=address, journal=str(journal), output=str(output)
    )
    return subprocess.Popen([sys.executable, "-c", script], env=os.environ, stderr=subprocess.PIPE)


def kill_at_random(server: tuple[State, str], folder: Path, kills: int, count: int) -> None:
    state, address = server
    state.latency = 0.1
    journal, output = folder / "journal.jsonl", folder / "questions.tsv"
    draw = random.Random(kills)
    for place in range(kills):
        # So many answers at the time of this kill, so that each one falls into the questions.
        wanted = (place + 1) * count // (kills + 2)
        process = start(address, journal, output, count)
        while process.poll() is None and state.stats()["requests"] < wanted:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
    journaled = [json.loads(line)["key"] for line in journal.read_text().splitlines() if line.endswith("}")]
    assert len(set(journaled)) == len(journaled) > 0
    time.sleep(3 * state.latency)  # until the server has counted what was in flight at the last kill
    before = state.stats()["requests"]
    process = start(address, journal, output, count)
    assert process.wait(timeout=120) == 0, process.stderr.read()  # type: ignore[union-attr]
    # Nothing that was journaled is asked for again; what was in flight at a kill is (8 workers).
    assert state.stats()["requests"] - before == count - len(journaled)
    assert state.stats()["requests"] <= count + 8 * kills
    rows = "".join(f"{text}\t{passage}\n" for text, passage in expected(count))
    assert output.read_text() == rows


@pytest.mark.slow
def test_two_kills_lose_nothing(server: tuple[State, str], tmp_path: Path) -> None:
    kill_at_random(server, tmp_path, kills=2, count=60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_lose_nothing(server: tuple[State, str], tmp_path: Path) -> None:
    kill_at_random(server, tmp_path, kills=20, count=400)


def test_a_second_process_on_one_journal_says_so_and_stops(server: tuple[State, str], tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with Journal(journal) as first:
        first.record([("a", "Who?")])
        process = start(server[1], journal, tmp_path / "out.tsv", 3)
        _, said = process.communicate(timeout=120)
        assert process.returncode != 0
        assert b"another process is writing to" in said
        assert server[0].stats()["requests"] == 0
    assert Journal(journal).responses == {"a": "Who?"}
