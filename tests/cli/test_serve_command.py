"""`rag-ft serve` as a process: its address, log and shutdown, and wrong arguments."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from typer.testing import CliRunner

from rag_ft import InputError
from rag_ft.cli import app
from rag_ft.server.running import bound_socket, check_host

KEY = "sk-a-key-in-the-environment-42"
SECRET = "the-text-that-nobody-may-log"
PROGRAM = "from rag_ft.cli import main; main()"


def test_it_serves_logs_and_finishes_requests_in_progress() -> None:
    command = [sys.executable, "-c", PROGRAM, "serve", "local", "--name", "acme", "--port", "0", "--dimension", "128"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"RAG_FT_API_KEY": KEY}
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("acme, acme-query, acme-passage at http://127.0.0.1:")
        address = said.split()[-1]
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client, ThreadPoolExecutor(1) as pool:
            answer = client.post("/embeddings", json={"model": "acme-query", "input": SECRET})
            assert len(answer.json()["data"][0]["embedding"]) == 128
            assert client.post("/embeddings", json={"model": "acme", "input": [SECRET, 7]}).status_code == 400
            assert httpx.get(f"{address}/models?key={KEY}").status_code == 401
            many = {"model": "acme", "input": [f"{SECRET} and the harbour. " * 100] * 40}
            under_way = pool.submit(client.post, "/embeddings", json=many)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            assert len(under_way.result().json()["data"]) == 40
        rest, log = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert KEY not in said + rest + log
    assert SECRET not in said + rest + log
    lines = [json.loads(line) for line in log.splitlines()]
    served = [line for line in lines if line["event"] == "request" and line["status"] == 200]
    assert [(line["role"], line["texts"]) for line in served] == [("query", 1), ("passage", 40)]
    assert all(line["request_id"] and line["milliseconds"] > 0 and line["tokens"] > 0 for line in served)


def test_other_machines_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAG_FT_API_KEY", raising=False)
    result = CliRunner().invoke(app, ["serve", "local", "--host", "0.0.0.0"])
    assert isinstance(result.exception, InputError)
    assert "RAG_FT_API_KEY is not set" in str(result.exception)
    check_host("0.0.0.0", has_key=True)
    check_host("127.0.0.1", has_key=False)


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port} cannot be used"):
            bound_socket("127.0.0.1", port)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "no/such/model", "--port", "0"], "not a model folder"),
        (["serve", "local", "--port", "0", "--dimension", "4000"], "exceeds the 384 of local"),
        (["serve", "local", "--port", "0", "--backend", "onnx"], "has no onnx export"),
        (["serve", "local", "--port", "0", "--host", "no.such.host.invalid"], "RAG_FT_API_KEY is not set"),
    ],
)
def test_a_wrong_start_is_one_clear_error(arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAG_FT_API_KEY", raising=False)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)
