"""Measure how the package is built, and print it as a Markdown table.

    python tests/structure.py                        this checkout
    python tests/structure.py --beside OTHER/rag_ft  another copy of the package (before) beside this checkout (after)
    python tests/structure.py --list                 and what each number counts, so that it can be worked through

Only the source is read; nothing of the package is imported.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "rag_ft"
NAME = "rag_ft"
FRONT_DOORS = ("fine_tune", "train_model")
LONG, MANY_PARAMETERS, MANY_POSITIONAL, LONG_FILE = (50, 60), 8, 7, 400
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass(frozen=True)
class Module:
    """A file of the package: its dotted name, its path in the package, and its source."""

    name: str
    path: str
    source: str = field(repr=False)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def lines(self) -> list[str]:
        return self.source.removesuffix("\n").split("\n")

    @cached_property
    def docstring_lines(self) -> set[int]:
        """Lines of docstrings, and of the strings that stand below a constant to explain it."""
        statements = (node for node in ast.walk(self.tree) if isinstance(node, ast.Expr))
        strings = (s for s in statements if isinstance(s.value, ast.Constant) and isinstance(s.value.value, str))
        return self._written(line for s in strings for line in range(s.lineno, (s.end_lineno or 0) + 1))

    @cached_property
    def code_lines(self) -> set[int]:
        """Lines that are not blank and hold more than a comment or a docstring."""
        tokens = [token for token in self._tokens if token.type not in LAYOUT]
        code = (t for t in tokens if t.type != tokenize.STRING or t.start[0] not in self.docstring_lines)
        return self._written(line for token in code for line in range(token.start[0], token.end[0] + 1))

    @cached_property
    def comment_lines(self) -> set[int]:
        """Lines that hold a comment alone."""
        return {token.start[0] for token in self._tokens if token.type == tokenize.COMMENT} - self.code_lines

    @cached_property
    def imports(self) -> list[tuple[str, str]]:
        """(name in this module, dotted name that it stands for) of all imports, wherever in the file they are."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(alias.asname or alias.name, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = self.name.split(".") + (["__init__"] if self.path.endswith("__init__.py") else [])
                base = [*above[: -node.level], node.module] if node.level else [node.module]
                found += [(a.asname or a.name, ".".join(part for part in (*base, a.name) if part)) for a in node.names]
        return found

    @cached_property
    def functions(self) -> list[Function]:
        """All functions, methods and nested functions; `@overload` stubs are left out."""
        return list(self._functions_in(self.tree, "", False))

    @cached_property
    def _tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.source).readline))

    def _written(self, lines: Iterator[int]) -> set[int]:
        return {line for line in lines if self.lines[line - 1].strip()}

    def _functions_in(self, node: ast.AST, prefix: str, nested: bool) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if not any(ast.unparse(decorator).endswith("overload") for decorator in child.decorator_list):
                    yield Function(self, prefix + child.name, child, nested)
                    yield from self._functions_in(child, f"{prefix}{child.name}.", True)
            else:
                inner = f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix
                yield from self._functions_in(child, inner, nested)


@dataclass(frozen=True)
class Function:
    """A function or method, by its name within the module."""

    module: Module
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef = field(repr=False)
    nested: bool

    def __str__(self) -> str:
        return f"{self.module.path}:{self.node.lineno} {self.name}"

    @property
    def length(self) -> int:
        """Lines of code from `def` to the end; decorators are not counted."""
        return len(self.module.code_lines & set(range(self.node.lineno, (self.node.end_lineno or 0) + 1)))

    @property
    def positional(self) -> list[str]:
        """Names of the parameters that can be given by position, without `self` and `cls`."""
        names = [a.arg for a in (*self.node.args.posonlyargs, *self.node.args.args)]
        return names[1:] if names[:1] in (["self"], ["cls"]) else names

    @property
    def parameters(self) -> list[str]:
        """Names of all parameters without `self` and `cls`; `*args` and `**kwargs` are one each."""
        arguments = self.node.args
        return self.positional + [a.arg for a in (*arguments.kwonlyargs, arguments.vararg, arguments.kwarg) if a]

    @property
    def is_public(self) -> bool:
        return not self.nested and "._" not in f"{self.module.name}.{self.name}"

    @property
    def is_front(self) -> bool:
        """Whether it belongs to the command line, the compatibility layer, or is one of the two front doors."""
        return self.module.path.startswith(("cli/", "compat/")) or self.name in FRONT_DOORS


