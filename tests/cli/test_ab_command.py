"""`rag-ft ab`, started and stopped as a user does it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fakes.ab_variants import TEXTS

from rag_ft import FineTunedEmbedding, InputError
from rag_ft.cli import app
from rag_ft.cli.exit_codes import exit_code
from rag_ft.embedding import ModelSpec
from rag_ft.feedback import Votes


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for key, text in TEXTS.items():
        (folder / f"{key.replace('#', '-')}.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{documents}", "--a", "local", "--b", "local"], "are the same model with the same prefixes"),
        (["{documents}", "--a", "local", "--b", "/no/such/model"], "/no/such/model"),
        (["{documents}", "--a", "bm25", "--b", "bm25"], "are the same model"),
        (["{documents}/none", "--a", "local", "--b", "bm25"], "does not exist"),
        (["chroma:{documents}/chroma:app", "--a", "local", "--b", "hybrid:local"], "chroma"),
        (["{documents}", "--a", "local", "--b", "hybrid:local", "--host", "999.1.1.1"], "--host 999.1.1.1"),
        (["{documents}", "--a", "local", "--b", "hybrid:local", "--votes", "{documents}/long-0.md"], "not a vote log"),
    ],
)
def test_bad_input_is_one_clear_line(
    documents: Path, tmp_path: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(documents=documents) for argument in arguments]
    votes = [] if "--votes" in given else ["--votes", str(tmp_path / "votes.jsonl")]
    code = exit_code(lambda: app(["ab", *given, *votes, "--port", "0", "--quiet"]))
    message = capsys.readouterr().err
    assert code == InputError.exit_code, message
    assert reason in message
    assert len(message.strip().splitlines()) == 1


@pytest.mark.slow
def test_it_indexes_serves_and_stops_on_ctrl_c(documents: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    FineTunedEmbedding.load(ModelSpec(name="local", query_prefix="question: ")).sentence_transformer.save(str(other))
    votes = tmp_path / "votes.jsonl"
    command = [
        sys.executable,
        "-m",
        "rag_ft.cli",
        "ab",
        str(documents),
        "--a",
        "local",
        "--b",
        str(other),
        "--port",
        "0",
    ]
    running = subprocess.Popen(
        [*command, "--votes", str(votes)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        said = running.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", said)
        assert found, said + (running.stderr.read() if running.stderr and running.poll() is not None else "")
        origin, token = found.groups()
        headers = {"origin": origin, "x-rag-ft-token": token}
        answer = httpx.post(f"{origin}/ask", json={"question": "What is a Kittiwake?"}, headers=headers, timeout=60)
        assert answer.status_code == 200
        assert httpx.get(f"{origin}/?token={token}x").status_code == 403
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, errors
    assert "1 questions shown" in rest
    assert "Traceback" not in errors
    assert token not in errors
    row = next(row for row in Votes(votes).rows() if row["event"] == "shown")
    assert row["rankings"]["a"][0] == row["rankings"]["b"][0] == "claims-0.md#0"
