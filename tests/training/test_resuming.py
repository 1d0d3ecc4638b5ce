"""A training that is killed, stopped or short of memory loses nothing, and ends with the same result."""

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
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop import trainer as trainer_module
from rag_ft.training.loop import training_monitor as monitor_module
from rag_ft.training.loop.checkpoints import Checkpoints
from rag_ft.training.loop.lora import add_lora
from rag_ft.training.loop.memory_use import MemoryUse
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.loop.training_monitor import TrainingMonitor
from rag_ft.training.recipe import Recipe

PROGRAM = """
import logging, sys
from rag_ft import load_dataset, train_model
from rag_ft.training.loop import training_monitor
logging.basicConfig(level=logging.INFO, format="%(message)s")
training_monitor.SECONDS_BETWEEN = 0.5
trained = train_model(load_dataset(sys.argv[1]), sys.argv[2], "local", max_length=64, max_pairs=96,
                      settings={"epochs": 3, "batch_size": 16, "similar_per_batch": 1, "alphas": (1.0,)})
"""


def start_training(dataset: Path, output: Path, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(dataset), str(output)], stderr=subprocess.PIPE, text=True, env=os.environ,
        preexec_fn=before,
    )  # fmt: skip


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "rag_ft.json").read_text())


@pytest.mark.slow
def test_a_killed_training_continues_and_ends_with_the_same_scores(dataset: QADataset, tmp_path: Path) -> None:
    folder = write_beir(dataset, tmp_path / "dataset")
    whole = start_training(folder, tmp_path / "whole")
    _, output = whole.communicate(timeout=240)
    assert whole.returncode == 0, output
    killed = start_training(folder, tmp_path / "killed")
    checkpoints = tmp_path / ".killed.training"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/round-1/checkpoint-*/complete")) and time.monotonic() < deadline:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1.5))  # at any step from here on
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed").exists()
    again = start_training(folder, tmp_path / "killed")
    _, output = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert "resuming from step" in output
    figures = [record_of(tmp_path / name)["training"]["dev_ndcg@10"] for name in ("whole", "killed")]
    assert figures[0].keys() == figures[1].keys()
    for name, figure in figures[0].items():
        assert figures[1][name] == pytest.approx(figure, abs=0.002), name
    assert not (tmp_path / ".killed.training").exists()


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [20, 120])  # neither weights nor optimiser state fit; only the state does not fit
def test_a_training_survives_a_checkpoint_that_cannot_be_written(
    dataset: QADataset, tmp_path: Path, megabytes: int
) -> None:
    """A limit on the size of a file stands for a full disk: both interrupt the write."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes << 20, megabytes << 20))

    training = start_training(write_beir(dataset, tmp_path / "dataset"), tmp_path / "model", limit)
    _, output = training.communicate(timeout=240)
    assert "could not be written" in output
    assert "training continues without this checkpoint" in output
    if megabytes > 100:
        assert training.returncode == 0, output
        assert record_of(tmp_path / "model")["training"]["dev_ndcg@10"]
    else:
        assert "OutsideError: no space left on the disk" in output.splitlines()[-1]
        assert not (tmp_path / "model").exists()


PLAN = {"epochs": 2, "pairs": 300}


def test_a_training_does_not_continue_from_checkpoints_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Checkpoints.open(tmp_path / "m", "one", PLAN)
    (first.stage("round-1") / "checkpoint-3").mkdir()
    (first.folder / "round-1" / "checkpoint-3" / "complete").touch()
    first.close()
    same = Checkpoints.open(tmp_path / "m", "one", PLAN)
    assert (same.folder / "round-1" / "checkpoint-3").exists()
    with pytest.raises(InputError, match="being trained by another process"):
        Checkpoints.open(tmp_path / "m", "one", PLAN)
    assert Checkpoints.read_plan(tmp_path / "m", "one") == PLAN
    assert Checkpoints.read_plan(tmp_path / "m", "two") is None
    same.close()
    other = Checkpoints.open(tmp_path / "m", "two", PLAN)
    assert "had other arguments or data: starting over" in caplog.text
    assert not (other.folder / "round-1").exists()
    other.close()
    again = Checkpoints.open(tmp_path / "m", "one", PLAN)  # a forgotten option is given again
    assert (again.folder / "round-1" / "checkpoint-3").exists()
    again.close()
    third = Checkpoints.open(tmp_path / "m", "three", PLAN)
    assert {each.name for each in third.folder.parent.iterdir() if each.is_dir()} == {
        "one",
        "three",
    }  # "two" has no checkpoint
    third.remove()
    assert not third.folder.parent.exists()


def form_examples(count: int = 64) -> list[TrainingExample]:
    return [
        TrainingExample(
            f"Who signs form {n}?", f"Form {n} is signed by master {n}.", frozenset([n]), in_batch_ids=frozenset([n])
        )
        for n in range(count)
    ]


@pytest.mark.slow
def test_an_interrupted_training_measures_no_epoch_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(monitor_module, "MAX_TIME_FRACTION", 1e9)
    recipe = Recipe(epochs=3, batch_size=16, similar_per_batch=1)
    whole = run_trainer(load_sentence_transformer("local", max_length=32), form_examples(32), recipe, lambda: 0.5)
    measured: list[float] = []

    def measure() -> float:
        measured.append(0.5)
        if len(measured) == 2:
            raise KeyError("power cut")
        return 0.5

    with pytest.raises(KeyError):
        run_trainer(
            load_sentence_transformer("local", max_length=32),
            form_examples(32),
            recipe,
            measure,
            checkpoint_folder=tmp_path,
        )
    # An incomplete checkpoint, as a power cut leaves it.
    (tmp_path / "checkpoint-999").mkdir()
    fit = run_trainer(
        load_sentence_transformer("local", max_length=32),
        form_examples(32),
        recipe,
        measure,
        checkpoint_folder=tmp_path,
    )
    assert len(measured) == 4  # epochs 1 and 2, and 2 and 3 after the cut
    assert list(fit.scores) == list(whole.scores) == ["epoch 1", "epoch 2", "epoch 3"]
    assert fit.losses[-1] == pytest.approx(whole.losses[-1], rel=0.05)
    assert not (tmp_path / "checkpoint-999").exists()


def test_control_c_keeps_the_best_weights_so_far() -> None:
    model = load_sentence_transformer("local", max_length=32)
    measured: list[float] = []

    def measure() -> float:
        measured.append(1.0 - 0.1 * len(measured))
        if len(measured) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return measured[-1]

    before = signal.getsignal(signal.SIGINT)
    recipe = Recipe(epochs=50, batch_size=16, similar_per_batch=1)
    fit = run_trainer(model, form_examples(), recipe, measure)
    assert fit.interrupted
    assert next(iter(fit.scores)) == "epoch 1"
    assert len(fit.scores) <= 2
    assert fit.weights is not None
    assert signal.getsignal(signal.SIGINT) is before


def test_training_ends_when_dev_stops_improving() -> None:
    model = load_sentence_transformer("local", max_length=32)
    figures = iter([0.5, 0.6, 0.55, 0.54, 0.9])
    fit = run_trainer(
        model, form_examples(), Recipe(epochs=5, patience=2, batch_size=32, similar_per_batch=1), lambda: next(figures)
    )
    assert list(fit.scores.values()) == [0.5, 0.6, 0.55, 0.54]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mnr", "cosine", "contrastive"])
def test_after_out_of_memory_training_continues_with_smaller_parts(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer("local", max_length=32)
    forward, seen = type(model).forward, []

    def short_of_memory(self: Any, inputs: dict[str, torch.Tensor], **kwargs: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "forward", short_of_memory)
    label = {"mnr": None, "cosine": 1.0, "contrastive": 1}[loss]
    given = [replace(pair, label=label) for pair in form_examples()]
    fit = run_trainer(model, given, Recipe(epochs=2, batch_size=64, similar_per_batch=1, loss=loss), lambda: 0.5)
    assert fit.inner_batch == seen[-1] == 16 < max(seen)
    assert list(fit.scores) == ["epoch 1", "epoch 2"]


@pytest.mark.slow
def test_out_of_memory_with_the_smallest_part_turns_on_gradient_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer("local", max_length=32)
    forward = type(model).forward

    def short_of_memory(self: Any, inputs: dict[str, torch.Tensor], **kwargs: Any) -> Any:
        if self.training and not self[0].auto_model.encoder.layer[0].gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "forward", short_of_memory)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit = run_trainer(model, form_examples(16), Recipe(epochs=3, batch_size=16, similar_per_batch=1), lambda: 0.5)
    assert fit.inner_batch == 4
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert {name.split(".layer.")[1][0] for name in changed if ".layer." in name} == set("012345")  # all of its layers


@pytest.mark.slow
def test_dev_is_measured_within_long_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "STEPS_BETWEEN", 2)
    model = load_sentence_transformer("local", max_length=32)
    recipe = Recipe(epochs=1, batch_size=8, similar_per_batch=1, patience=9)
    figures = iter([0.1, 0.3, 0.2, 0.4, 0.25])
    fit = run_trainer(model, form_examples(80), recipe, lambda: next(figures))  # ten steps
    places = ("epoch 0.20", "epoch 0.40", "epoch 0.60", "epoch 0.80", "epoch 1")
    assert fit.scores == dict(zip(places, (0.1, 0.3, 0.2, 0.4, 0.25), strict=True))
    assert fit.weights is not None
    assert any(not torch.equal(fit.weights[name], tensor) for name, tensor in model.state_dict().items())
    falling = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.4])
    stopped = run_trainer(
        model, form_examples(80), recipe.with_settings({"patience": 1, "epochs": 3}), lambda: next(falling)
    )
    assert list(stopped.scores) == ["epoch 0.50", "epoch 1", "epoch 1.50", "epoch 2"]  # the first epoch did gain


def test_a_training_restores_the_global_random_generators() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    run_trainer(
        load_sentence_transformer("local", max_length=32),
        form_examples(8),
        Recipe(epochs=1, batch_size=8, similar_per_batch=1),
    )
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected


def test_the_seed_decides_the_first_values_of_low_rank_updates() -> None:
    first_values = []
    for seed in (0, 0, 1):
        model = load_sentence_transformer("local", max_length=32)
        add_lora(model, 4, seed)
        first_values.append(next(tensor for name, tensor in model.named_parameters() if ".lora_A" in name))
    assert torch.equal(first_values[0], first_values[1])
    assert not torch.equal(first_values[0], first_values[2])


def test_very_long_texts_are_cut_before_tokenising() -> None:
    model = load_sentence_transformer("local", max_length=32)
    long = [
        TrainingExample("Who signs?", "word " * 10**6, frozenset([n]), in_batch_ids=frozenset([n])) for n in range(2)
    ]
    assert max(map(len, trainer_module._columns(long, model)["positive"])) == 40 * 32


@pytest.mark.parametrize("base", ["local", "static"])
def test_every_text_of_a_training_is_counted(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monitors: list[TrainingMonitor] = []

    class Recorded(TrainingMonitor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            monitors.append(self)

    monkeypatch.setattr(monitor_module, "TrainingMonitor", Recorded)
    model = load_sentence_transformer("local", max_length=32)
    if base == "static":
        static = StaticEmbedding(model.tokenizer, embedding_dim=16)
        prompts, model = model.prompts, SentenceTransformer(modules=[static], device="cpu")
        model.prompts = prompts
    run_trainer(
        model, form_examples(40), Recipe(epochs=2, batch_size=16, similar_per_batch=1)
    )  # batches of 16, 16 and 8
    trainer: Any = monitors[0].log.__self__  # type: ignore[attr-defined]
    assert trainer.texts == 2 * 2 * 40


def test_out_of_memory_that_persists_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer("local", max_length=32)

    def no_memory(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "forward", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run_trainer(model, form_examples(8), Recipe(epochs=1, batch_size=8, similar_per_batch=1))


@pytest.mark.parametrize(("loss", "reduced"), [("mnr", "inner_batch"), ("cosine", "parts"), ("cosent", None)])
def test_memory_is_halved_down_to_four_pairs_before_gradient_checkpointing(loss: Any, reduced: str | None) -> None:
    uses = [MemoryUse(Recipe(batch_size=32, inner_batch=16, loss=loss))]
    while (smaller := uses[-1].reduced(pairs=100)) is not None:
        uses.append(smaller)
    assert [use.recipe.inner_batch for use in uses] == ([16, 8, 4, 4] if reduced == "inner_batch" else [16] * len(uses))
    assert [use.parts for use in uses] == ([1, 2, 4, 8, 8] if reduced == "parts" else [1] * len(uses))
    assert [use.gradient_checkpointing for use in uses] == [False] * (len(uses) - 1) + [True]
