"""What the README and the docs say is true: snippets run or compile, names, commands, options and links exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
from llama_index.core import Settings
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode

from rag_ft.cli import app
from rag_ft.embedding.loading import local_model_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}

COMMANDS = {name: command.params for name, command in typer.main.get_command(app).commands.items()}
OPTIONS = {
    name: {"--help"}.union(*(option.opts for option in params if not getattr(option, "hidden", False)))
    for name, params in COMMANDS.items()
}
ALL_OPTIONS = {"--install-completion", *(option for options in OPTIONS.values() for option in options)}
FOREIGN_OPTIONS = {"--index-url"}  # of pip

pages = pytest.mark.parametrize("page", PAGES)


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


def test_the_snippet_for_an_existing_app_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "claims.txt").write_text("A Kittiwake is an expenses claim and is filed within thirty days.")
    Settings.llm = MockLLM()
    code = SNIPPETS[1].replace("runs/acme/model", str(local_model_folder())).replace('"docs"', repr(str(tmp_path)))
    exec(code, {})
    assert "Kittiwake" in capsys.readouterr().out


def test_the_index_snippet_runs(tmp_path: Path) -> None:
    code = (
        SNIPPETS[2].replace("runs/acme/model", str(local_model_folder())).replace("chroma/", str(tmp_path / "chroma"))
    )
    names: dict[str, object] = {"nodes": [TextNode(text="A Kittiwake is an expenses claim.")]}
    exec(code, names)
    assert names["index"].as_retriever().retrieve("What is a Kittiwake?")  # type: ignore[attr-defined]


def test_the_readme_names_every_command() -> None:
    assert set(_commands_in(README)) == set(COMMANDS)


@pages
def test_commands_exist(page: str) -> None:
    assert set(_commands_in(PAGES[page])) <= set(COMMANDS)


@pages
def test_options_exist(page: str) -> None:
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", PAGES[page])) - FOREIGN_OPTIONS
    assert named <= ALL_OPTIONS


@pages
def test_each_option_of_a_command_line_is_one_of_its_command(page: str) -> None:
    for line in _command_lines(PAGES[page]):
        command, *words = shlex.split(line, comments=True)[1:]
        for option in [word for word in words if word.startswith("-")]:
            assert option in OPTIONS[command], line


@pages
def test_python_snippets_compile_and_their_imports_resolve(page: str) -> None:
    for snippet in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        tree = ast.parse(snippet)
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "rag_ft":
                exec(ast.unparse(statement), {})


@pages
def test_links_resolve(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text(encoding="utf-8")), target


def _commands_in(text: str) -> list[str]:
    """Return the commands of `rag-ft` that bash blocks and inline code name."""
    code = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    return [command for piece in code for command in re.findall(r"(?:^|[\s/])rag-ft ([a-z][a-z-]*)", piece)]


def _command_lines(text: str) -> list[str]:
    """Return each call of `rag-ft` in the bash blocks and in inline code, from its name on."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(rag-ft [a-z][^`\n]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    calls = [re.search(r"(?:^|(?<=[\s/]))rag-ft [a-z].*", line) for line in lines]
    return [call.group() for call in calls if call is not None]


def _anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
