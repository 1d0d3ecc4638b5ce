"""A training that is killed, stopped or short of memory: nothing is lost, and the end is the same."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from rag_ft import InputError, QADataset
from rag_ft.dataset import write_beir
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.training.examples.pairs import TrainingExample
from rag_ft.training.loop import trainer as trainer_module
from rag_ft.training.loop import training_monitor as watcher_module
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.lora import add_lora
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.loop.training_monitor import TrainingMonitor
from rag_ft.training.recipe import Recipe

PROGRAM = """
import logging, sys
from rag_ft import load_dataset, train_model
from rag_ft.training.loop import training_monitor as watcher
logging.basicConfig(level=logging.INFO, format="%(message)s")
watcher.SECONDS_BETWEEN = 0.5
trained = train_model(load_dataset(sys.argv[1]), sys.argv[2], "local", max_length=64, max_pairs=96,
                      epochs=3, batch_size=16, similar_per_batch=1, shares=(1.0,))
"""


def start(dataset: Path, output: Path, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(dataset), str(output)], stderr=subprocess.PIPE, text=True, env=os.environ,
        preexec_fn=before,
    )  # fmt: skip


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "rag_ft.json").read_text())


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_the_same(dataset: QADataset, tmp_path: Path) -> None:
    folder = write_beir(dataset, tmp_path / "dataset")
    whole = start(folder, tmp_path / "whole")
    _, said = whole.communicate(timeout=240)
    assert whole.returncode == 0, said
    killed = start(folder, tmp_path / "killed")
    checkpoints = tmp_path / ".killed.training"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/round-1/checkpoint-*/complete")) and time.monotonic() < deadline:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1.5))  # at any step from here on
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed").exists()
    again = start(folder, tmp_path / "killed")
    _, said = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert "going on from step" in said
    figures = [record(tmp_path / name)["training"]["dev_ndcg@10"] for name in ("whole", "killed")]
    assert figures[0].keys() == figures[1].keys()
    for name, figure in figures[0].items():
        assert figures[1][name] == pytest.approx(figure, abs=0.002), name
    assert not (tmp_path / ".killed.training").exists()


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [20, 120])  # neither weights nor the optimiser's state, the state alone
def test_a_checkpoint_that_cannot_be_written_ends_no_training(
    dataset: QADataset, tmp_path: Path, megabytes: int
) -> None:
    """A limit on the size of a file stands for a full disk: both break off the write."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes << 20, megabytes << 20))

    training = start(write_beir(dataset, tmp_path / "dataset"), tmp_path / "model", limit)
    _, said = training.communicate(timeout=240)
    assert "could not be written" in said
    assert "training goes on without this checkpoint" in said
    if megabytes > 100:
        assert training.returncode == 0, said
        assert record(tmp_path / "model")["training"]["dev_ndcg@10"]
    else:
        assert "OutsideError: no space left on the disk" in said.splitlines()[-1]
        assert not (tmp_path / "model").exists()


PLAN = {"epochs": 2, "pairs": 300}


def test_checkpoints_of_another_training_are_not_gone_on_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Checkpoints.beside(tmp_path / "m", "one", PLAN)
    (first.stage("round-1") / "checkpoint-3").mkdir()
    (first.folder / "round-1" / "checkpoint-3" / "complete").touch()
    first.close()
    same = Checkpoints.beside(tmp_path / "m", "one", PLAN)
    assert (same.folder / "round-1" / "checkpoint-3").exists()
    with pytest.raises(InputError, match="being trained by another process"):
        Checkpoints.beside(tmp_path / "m", "one", PLAN)
    assert Checkpoints.plan(tmp_path / "m", "one") == PLAN
    assert Checkpoints.plan(tmp_path / "m", "two") is None
    same.close()
    other = Checkpoints.beside(tmp_path / "m", "two", PLAN)
    assert "had other arguments or data: this one begins anew" in caplog.text
    assert not (other.folder / "round-1").exists()
    other.close()
    again = Checkpoints.beside(tmp_path / "m", "one", PLAN)  # an option was forgotten, and is given again
    assert (again.folder / "round-1" / "checkpoint-3").exists()
    again.close()
    third = Checkpoints.beside(tmp_path / "m", "three", PLAN)
    assert {each.name for each in third.folder.parent.iterdir() if each.is_dir()} == {"one", "three"}  # two has none
    third.remove()
    assert not third.folder.parent.exists()


