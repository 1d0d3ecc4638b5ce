"""`rag-ft train` and `rag-ft train-adapter` on a small real embedding."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rag_ft import InputError, Passage, QADataset, Query
from rag_ft.cli import app
from rag_ft.dataset import write_beir
from rag_ft.files import sha256_of_file


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of these tests stay out of the user's cache."""
    monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path / "cache"))


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "rag_ft.json").read_text(encoding="utf-8"))


def weights_of(folder: Path) -> list[str]:
    return [sha256_of_file(file) for file in sorted(folder.glob("*.safetensors"))]


def test_train_adapter_does_what_train_with_adapter_does(beir_folder: Path, tmp_path: Path) -> None:
    common = ["--base-model", "local", "--device", "cpu", "--max-pairs", "6", "-q"]
    printed = run("train-adapter", beir_folder, "-o", tmp_path / "new", *common)
    assert "dev ndcg@10: base " in printed
    assert printed.endswith(f"adapter {tmp_path / 'new'}\n")
    before = run("train", beir_folder, "--output", tmp_path / "old", "--adapter", "linear", *common)
    assert before.replace(str(tmp_path / "old"), str(tmp_path / "new")) == printed
    assert weights_of(tmp_path / "new") == weights_of(tmp_path / "old") != []
    assert record_of(tmp_path / "new")["adapter"] == record_of(tmp_path / "old")["adapter"]


def test_train_adapter_maps_passages_if_it_is_asked_to(beir_folder: Path, tmp_path: Path) -> None:
    run("train-adapter", beir_folder, "-o", tmp_path / "adapter", "--base-model", "local", "--both-sides", "-q")
    assert record_of(tmp_path / "adapter")["adapter"]["both_sides"] is True


@pytest.mark.parametrize("option", [["--batch"], ["--embed-url", "http://127.0.0.1:9/v1"]])
def test_train_adapter_refuses_a_server_for_a_local_embedding(
    option: list[str], beir_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="are for openai:MODEL, and --base-model is local"):
        run("train-adapter", beir_folder, "-o", tmp_path / "adapter", "--base-model", "local", *option)
    assert not (tmp_path / "adapter").exists()


def test_train_prints_the_displayed_words(beir_folder: Path, tmp_path: Path) -> None:
    printed = run(
        "train",
        beir_folder,
        "-o",
        tmp_path / "model",
        "--base-model",
        "local",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "-q",
    )
    assert "dev ndcg@10: base " in printed
    assert printed.endswith(f"model   {tmp_path / 'model'}\n")
    assert "share" not in printed
    assert (tmp_path / "model" / "model.safetensors").is_file()


def private_words(folder: Path) -> Path:
    """A dataset in which train and dev ask with the same private words for the same passages, so that dev gains."""
    things = ["harbour", "invoice", "glacier", "violin", "kitchen", "orchard", "saddle", "lantern"]
    words = ["zorb", "plick", "quass", "vint", "hesk", "mulp", "yort", "bexo"]
    passages = {thing: Passage(thing, f"All about the {thing}.") for thing in things}
    queries, qrels = {}, {}
    for split, text in (("train", "What is a {}?"), ("dev", "Who needs {} today?")):
        qrels[split] = {f"{split}-{word}": {thing: 1} for word, thing in zip(words, things, strict=True)}
        queries |= {f"{split}-{word}": Query(f"{split}-{word}", text.format(word)) for word in words}
    return write_beir(QADataset(passages, queries, qrels), folder)


def test_train_names_the_decision_and_each_rejected_candidate_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the command prints and what it logs count together, since both are shown."""
    from rag_ft.training.selection import select

    monkeypatch.setattr(select, "objection_to", lambda *_, **__: "its gain on dev may be chance (a test)")
    settings = ["--max-length", "16", "--epochs", "3", "--learning-rate", "3e-4", "--set", "alphas=[1.0, 0.5]"]
    data = private_words(tmp_path / "data")
    printed = run("train", data, "-o", tmp_path / "model", "--base-model", "local", "--device", "cpu", *settings)
    refused = record_of(tmp_path / "model")["training"]["refused"]
    assert refused
    logged = [each.getMessage() for each in caplog.records if each.levelno >= logging.INFO]
    assert "\n".join([printed, *logged]).count("its gain on dev may be chance") == len(refused)
    for name in refused:
        assert printed.count(f"rejected: {name.replace('share', 'alpha')} (dev +") == 1
    assert printed.count("The base model is kept: every candidate that beat the base model on dev was rejected.") == 1
    assert printed.count("--select dev") == 1