class Following:
    """Where `train_model`'s `dataset` goes, found in the source without running it.

    Within a function, these hold the dataset: the parameter; a name that it is assigned to; a name that is assigned
    again from a call that takes it (`dev, dataset = f(dataset)`); and a call on it, or with it, that is annotated to
    return its class. Each call that takes one of these as an argument counts once.

    If the callee is a function, method or class of the package, its parameter or field then holds the dataset too. A
    field is followed through `plan.dataset`, if the class of `plan` is known: from an annotation, a constructor, or
    the annotated result of a call. `dataset.method()` does not count: the dataset is not an argument there.
    """

    def __init__(self, modules: dict[str, Module]) -> None:
        self.modules = modules
        functions = [function for module in modules.values() for function in module.functions if not function.nested]
        self.functions = {f"{function.module.name}.{function.name}": function for function in functions}
        self.classes = {
            f"{module.name}.{node.name}": (module, node)
            for module in modules.values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
        }
        self.imports = {name: dict(module.imports) for name, module in modules.items()}
        self.types = {name: self._parameter_types(name, function) for name, function in self.functions.items()}
        for name, function in self.functions.items():
            for target, value in _assignments(function.node):
                if isinstance(target, ast.Name) and isinstance(value, ast.Call) and (found := self._named(name, value)):
                    self.types[name][target.id] = found
        self.held = {(name, "dataset") for name in self.functions if name.endswith(".train_model")}
        """(function, its parameter or variable) and (class, field) that hold the dataset."""
        self.its_classes = {self.types[name].get("dataset") for name, _ in self.held} - {"", None}

    def calls(self) -> list[str]:
        """The calls that take the dataset, as `file:line:column`."""
        known = -1
        while known < len(self.held):
            known = len(self.held)
            found = {call for name, function in self.functions.items() for call in self._calls_in(name, function)}
        return [f"{path}:{line}:{column}" for path, line, column in sorted(found)]

    def _calls_in(self, name: str, function: Function) -> Iterator[tuple[str, int, int]]:
        def holds(value: ast.expr) -> bool:
            if isinstance(value, ast.Call):
                taken = [*value.args, *(keyword.value for keyword in value.keywords)]
                taken += [value.func.value] if isinstance(value.func, ast.Attribute) else []
                return self._named(name, value) in self.its_classes and any(map(holds, taken))
            if isinstance(value, ast.Attribute):
                return (self._type_of(self._named(name, value.value)), value.attr) in self.held
            return isinstance(value, ast.Name) and (name, value.id) in self.held

        for target, value in _assignments(function.node):
            if holds(value) and isinstance(target, ast.Name):
                self.held.add((name, target.id))
            elif holds(value) and isinstance(target, ast.Attribute):
                owner = self._type_of(self._named(name, target.value))
                self.held |= {(owner, target.attr)} if owner else set()
        for call in ast.walk(function.node):
            if isinstance(call, ast.Call):
                places = [place for place, value in enumerate(call.args) if holds(value)]
                keywords = [keyword.arg for keyword in call.keywords if keyword.arg and holds(keyword.value)]
                if places or keywords:
                    owner, positional = self._parameters(self._named(name, call.func))
                    taken = [positional[place] for place in places if place < len(positional)]
                    self.held |= {(owner, parameter) for parameter in (*taken, *keywords) if owner}
                    yield function.module.path, call.lineno, call.col_offset + 1

    def _parameters(self, callee: str) -> tuple[str, list[str]]:
        """(the function or class that takes the arguments of a call, its positional parameters)."""
        if callee in self.classes:
            callee = self._member(callee, "__init__") or callee
        if callee in self.functions:
            return callee, self.functions[callee].positional
        return (callee, list(self._fields(callee))) if callee in self.classes else ("", [])

    def _named(self, function: str, value: ast.expr) -> str:
        """The function, the class, or the class of the instance that an expression names; empty if unknown."""
        if isinstance(value, ast.Name):
            known = self.types.get(function, {}).get(value.id)
            return known or self._defined(f"{self.functions[function].module.name}.{value.id}")
        if isinstance(value, ast.Attribute):
            owner = self._named(function, value.value)
            return self._member(self._type_of(owner), value.attr)
        return self._type_of(self._named(function, value.func)) if isinstance(value, ast.Call) else ""

    def _defined(self, name: str) -> str:
        """The dotted name under which a function, class or module is defined; imports are followed."""
        if name in self.functions or name in self.classes or name in self.modules:
            return name
        module, _, last = name.rpartition(".")
        imported = self.imports.get(module, {}).get(last, name)
        return self._defined(imported) if imported != name else ""

    def _type_of(self, name: str) -> str:
        """A class or module stands for itself, a function for the class that it is annotated to return."""
        function = self.functions.get(name)
        return self._annotated(function.module, function.node.returns) if function else name

    def _member(self, owner: str, attribute: str) -> str:
        """The method of a class or of its bases, the class of a field, or what a module defines."""
        if owner not in self.classes:
            return self._defined(f"{owner}.{attribute}") if owner else ""
        module, node = self.classes[owner]
        if f"{owner}.{attribute}" in self.functions:
            return f"{owner}.{attribute}"
        if attribute in self._fields(owner):
            return self._annotated(module, self._fields(owner)[attribute])
        bases = (self._annotated(module, base) for base in node.bases)
        return next((found for base in bases if base != owner and (found := self._member(base, attribute))), "")

    def _fields(self, owner: str) -> dict[str, ast.expr]:
        statements = (s for s in self.classes[owner][1].body if isinstance(s, ast.AnnAssign))
        return {s.target.id: s.annotation for s in statements if isinstance(s.target, ast.Name)}

    def _annotated(self, module: Module, annotation: ast.expr | None) -> str:
        """The first class of the package that an annotation names."""
        named = (node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)) if annotation else ()
        return next((c for name in named if (c := self._defined(f"{module.name}.{name}")) in self.classes), "")

    def _parameter_types(self, name: str, function: Function) -> dict[str, str]:
        arguments, owner = function.node.args, name.rpartition(".")[0]
        types = {"self": owner, "cls": owner} if owner in self.classes else {}
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            types[argument.arg] = types.get(argument.arg) or self._annotated(function.module, argument.annotation)
        return types


