"""The package as a whole: it imports fast, its rooms keep to themselves, its docstrings run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rag_ft

PACKAGE = Path(rag_ft.__file__).parent

MAY_IMPORT = {
    "remote": {"remote"},
    "dataset": {"dataset"},
    "generation": {"dataset", "generation", "retrieval", "embedding", "remote"},
    "embedding": {"embedding", "remote"},
    "index": {"index", "embedding"},
    "retrieval": {"retrieval", "dataset", "index", "embedding"},
    "evaluation": {"evaluation", "dataset", "index", "retrieval"},
    "training": {"training", "dataset", "embedding", "evaluation", "retrieval", "remote"},
    "serving": {"serving", "dataset", "embedding", "evaluation", "index", "retrieval"},
}
"""Room -> the rooms that it may know; errors.py, files.py and quiet.py are for all."""


def test_importing_it_is_fast_and_loads_no_torch() -> None:
    program = (
        "import sys, time; start = time.perf_counter(); import rag_ft, rag_ft.cli; took = time.perf_counter() - start; "
        "heavy = {'torch', 'chromadb', 'transformers', 'sentence_transformers'} & set(sys.modules); "
        "assert not heavy, heavy; assert took < 1.0, took"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for file in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "rag_ft" and len(parts) > 1 and parts[1] not in ("errors", "files", "quiet"):
                    assert parts[1] in MAY_IMPORT[room], f"{file.name} of {room} imports {name}"


def test_every_public_name_is_there() -> None:
    for name in rag_ft.__all__:
        assert getattr(rag_ft, name) is not None
    with pytest.raises(AttributeError):
        rag_ft.nothing_of_that_name  # noqa: B018


def test_every_public_name_has_an_example() -> None:
    public = {name: getattr(rag_ft, name) for name in rag_ft.__all__}
    documented = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert [name for name, value in documented.items() if ">>>" not in (value.__doc__ or "")] == []


def modules() -> list[str]:
    names = [".".join(("rag_ft", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in PACKAGE.rglob("*.py")]
    return sorted(name.removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("name", modules())
def test_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert not result.failed