def pairs(count: int = 64) -> list[TrainingExample]:
    return [
        TrainingExample(
            f"Who signs form {n}?", f"Form {n} is signed by master {n}.", frozenset([n]), in_batch_ids=frozenset([n])
        )
        for n in range(count)
    ]


@pytest.mark.slow
def test_a_training_that_broke_off_measures_no_epoch_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(watcher_module, "LARGEST_PART", 1e9)
    recipe = Recipe(epochs=3, batch_size=16, similar_per_batch=1)
    whole = run_trainer(load_sentence_transformer("local", max_length=32), pairs(32), recipe, lambda: 0.5)
    measured: list[float] = []

    def measure() -> float:
        measured.append(0.5)
        if len(measured) == 2:
            raise KeyError("power cut")
        return 0.5

    with pytest.raises(KeyError):
        run_trainer(load_sentence_transformer("local", max_length=32), pairs(32), recipe, measure, folder=tmp_path)
    # What was being written when the power went is no checkpoint.
    (tmp_path / "checkpoint-999").mkdir()
    fit = run_trainer(load_sentence_transformer("local", max_length=32), pairs(32), recipe, measure, folder=tmp_path)
    assert len(measured) == 4  # epochs 1 and 2, and 2 and 3 after the cut
    assert list(fit.scores) == list(whole.scores) == ["epoch 1", "epoch 2", "epoch 3"]
    assert fit.losses[-1] == pytest.approx(whole.losses[-1], rel=0.05)
    assert not (tmp_path / "checkpoint-999").exists()


def test_control_c_keeps_the_best_so_far() -> None:
    model = load_sentence_transformer("local", max_length=32)
    measured: list[float] = []

    def measure() -> float:
        measured.append(1.0 - 0.1 * len(measured))
        if len(measured) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return measured[-1]

    before = signal.getsignal(signal.SIGINT)
    recipe = Recipe(epochs=50, batch_size=16, similar_per_batch=1)
    fit = run_trainer(model, pairs(), recipe, measure)
    assert fit.interrupted
    assert next(iter(fit.scores)) == "epoch 1"
    assert len(fit.scores) <= 2
    assert fit.weights is not None
    assert signal.getsignal(signal.SIGINT) is before


def test_training_ends_where_dev_gets_no_better() -> None:
    model = load_sentence_transformer("local", max_length=32)
    figures = iter([0.5, 0.6, 0.55, 0.54, 0.9])
    fit = run_trainer(
        model, pairs(), Recipe(epochs=5, patience=2, batch_size=32, similar_per_batch=1), lambda: next(figures)
    )
    assert list(fit.scores.values()) == [0.5, 0.6, 0.55, 0.54]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mnr", "cosine", "contrastive"])
def test_out_of_memory_goes_on_with_smaller_parts(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer("local", max_length=32)
    forward, seen = type(model).forward, []

    def short_of_memory(self: Any, inputs: dict[str, torch.Tensor], **kwargs: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "forward", short_of_memory)
    label = {"mnr": None, "cosine": 1.0, "contrastive": 1}[loss]
    given = [replace(pair, label=label) for pair in pairs()]
    fit = run_trainer(model, given, Recipe(epochs=2, batch_size=64, similar_per_batch=1, loss=loss), lambda: 0.5)
    assert fit.inner_batch == seen[-1] == 16 < max(seen)
    assert list(fit.scores) == ["epoch 1", "epoch 2"]


@pytest.mark.slow
def test_out_of_memory_with_the_fewest_pairs_takes_gradient_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer("local", max_length=32)
    forward = type(model).forward

    def short_of_memory(self: Any, inputs: dict[str, torch.Tensor], **kwargs: Any) -> Any:
        if self.training and not self[0].auto_model.encoder.layer[0].gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "forward", short_of_memory)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit = run_trainer(model, pairs(16), Recipe(epochs=3, batch_size=16, similar_per_batch=1), lambda: 0.5)
    assert fit.inner_batch == 4
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert {name.split(".layer.")[1][0] for name in changed if ".layer." in name} == set("012345")  # all of its layers


