"""`rag-ft index` with documents, a dataset or an existing collection; update, rollback and prune."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rag_ft import FineTunedEmbedding, InputError, open_index
from rag_ft.cli import app

TEXTS = {
    "claims": "A Kittiwake is an expenses claim and is filed within thirty days.",
    "leave": "Leave is booked in HELM, two weeks before it begins.",
    "badges": "Visitors wear a badge and are met at the gate.",
}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["index", *map(str, arguments), "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / f"{name}.md").write_text(text)
    return folder


def first(chroma: Path, name: str = "ours") -> str:
    index = open_index(FineTunedEmbedding.load("local"), chroma, name)
    return index.as_retriever(similarity_top_k=1).retrieve("How do I get my money back?")[0].text


def test_documents_are_indexed_changed_and_rolled_back(docs: Path, tmp_path: Path) -> None:
    chroma = tmp_path / "chroma"
    place = ("--chroma", chroma, "--collection", "ours")
    assert "3 passages" in run(docs, "--model", "local", *place)
    assert "Kittiwake" in first(chroma)
    (docs / "claims.md").write_text("Nobody gets any money back.")
    assert "3 passages" in run(docs, "--model", "local", *place)
    assert "Nobody" in first(chroma)
    assert "again" in run("--rollback", *place)
    assert "Kittiwake" in first(chroma)
    (docs / "more.md").write_text("Money comes back by bank transfer.")
    assert "4 passages" in run(docs, "--model", "local", "--update", *place)
    assert "removed: none" in run("--prune", *place)
    assert "4 passages" in run(f"chroma:{chroma}:ours", "--model", "local", "--chroma", tmp_path / "other",
                               "--collection", "copy")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["docs", "--rollback"], "cannot be combined"),
        (["--rollback", "--prune"], "cannot be combined"),
        (["docs"], "pass --model MODEL"),
        (["--model", "local"], "pass SOURCE, the documents"),
        (["--rollback"], "does not exist"),
        (["chroma:nowhere", "--model", "local"], "PATH_OR_URL:COLLECTION"),
    ],
)
def test_wrong_arguments_are_one_clear_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    place = ["--chroma", str(tmp_path / "chroma"), "--collection", "ours"]
    result = CliRunner().invoke(app, ["index", *arguments, *place])
    assert isinstance(result.exception, InputError), result.output
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "chroma").exists()