def _assignments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of each assignment; `a, b = c, d` is two."""
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    yield from zip(target.elts, node.value.elts, strict=False)
                else:
                    yield target, node.value


@dataclass(frozen=True)
class Structure:
    """What is measured of a package. A list holds the places that a number counts.

    Attributes:
        modules: dotted name -> module.
        functions: all functions, methods and nested functions.
        positional_calls: calls with many positional arguments.
        circles: groups of modules that import each other, directly or through others of the group.
        public_names: the package or sub-package -> how many names its `__all__` has.
        dataset_calls: calls that take `train_model`'s dataset (`Following`).
    """

    modules: dict[str, Module] = field(repr=False)
    functions: list[Function] = field(repr=False)
    positional_calls: list[str]
    circles: list[list[str]]
    public_names: dict[str, int]
    dataset_calls: list[str]

    @property
    def longest_functions(self) -> list[Function]:
        return sorted(self.functions, key=lambda function: -function.length)

    def functions_over(self, lines: int) -> list[Function]:
        return [function for function in self.longest_functions if function.length > lines]

    def functions_with(self, parameters: int) -> list[Function]:
        """Functions that have so many parameters or more."""
        return [function for function in self.functions if len(function.parameters) >= parameters]

    @property
    def open_functions(self) -> list[Function]:
        """Public functions and methods that take `**kwargs`."""
        return [function for function in self.functions if function.is_public and function.node.args.kwarg]

    @property
    def longest_files(self) -> list[Module]:
        return sorted(self.modules.values(), key=lambda module: -len(module.lines))

    def files_over(self, lines: int) -> list[Module]:
        return [module for module in self.longest_files if len(module.lines) > lines]

    @property
    def dataset_files(self) -> list[str]:
        return sorted({call.split(":")[0] for call in self.dataset_calls})


def measure(package: Path = PACKAGE) -> Structure:
    """Read the files of a package and measure them."""
    modules = read_modules(package)
    functions = [function for module in modules.values() for function in module.functions]
    calls = [call for module in modules.values() for call in positional_calls(module)]
    return Structure(
        modules, functions, calls, import_circles(modules), public_names(package), Following(modules).calls()
    )


def read_modules(package: Path) -> dict[str, Module]:
    """Dotted name -> module, for each file of a package."""
    modules = {}
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        name = ".".join([NAME, *path.with_suffix("").parts]).removesuffix(".__init__")
        modules[name] = Module(name, path.as_posix(), file.read_text(encoding="utf-8"))
    return modules


def positional_calls(module: Module) -> list[str]:
    """Calls with many positional arguments, none of them starred."""
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call) and len(node.args) >= MANY_POSITIONAL]
    return [
        f"{module.path}:{call.lineno} {ast.unparse(call.func)} ({len(call.args)})"
        for call in calls
        if not any(isinstance(argument, ast.Starred) for argument in call.args)
    ]


def public_names(package: Path) -> dict[str, int]:
    """Package or sub-package -> how many public names it has.

    They stand in the stub `__init__.pyi`, or in the `__all__` of `__init__.py`.
    """
    counts = {}
    for file in sorted(package.rglob("__init__.py")):
        name = ".".join([NAME, *file.parent.relative_to(package).parts])
        stub = file.with_suffix(".pyi")
        if stub.exists():
            imports = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
            counts[name] = sum(len(node.names) for node in imports)
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                counts[name] = len(ast.literal_eval(node.value))
    return counts


def import_circles(modules: dict[str, Module]) -> list[list[str]]:
    """Groups of modules that import each other; imports in functions and under TYPE_CHECKING count too."""

    def target(dotted: str) -> str:
        return dotted if dotted in modules else dotted.rpartition(".")[0]

    imported = {name: {target(dotted) for _, dotted in module.imports} for name, module in modules.items()}
    return components({name: sorted(targets & modules.keys()) for name, targets in imported.items()})


def components(graph: dict[str, list[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node, the largest first (Tarjan's algorithm)."""
    found: list[list[str]] = []
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            found.append(sorted(stack[start:]))
            del stack[start:]

    for node in graph:
        if node not in order:
            visit(node)
    return sorted((group for group in found if len(group) > 1), key=len, reverse=True)


