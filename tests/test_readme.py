"""What the README says is true: its snippets run, its commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from llama_index.core import Settings
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from typer.testing import CliRunner

from rag_ft.cli import app
from rag_ft.embedding.loading import local_model_folder

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(autouse=True)
def settings_as_before() -> object:
    yield
    Settings.llm = None
    Settings.embed_model = None


def test_the_fine_tune_snippet_runs(acme: Path, tmp_path: Path) -> None:
    from rag_ft import cut_into_nodes, read_documents

    code = SNIPPETS[0].replace("runs/acme", str(tmp_path / "run")).replace("BAAI/bge-small-en-v1.5", "local")
    code = code.replace("llm=llm,", "use_llm=False, max_pairs=32, max_length=64,")
    nodes: list[TextNode] = cut_into_nodes(read_documents(acme / "documents" / "people"))
    names: dict[str, object] = {"nodes": nodes}
    exec(code, names)
    assert names["index"].as_retriever().retrieve("What is a Lantern?")  # type: ignore[attr-defined]


def test_the_snippet_for_an_app_that_exists_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "claims.txt").write_text("A Kittiwake is an expenses claim and is filed within thirty days.")
    Settings.llm = MockLLM()
    code = SNIPPETS[1].replace("runs/acme/model", str(local_model_folder())).replace('"docs"', repr(str(tmp_path)))
    exec(code, {})
    assert "Kittiwake" in capsys.readouterr().out


def test_every_command_and_option_of_the_readme_exists() -> None:
    names = r"ab|check|compare|demo|export|fuse|generate|index|inspect|mine|review|run|serve|train-adapter|train"
    commands = sorted(set(re.findall(rf"rag-ft ({names})(?![\w-])", README)))
    runner = CliRunner(env={"COLUMNS": "200"})
    helps = {command: runner.invoke(app, [command, "--help"]).output for command in commands}
    assert commands == [
        *("ab", "check", "compare", "demo", "export", "fuse", "generate", "index", "inspect", "mine", "review", "run"),
        *("serve", "train", "train-adapter"),
    ]
    for option in set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", README)) - {"--index-url"}:
        assert any(option in text for text in helps.values()), option
