"""Options of earlier versions: an old spelling still works, and what was removed says what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rag_ft import InputError
from rag_ft.cli import app
from rag_ft.cli.command import OLD_SPELLINGS

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
REQUIRED = {
    "generate": ["docs", "--output", "data"],
    "run": ["docs", "--output", "run"],
    "compare": ["data", "--baseline", "bm25", "--candidate", "bm25"],
    "serve": ["model"],
}
RENAMED = [
    ("generate", "--new-documents", "--unseen-documents", "0.4"),
    ("run", "--new-documents", "--unseen-documents", "0"),
    ("compare", "--questions", "--query-table", "results.csv"),
    ("compare", "--losses", "--regressions", "next"),
    ("serve", "--requests-per-minute", "--rate-limit", "60"),
]


def values_of(command: str, *options: str) -> dict[str, Any]:
    return COMMANDS[command].make_context(command, [*REQUIRED[command], *options]).params


def error_of(*arguments: object) -> InputError:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, InputError), done.output
    assert done.exception.exit_code == 2
    return done.exception


@pytest.mark.parametrize(("command", "old", "new", "value"), RENAMED)
def test_an_old_spelling_means_the_same_and_is_hidden(command: str, old: str, new: str, value: str) -> None:
    expected = values_of(command, new, value)
    assert expected != values_of(command)
    assert values_of(command, old, value) == expected
    assert values_of(command, f"{old}={value}") == expected
    (option,) = [each for each in COMMANDS[command].params if old in each.opts]
    (shown,) = [each for each in COMMANDS[command].params if new in each.opts]
    assert (option.hidden, shown.hidden) == (True, False)
    assert (option.default, option.min, option.max) == (shown.default, shown.min, shown.max)


def test_every_old_spelling_is_tested() -> None:
    assert {(new, old) for _, old, new, _ in RENAMED} == set(OLD_SPELLINGS.items())


def test_a_value_out_of_bounds_is_refused_under_the_old_spelling_too() -> None:
    done = CliRunner().invoke(app, ["generate", *REQUIRED["generate"], "--new-documents", "0.95"])
    assert done.exit_code == 2


@pytest.mark.parametrize("table", ["--questions", "--query-table"])
@pytest.mark.parametrize("regressions", ["--losses", "--regressions"])
def test_compare_refuses_wrong_files_under_both_spellings(beir_folder: Path, table: str, regressions: str) -> None:
    compared = ["compare", beir_folder, "--baseline", "bm25", "--candidate", "bm25"]
    assert "table.pdf" in str(error_of(*compared, table, beir_folder / "table.pdf"))
    assert "is the dataset of the comparison" in str(error_of(*compared, regressions, beir_folder))


def test_focus_was_removed(beir_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", beir_folder, "--output", tmp_path / "model", "--base-model", "local"]
    error = error_of(*arguments, "--focus", "bm25-misses")
    assert "--focus was removed" in str(error)
    assert "omit it" in str(error)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", ["low-rank", "residual"])
def test_maps_that_did_worse_were_removed(kind: str, beir_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", beir_folder, "--output", tmp_path / "adapter", "--base-model", "local", "--adapter", kind]
    error = error_of(*arguments)
    assert f"--adapter {kind} was removed, since a linear map did best" in str(error)
    assert "rag-ft train-adapter" in str(error)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("option", [["--both-sides"], ["--batch"], ["--embed-url", "http://127.0.0.1:9/v1"]])
def test_options_of_an_adapter_point_to_its_command(option: list[str], beir_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", beir_folder, "--output", tmp_path / "model", "--base-model", "local", *option]
    assert "apply to adapters only: use rag-ft train-adapter" in str(error_of(*arguments))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--epochs", "2"), ("--loss", "gist"), ("--set", "warmup=0.1"), ("--dimension", "64"), ("--teacher", "local")],
)
def test_an_adapter_has_no_options_of_tuning(option: str, value: str, beir_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", beir_folder, "--output", tmp_path / "adapter", "--base-model", "local", "--adapter", "linear"]
    assert f"{option} is for tuning a model's weights" in str(error_of(*arguments, option, value))
