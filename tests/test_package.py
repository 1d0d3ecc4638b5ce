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

CORE = {
    "remote": {"remote"},
    "dataset": {"dataset"},
    "documents": {"documents", "dataset"},
    "feedback": {"feedback", "dataset"},
    "embedding": {"embedding", "remote"},
    "index": {"index", "embedding", "documents"},
    "retrieval": {"retrieval", "dataset", "index", "embedding"},
    "generation": {"generation", "dataset", "documents", "feedback", "retrieval", "embedding", "remote"},
    "evaluation": {"evaluation", "dataset", "index", "retrieval", "embedding"},
    "report": {"report", "dataset", "embedding", "feedback", "retrieval", "evaluation"},
    "training": {"training", "dataset", "embedding", "evaluation", "retrieval", "remote"},
}
"""Room of the core -> the rooms that it may import."""

WINGS = {name: {name, *CORE} for name in ("adapters", "ab", "server", "compat")}
"""Each wing may import the core, and the core imports no wing."""

SHARED = {"errors", "files", "quiet", "jsonl_log", "clean_text"}
"""Modules that every room may import."""

FRONT_DOORS = {"pipeline", "stages", "checkup", "demo"}
"""Modules at the top that may import the whole core. The command line (`cli`) may import everything."""


def test_importing_it_is_fast_and_loads_no_torch() -> None:
    program = (
        "import sys, time; start = time.perf_counter(); import rag_ft, rag_ft.cli; took = time.perf_counter() - start; "
        "heavy = {'torch', 'chromadb', 'transformers', 'sentence_transformers'} & set(sys.modules); "
        "assert not heavy, heavy; assert took < 1.0, took"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def imported_rooms(file: Path) -> set[str]:
    """The rooms and top-level modules that a file imports, in functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = (name.split(".") for name in names)
    return {part[1] for part in parts if part[0] == "rag_ft" and len(part) > 1}


@pytest.mark.parametrize("room", [*CORE, *WINGS])
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for file in (PACKAGE / room).rglob("*.py"):
        assert imported_rooms(file) <= {*(CORE | WINGS)[room], *SHARED}, file


@pytest.mark.parametrize("module", sorted(SHARED | FRONT_DOORS))
def test_the_modules_at_the_top_know_no_wing(module: str) -> None:
    allowed = {*SHARED, *CORE, "stages"} if module in FRONT_DOORS else SHARED
    assert imported_rooms(PACKAGE / f"{module}.py") <= allowed


def test_every_room_has_its_place() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {*CORE, *WINGS, "cli"}
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*SHARED, *FRONT_DOORS, "__init__"}


ROOMS = ["rag_ft", *(f"rag_ft.{room}" for room in [*CORE, *WINGS])]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_there_with_an_example(room: str) -> None:
    module = importlib.import_module(room)
    public = {name: getattr(module, name) for name in module.__all__}
    assert all(value is not None for value in public.values())
    if room == "rag_ft.compat":  # documented by its migration guide
        return
    documented = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert [name for name, value in documented.items() if ">>>" not in (value.__doc__ or "")] == []
    with pytest.raises(AttributeError):
        module.nothing_of_that_name  # noqa: B018


def modules() -> list[str]:
    names = [".".join(("rag_ft", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in PACKAGE.rglob("*.py")]
    return sorted(name.removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("name", modules())
def test_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert not result.failed