@pytest.mark.slow
def test_dev_is_measured_within_long_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "STEPS_BETWEEN", 2)
    model = load_sentence_transformer("local", max_length=32)
    recipe = Recipe(epochs=1, batch_size=8, similar_per_batch=1, patience=9)
    figures = iter([0.1, 0.3, 0.2, 0.4, 0.25])
    fit = run_trainer(model, pairs(80), recipe, lambda: next(figures))  # ten steps
    places = ("epoch 0.20", "epoch 0.40", "epoch 0.60", "epoch 0.80", "epoch 1")
    assert fit.scores == dict(zip(places, (0.1, 0.3, 0.2, 0.4, 0.25), strict=True))
    assert fit.weights is not None
    assert any(not torch.equal(fit.weights[name], tensor) for name, tensor in model.state_dict().items())
    falling = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.4])
    stopped = run_trainer(model, pairs(80), recipe.but(patience=1, epochs=3), lambda: next(falling))
    assert list(stopped.scores) == ["epoch 0.50", "epoch 1", "epoch 1.50", "epoch 2"]  # the first epoch did gain


def test_a_training_leaves_the_callers_generators_alone() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    run_trainer(
        load_sentence_transformer("local", max_length=32), pairs(8), Recipe(epochs=1, batch_size=8, similar_per_batch=1)
    )
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected


def test_low_rank_updates_begin_with_the_seed() -> None:
    begun = []
    for seed in (0, 0, 1):
        model = load_sentence_transformer("local", max_length=32)
        add_lora(model, 4, seed)
        begun.append(next(tensor for name, tensor in model.named_parameters() if ".lora_A" in name))
    assert torch.equal(begun[0], begun[1])
    assert not torch.equal(begun[0], begun[2])


def test_a_very_long_text_is_cut_before_it_is_tokenised() -> None:
    model = load_sentence_transformer("local", max_length=32)
    long = [
        TrainingExample("Who signs?", "word " * 10**6, frozenset([n]), in_batch_ids=frozenset([n])) for n in range(2)
    ]
    assert max(map(len, trainer_module._columns(long, model)["positive"])) == 40 * 32


@pytest.mark.parametrize("base", ["local", "static"])
def test_texts_are_counted_as_they_are_read(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watchers: list[TrainingMonitor] = []

    class Remembered(TrainingMonitor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            watchers.append(self)

    monkeypatch.setattr(watcher_module, "Watcher", Remembered)
    model = load_sentence_transformer("local", max_length=32)
    if base == "static":
        static = StaticEmbedding(model.tokenizer, embedding_dim=16)
        prompts, model = model.prompts, SentenceTransformer(modules=[static], device="cpu")
        model.prompts = prompts
    run_trainer(model, pairs(40), Recipe(epochs=2, batch_size=16, similar_per_batch=1))  # batches of 16, 16 and 8
    trainer: Any = watchers[0].log.__self__  # type: ignore[attr-defined]
    assert trainer.texts == 2 * 2 * 40


def test_out_of_memory_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer("local", max_length=32)

    def no_memory(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "forward", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run_trainer(model, pairs(8), Recipe(epochs=1, batch_size=8, similar_per_batch=1))
    assert trainer_module.LEAST_INNER_BATCH == 4
