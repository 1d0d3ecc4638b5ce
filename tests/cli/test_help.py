"""The help: commands and options are in panels, nothing is cut at 80 columns, and a name has one meaning."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rag_ft.cli import app
from rag_ft.cli.command import OLD_SPELLINGS

ROOT: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = ROOT.commands

PANELS = {
    "Start here": ["demo", "check", "run"],
    "The steps": [
        *("generate", "inspect", "review", "mine", "train", "train-adapter", "export", "fuse", "index", "compare")
    ],
    "Serving and watching": ["serve", "ab"],
}
TRAIN_PANELS = {
    "Prefixes and length": {"--query-prefix", "--passage-prefix", "--max-length"},
    "Recipe": {
        *("--epochs", "--batch-size", "--learning-rate", "--loss", "--lora", "--dimension", "--max-pairs", "--set"),
        *("--select", "--seed"),
    },
    "Negatives": {"--mine", "--negatives", "--rounds"},
    "Continuing training": {"--earlier", "--replay"},
    "Tracking and hub": {"--report-to", "--push-to-hub"},
    "Reading documents and tables": {"--field"},
}
TYPE_BY_COMMAND = {"--backend", "--dimension", "--model"}
"""Options that have one value in one command, and several or others in another."""


def help_of(*command: str) -> str:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"})
    done = runner.invoke(app, [*command, "--help"], prog_name="rag-ft")
    assert done.exit_code == 0
    return done.output


def panels_of(text: str) -> dict[str, str]:
    """The panels of a help, by their titles in order."""
    return dict(re.findall(r"╭─ (.+?) ─+╮\n(.*?)╰─", text, re.DOTALL))


def options_of(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "option"]


def test_the_commands_are_in_panels_as_the_data_flows() -> None:
    panels = panels_of(help_of())
    assert list(panels) == ["Options", *PANELS]
    for title, commands in PANELS.items():
        assert re.findall(r"^│ (\S+)", panels[title], re.MULTILINE) == commands
    assert sorted(COMMANDS) == sorted(name for names in PANELS.values() for name in names)


def test_the_help_of_train_opens_with_what_most_people_need() -> None:
    panels = panels_of(help_of("train"))
    assert list(panels) == ["Arguments", "Options", *TRAIN_PANELS]
    assert "DATASET" in panels["Arguments"]
    assert re.findall(r"^│[ *]+(--\S+)", panels["Options"], re.MULTILINE) == [
        *("--output", "--base-model", "--max-minutes", "--teacher", "--continue-from", "--device", "--quiet", "--help")
    ]
    for title, names in TRAIN_PANELS.items():
        assert set(re.findall(r"^│ (--\S+)", panels[title], re.MULTILINE)) == names


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_cut_at_80_columns(name: str) -> None:
    text = help_of(name)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    words = set(text.split())
    for option in options_of(COMMANDS[name]):
        if not option.hidden:
            assert words.issuperset(option.opts)
            if option.show_default and option.default not in (None, False):
                assert f"{option.default}]" in text, option.opts
        else:
            assert option.opts[0] not in re.findall(r"^│[ *]+(--\S+)", text, re.MULTILINE)


def test_every_output_has_its_short_form() -> None:
    outputs = {name: next((each.opts for each in options_of(command) if "--output" in each.opts), None)
               for name, command in COMMANDS.items()}  # fmt: skip
    assert {name for name, opts in outputs.items() if opts} == {
        *("demo", "run", "generate", "mine", "train", "train-adapter")
    }
    assert all(opts == ["--output", "-o"] for opts in outputs.values() if opts)


def test_an_option_has_one_type_in_all_commands() -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for command in COMMANDS.values():
        for option in options_of(command):
            if not option.hidden:
                kinds[option.opts[0]].add(str(option.type_descriptor.annotation))
    assert {name: found for name, found in kinds.items() if len(found) > 1}.keys() <= TYPE_BY_COMMAND
    assert not set(OLD_SPELLINGS.values()) & kinds.keys() - {"--questions", "--requests-per-minute"}


def test_completion_is_shown_and_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="rag-ft")
    assert done.exit_code == 0
    assert "complete -o default -F _rag_ft_completion rag-ft" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("rag-ft tr", ["train", "train-adapter"]),
        ("rag-ft generate docs --un", ["--unseen-documents"]),
        ("rag-ft generate docs --new", []),
        ("rag-ft train data --loss m", ["mnr", "mse", "margin-mse"]),
    ],
)
def test_completion_knows_commands_options_and_choices(words: str, found: list[str]) -> None:
    environment = {"_RAG_FT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = CliRunner(env=environment).invoke(app, [], prog_name="rag-ft")
    assert done.output.split() == found