def measures(structure: Structure) -> dict[str, int | str | list[str]]:
    """Name of a measure -> its value, or the places that it counts, in the order of the table."""
    modules, functions = structure.modules.values(), structure.functions
    longest, file = structure.longest_functions[0], structure.longest_files[0]
    wide = structure.functions_with(MANY_PARAMETERS)
    return {
        "files": len(modules),
        "lines of code": sum(len(module.code_lines) for module in modules),
        "lines of docstrings": sum(len(module.docstring_lines) for module in modules),
        "lines of comments": sum(len(module.comment_lines) for module in modules),
        "functions": len(functions),
        "median function, lines": f"{statistics.median(function.length for function in functions):g}",
        "longest function, lines": f"{longest.length} ({longest.name})",
        **{f"functions over {n} lines": [f"{f} ({f.length})" for f in structure.functions_over(n)] for n in LONG},
        f"functions with {MANY_PARAMETERS} parameters or more": [f"{f} ({len(f.parameters)})" for f in wide],
        "such functions outside cli, compat and the front doors": [
            f"{f} ({len(f.parameters)})" for f in wide if not f.is_front
        ],
        f"calls with {MANY_POSITIONAL} positional arguments or more": structure.positional_calls,
        "public functions with `**kwargs`": [f"{f} (**{f.parameters[-1]})" for f in structure.open_functions],
        "longest file, lines": f"{len(file.lines)} ({file.path})",
        f"files over {LONG_FILE} lines": [f"{m.path} ({len(m.lines)})" for m in structure.files_over(LONG_FILE)],
        "import circles": [", ".join(circle) for circle in structure.circles],
        "files in import circles": sum(map(len, structure.circles)),
        **{f"public names in {name}": count for name, count in structure.public_names.items()},
        "calls that take train_model's dataset": structure.dataset_calls,
        "files with such calls": structure.dataset_files,
    }


def table(before: Structure | None, after: Structure) -> str:
    """A Markdown table of the measures; one column if there is no `before`."""
    columns = {"before": measures(before), "after": measures(after)} if before else {"now": measures(after)}
    rows = [["", *columns], ["---", *["---:"] * len(columns)]]
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        values = [column.get(name, "") for column in columns.values()]
        rows.append([name, *(str(len(value) if isinstance(value, list) else value) for value in values)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def places(structure: Structure) -> str:
    """The places that the measures count, under a heading for each."""
    listed = {name: found for name, found in measures(structure).items() if isinstance(found, list)}
    return "\n\n".join("\n".join([f"## {name}", "", *(f"- {p}" for p in found)]) for name, found in listed.items())


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how the package is built.")
    parser.add_argument("package", type=Path, nargs="?", default=PACKAGE, help="the folder of the package")
    parser.add_argument("--beside", type=Path, help="another copy of the package, shown as `before`")
    parser.add_argument("--list", action="store_true", help="print what each number counts")
    options = parser.parse_args()
    after = measure(options.package)
    print(table(measure(options.beside) if options.beside else None, after))
    if options.list:
        print(f"\n{places(after)}")


if __name__ == "__main__":
    main()
