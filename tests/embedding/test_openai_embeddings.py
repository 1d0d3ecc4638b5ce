"""Embeddings over real HTTP: faults, budgets, approval, kills, the Batch API, Azure, and keys that never show."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.datasets import jargon_dataset
from fakes.openai_server import DIMENSION, State, serve, vector_of
from llama_index.core import MockEmbedding
from llama_index.core.base.embeddings.base import BaseEmbedding
from typer.testing import CliRunner

from rag_ft import FineTunedEmbedding
from rag_ft.adapters import train_adapter
from rag_ft.cli import app
from rag_ft.dataset import write_beir
from rag_ft.embedding import (
    AdapterEmbedding,
    CachedEmbedding,
    RequestPolicy,
    VectorCache,
    embedding_batch,
    request_sender,
)
from rag_ft.embedding.client import EmbeddingClient
from rag_ft.embedding.identity import REFERENCE_TEXTS
from rag_ft.embedding.openai_api import openai_embedding
from rag_ft.errors import InputError, OutsideError
from rag_ft.remote import openai_batch, retries

pytest.importorskip("llama_index.embeddings.openai", reason="pip install 'rag-ft[openai]'")

KEY = "sk-proj-Zq81vTq0secretKey77xYz"
TEXTS = [f"Form {n} is signed in harbour {n}." for n in range(60)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[State, str]]:
    monkeypatch.setattr(request_sender, "pause_before_next", lambda state: 0.01)
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *rest: 0.01)
    monkeypatch.setattr(openai_batch, "FIRST_POLL", 0.05)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path / "cache"))
    running, state, address = serve()
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    yield state, address
    running.shutdown()
    running.server_close()


def small() -> BaseEmbedding:
    model = openai_embedding("openai:text-embedding-3-small")
    model.embed_batch_size = 5
    return model


def asked_again(state: State) -> int:
    """Texts that were paid for more than once, apart from the reference texts."""
    return sum(count - 1 for text, count in state.texts.items() if text not in REFERENCE_TEXTS)


def test_texts_are_sent_in_parallel_requests(server: tuple[State, str], tmp_path: Path) -> None:
    state, _ = server
    state.latency = 0.05
    cache = VectorCache(tmp_path / "vectors.sqlite")
    found = EmbeddingClient(small(), cache).embed(TEXTS, "passage")
    np.testing.assert_allclose(found, [vector_of(text) for text in TEXTS], atol=1e-6)
    assert 2 <= state.stats()["most_in_flight"] <= 12  # 8, and those whose end the server has not noted yet
    requests = state.stats()["requests"]
    assert requests == 12 + 1  # and the reference texts
    again = EmbeddingClient(small(), VectorCache(cache.path)).embed(TEXTS, "passage")
    np.testing.assert_array_equal(again, found)
    assert state.stats()["requests"] == requests + 1
    questions = EmbeddingClient(small(), cache).embed(TEXTS, "query")  # many at once, as passages
    np.testing.assert_array_equal(questions, found)
    assert state.stats()["requests"] == requests + 1 + 12 + 1


def test_every_vector_arrives_although_a_third_of_the_requests_fails(
    server: tuple[State, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_ATTEMPTS", "ATTEMPTS", "UNKNOWN_ATTEMPTS", "OVERLOADED_ATTEMPTS"):
        monkeypatch.setattr(retries, name, 30)
    state, _ = server
    state.faults = 0.4
    model = small()
    model.embed_batch_size = 1
    found = EmbeddingClient(model, VectorCache(tmp_path / "vectors.sqlite")).embed(TEXTS, "passage")
    np.testing.assert_allclose(found, [vector_of(text) for text in TEXTS], atol=1e-6)
    assert set(state.stats()["outcomes"]) == {"ok", "429", "500", "reset", "cut", "rubbish"}
    assert asked_again(state) == 0


def test_a_budget_of_requests_is_kept(server: tuple[State, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_index.core.rate_limiter as limits

    monkeypatch.setattr(limits, "_SLIDING_WINDOW_SECONDS", 1.0)  # a minute that a test can wait for
    state, _ = server
    started = time.monotonic()
    EmbeddingClient(small(), None, RequestPolicy(workers=12, requests_per_minute=5)).embed(TEXTS, "passage")
    assert time.monotonic() - started >= 2
    assert state.stats()["outcomes"] == {"ok": 12}


def test_nothing_is_sent_before_approval(server: tuple[State, str], tmp_path: Path) -> None:
    state, _ = server
    seen = []
    model, cache = openai_embedding("openai:text-embedding-3-small", "https://api.openai.com/v1"), tmp_path / "v.sqlite"
    source = EmbeddingClient(
        model, VectorCache(cache), RequestPolicy(approve=lambda expected: bool(seen.append(expected)))
    )
    with pytest.raises(InputError, match=r"not approved: 1 calls to text-embedding-3-small, about \d+ tokens"):
        source.approve([], TEXTS)
    assert seen[0].dollars == pytest.approx(seen[0].input_tokens * 0.02e-6)
    assert state.stats()["requests"] == 0


@pytest.mark.slow
def test_a_killed_run_resumes_without_paying_twice(server: tuple[State, str], tmp_path: Path) -> None:
    state, _ = server
    state.latency = 0.05
    write_beir(jargon_dataset(), tmp_path / "data")
    program = (
        "import sys; from rag_ft import load_dataset\n"
        "from rag_ft.adapters import train_adapter; from rag_ft.embedding import RequestPolicy\n"
        "from rag_ft.embedding.openai_api import openai_embedding\n"
        "model = openai_embedding('openai:text-embedding-3-small'); model.embed_batch_size = 5\n"
        "train_adapter(load_dataset(sys.argv[1]), model, sys.argv[2], request_policy=RequestPolicy(workers=4))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data"), str(tmp_path / "adapter")]
    running = subprocess.Popen(command, env=os.environ)
    while sum(state.texts.values()) < 150 and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "adapter").exists()
    train_adapter(jargon_dataset(), small(), tmp_path / "adapter")
    assert AdapterEmbedding.load(tmp_path / "adapter", small()).record["training"]["pairs"] > 100
    assert asked_again(state) <= 4 * 5  # what was in flight
    before = sum(state.texts.values())
    train_adapter(jargon_dataset(), small(), tmp_path / "adapter")
    assert sum(state.texts.values()) - before <= 3 * len(REFERENCE_TEXTS)


def test_the_batch_api_gives_the_same_vectors_and_resumes_after_a_stop(
    server: tuple[State, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = server
    state.batch_seconds = 10**6
    cache = VectorCache(tmp_path / "vectors.sqlite")
    source = EmbeddingClient(small(), cache, RequestPolicy(batch=True))

    def killed(*rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(openai_batch.BatchJob, "_wait", killed)
        with pytest.raises(KeyboardInterrupt):
            source.embed(TEXTS, "passage")
    state.batches["batch_1"]["_ready"] = 0
    state.batch_endings = ["partial"]
    state.batch_seconds = 0.1
    more = [*TEXTS, *(f"Another form {n}." for n in range(9))]
    found = EmbeddingClient(small(), cache, RequestPolicy(batch=True)).embed(more, "passage")
    np.testing.assert_allclose(found, [vector_of(text) for text in more], atol=1e-6)
    assert len(state.batches) == 3  # the stopped one, the new texts, those of them that failed
    assert asked_again(state) == 0
    assert {batch["endpoint"] for batch in state.batches.values()} == {"/v1/embeddings"}
    monkeypatch.setattr(embedding_batch, "MAX_TEXTS", 4)
    EmbeddingClient(small(), cache, RequestPolicy(batch=True)).embed([f"Yet another {n}" for n in range(10)], "passage")
    assert len(state.batches) == 6


def test_texts_that_a_batch_never_embeds_are_reported_in_one_line(server: tuple[State, str], tmp_path: Path) -> None:
    state, _ = server
    state.batch_endings = ["expired"] * 9
    cache = VectorCache(tmp_path / "vectors.sqlite")
    with pytest.raises(OutsideError, match=r"of 60 texts were not embedded \(This request could not be executed"):
        EmbeddingClient(small(), cache, RequestPolicy(batch=True)).embed(TEXTS, "passage")
    assert len(cache) == 52  # three times a half of what was left
    nobody = EmbeddingClient(MockEmbedding(embed_dim=4), cache, RequestPolicy(batch=True))
    with pytest.raises(InputError, match="--batch works with OpenAI's Batch API, not with MockEmbedding"):
        nobody.embed(TEXTS, "passage")


@pytest.mark.parametrize("version", ["", "2024-10-21"])
def test_azure_is_configured_by_the_environment(
    server: tuple[State, str], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    state, address = server
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", address.removesuffix("/v1") + "/")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-of-mine")
    monkeypatch.setenv("OPENAI_API_VERSION", version)
    found = EmbeddingClient(openai_embedding("azure:ours")).embed(TEXTS[:2], "passage")
    np.testing.assert_allclose(found, [vector_of(text) for text in TEXTS[:2]], atol=1e-6)
    path = "/openai/v1/embeddings"
    if version:
        path = f"/openai/deployments/ours/embeddings?api-version={version}"
    assert list(state.paths) == [path]
    assert {key.removeprefix("Bearer ") for key in state.keys} == {"azure-key-of-mine"}
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    with pytest.raises(InputError, match="azure:ours needs AZURE_OPENAI_API_KEY"):
        openai_embedding("azure:ours")


def test_a_missing_key_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="needs a key: set OPENAI_API_KEY in the environment"):
        openai_embedding("openai:text-embedding-3-small")
    with pytest.raises(InputError, match="has no model"):
        openai_embedding("openai:")
    assert openai_embedding("openai:ours", "http://127.0.0.1:9/v1").model_name == "ours"  # may need none


def test_train_and_compare_over_openai_on_the_command_line(server: tuple[State, str], tmp_path: Path) -> None:
    state, address = server
    write_beir(jargon_dataset(documents=100), tmp_path / "data")
    adapter = tmp_path / "adapter"
    base = ["--base-model", "openai:text-embedding-3-small"]
    done = CliRunner().invoke(app, ["train", str(tmp_path / "data"), "--output", str(adapter), *base, "-q"])
    assert done.exit_code == 0, done.output
    assert "cannot be tuned through its API: training a linear map of its vectors" in " ".join(done.output.split())
    assert "dev ndcg@10: base" in done.output
    assert AdapterEmbedding.load(adapter, small()).record["adapter"]["dimension"] == DIMENSION
    paid = sum(state.texts.values())
    arguments = ["compare", str(tmp_path / "data"), "--baseline", "openai:text-embedding-3-small"]
    done = CliRunner().invoke(app, [*arguments, "--candidate", str(adapter), "--embed-url", address, "-q"])
    assert done.exit_code == 0, done.output
    assert "ship" in done.output
    tested = len(jargon_dataset(documents=100).qrels["test"])
    # Passages are in the cache since the training, and the test questions are asked for once, for both sides.
    assert sum(state.texts.values()) - paid <= tested + 8 * len(REFERENCE_TEXTS)
    refused = CliRunner().invoke(
        app, ["train", str(tmp_path / "data"), "--output", str(adapter), *base, "--epochs", "3", "-q"]
    )
    assert isinstance(refused.exception, InputError)
    assert "--epochs is for tuning a model's weights" in str(refused.exception)


@pytest.mark.parametrize(
    ("fault", "after"),
    [
        *(("401", 0), ("429", 3), ("rubbish", 3)),
        *(
            pytest.param(fault, after, marks=pytest.mark.slow)
            for fault in ("401", "429", "500", "reset", "cut", "rubbish")
            for after in (0, 1, 3)
        ),
    ],
)
def test_no_output_of_a_failing_run_contains_the_key(
    server: tuple[State, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: str,
    after: int,
) -> None:
    state, _ = server
    count = iter(range(10**6))
    monkeypatch.setattr(state, "fault", lambda: fault if next(count) >= after else "")
    write_beir(jargon_dataset(documents=30), tmp_path / "data")
    root = logging.getLogger()
    file = logging.FileHandler(tmp_path / "log.txt")
    root.addHandler(file)
    level, root_level = logging.getLogger("rag_ft").level, root.level
    root.setLevel(logging.INFO)
    try:
        runs = [
            CliRunner().invoke(app, arguments)
            for arguments in (
                ["train", str(tmp_path / "data"), "--output", str(tmp_path / "adapter"), "--base-model", "openai:ours"],
                ["train", str(tmp_path / "data"), "--output", str(tmp_path / "adapter"), "--base-model", "openai:ours",
                 "--batch"],
                ["compare", str(tmp_path / "data"), "--baseline", "openai:ours", "--candidate", "openai:other",
                 "--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")],
            )
        ]  # fmt: skip
    finally:
        root.removeHandler(file)
        root.setLevel(root_level)
        logging.getLogger("rag_ft").setLevel(level)
        file.close()
    assert any(run.exit_code for run in runs)
    said = [run.output + str(run.exception) + repr(run.exception.__cause__ if run.exception else "") for run in runs]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    captured = capfd.readouterr()
    for part in (KEY, KEY[3:], "secretKey77"):
        assert not any(part in text for text in (*said, captured.out, captured.err))
        assert not any(part.encode() in content for content in written)
    for run in runs:
        if run.exit_code:
            assert isinstance(run.exception, (OutsideError, InputError)), run.exception
            assert "\n" not in str(run.exception)


def test_a_model_does_not_reveal_its_key(server: tuple[State, str], tmp_path: Path) -> None:
    cached = CachedEmbedding(small(), tmp_path / "vectors.sqlite")
    train_adapter(jargon_dataset(documents=30), cached, tmp_path / "adapter")
    adapter = AdapterEmbedding.load(tmp_path / "adapter", cached)
    for model in (cached, adapter):
        assert KEY not in repr(model) + str(model) + str(model.to_dict()) + model.to_json()


def test_our_own_server_stands_in_for_openai(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An adapter over what `rag-ft serve` answers, for whom the model is one behind an API like any other."""
    from fakes.embeddings_server import embeddings_server

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path / "cache"))
    with embeddings_server("local", name="acme", api_key=KEY) as address:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        model = openai_embedding("openai:acme")
        local = np.asarray(FineTunedEmbedding.load("local").get_text_embedding(TEXTS[0]))
        assert local @ np.asarray(model.get_text_embedding(TEXTS[0])) > 0.999
        trained = train_adapter(jargon_dataset(), model, tmp_path / "adapter")
        assert trained.record["training"]["pairs"] > 0
        again = AdapterEmbedding.load(tmp_path / "adapter", model)
        assert len(again.get_query_embedding("Who signs?")) == len(local)
