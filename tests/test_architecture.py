"""The layout's rules: who may import whom, how long a module may be, and that docs/ is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("storeguard", "actors", "serve")
MAX_LINES = 500

# `storeguard.app()` and the commands that start a store import upwards, inside a function.
STARTS_A_STORE = ("storeguard", "storeguard.cli")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name.

    Attributes:
        name: dotted; for `from a import b` it is `a.b`, a module or a name in module `a`.
        lazy: whether it stands inside a function.
    """

    name: str
    lazy: bool


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed file.

    Attributes:
        name: dotted; that of a package for its `__init__.py`.
        text: its source.
        tree: its syntax tree.
    """

    name: str
    text: str
    tree: ast.Module

    def imports(self) -> Iterator[Import]:
        """All imports in the order of the text."""
        yield from _imports(self.tree, lazy=False)


def _imports(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ImportFrom(module=str(module)):
                yield from (Import(f"{module}.{alias.name}", lazy) for alias in child.names)
            case ast.Import():
                yield from (Import(alias.name, lazy) for alias in child.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports(child, lazy=True)
            case _:
                yield from _imports(child, lazy=lazy)


def modules(*folders: str) -> dict[str, Module]:
    """Every module below these folders of the repository, by dotted name."""
    return {one.name: one for folder in folders for one in _modules_below(folder)}


@cache
def _modules_below(folder: str) -> tuple[Module, ...]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(name, text, ast.parse(text)))
    return tuple(found)


def module_graph(parsed: Mapping[str, Module]) -> dict[str, set[str]]:
    """Which of these modules each of them imports, inside functions too."""
    graph: dict[str, set[str]] = {name: set() for name in parsed}
    for name, module in parsed.items():
        for one in module.imports():
            target = one.name if one.name in parsed else one.name.rpartition(".")[0]
            if target in parsed and target != name:
                graph[name].add(target)
    return graph


def package_of(module: str) -> str:
    """`storeguard.events` for what is in it; `actors` and `serve` are one package each."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "storeguard" else parts[0]


def package_graph(graph: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Which packages each package imports, itself left out."""
    packages: dict[str, set[str]] = {package_of(name): set() for name in graph}
    for name, targets in graph.items():
        packages[package_of(name)] |= {package_of(target) for target in targets}
    return {name: targets - {name} for name, targets in packages.items()}


def circle_in(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle, its first element repeated at the end; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # graphlib names importers after imported
    return []


def downward(graph: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """The graph without the upward imports of what starts a store."""
    return {
        name: {target for target in targets if not (starts_a_store(name) and is_above(target))}
        for name, targets in graph.items()
    }


def starts_a_store(module: str) -> bool:
    return module == STARTS_A_STORE[0] or package_of(module) == STARTS_A_STORE[1]


def is_above(module: str) -> bool:
    return module.partition(".")[0] in {"actors", "serve"}


# ---------------------------------------------------------------------- imports


def test_a_circle_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) in (["b", "c", "b"], ["c", "b", "c"])


def test_no_modules_import_each_other_in_a_circle() -> None:
    circle = circle_in(downward(module_graph(modules(*PRODUCT))))
    assert not circle, " -> ".join(circle)


def test_packages_import_one_way() -> None:
    circle = circle_in(package_graph(downward(module_graph(modules(*PRODUCT)))))
    assert not circle, " -> ".join(circle)


@pytest.mark.parametrize(
    ("lower", "above"),
    [("storeguard", {"ray", "actors", "serve"}), ("actors", {"serve"})],
)
def test_imports_never_go_upwards(lower: str, above: set[str]) -> None:
    upward = {
        f"{module.name} imports {one.name}"
        for module in modules(lower).values()
        for one in module.imports()
        if one.name.partition(".")[0] in above
        and not (one.lazy and lower == "storeguard" and starts_a_store(module.name))
    }
    assert upward == set()


def test_what_is_imported_from_the_product_exists() -> None:
    known = sources()
    missing = {
        f"{module.name} imports {one.name}"
        for module in modules(*PRODUCT, "tests", "benchmarks").values()
        for one in module.imports()
        if one.name.partition(".")[0] in PRODUCT and not known.has_dotted(one.name)
    }
    assert missing == set()


def test_no_test_module_imports_another() -> None:
    imported = {
        f"{module.name} imports {one.name}"
        for module in modules("tests", "benchmarks").values()
        for one in module.imports()
        if one.name.startswith("tests.")
        and any(part.startswith("test_") for part in one.name.split(".")[:-1])
    }
    assert imported == set()


_PACKAGE_ROW = re.compile(r"^\| `([\w/]+)/` \| .+ \| ?([\w, ]*?) ?\|$", re.MULTILINE)


def test_the_table_of_packages_shows_the_real_imports() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = {folder.replace("/", "."): names for folder, names in _PACKAGE_ROW.findall(page)}
    shown = {name: {one for one in names.split(", ") if one} for name, names in rows.items()}
    found = package_graph(downward(module_graph(modules(*PRODUCT))))
    listed = {name.removeprefix("storeguard.") for name in shown} - {"config"}
    assert shown == {
        name: {target.removeprefix("storeguard.") for target in found[name]} & listed
        for name in found
        if name != "storeguard" and (ROOT / name.replace(".", "/")).is_dir()
    }


# ---------------------------------------------------------------------- length


@pytest.mark.parametrize("folder", PRODUCT)
def test_no_module_is_too_long(folder: str) -> None:
    lengths = {one.name: len(one.text.splitlines()) for one in modules(folder).values()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


# ---------------------------------------------------------------------- docs

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
_SUFFIXES = {".py", ".js", ".html", ".css", ".yaml", ".toml", ".md", ".txt"}
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_NAME = re.compile(r"[A-Za-z]+_\w*|[A-Z][a-z0-9]+[A-Z]\w*")


@dataclass(frozen=True, slots=True)
class Sources:
    """What the repository has, for looking up what a document names.

    Attributes:
        parsed: the modules of the product, of tests and of benchmarks.
        words: every identifier-like word in code and configurations.
        members: the names defined in each class, by the class's name.
    """

    parsed: Mapping[str, Module]
    words: frozenset[str]
    members: Mapping[str, frozenset[str]]

    def has_path(self, text: str) -> bool:
        return any((base / text).exists() for base in (ROOT, ROOT / "storeguard", ROOT / "docs"))

    def has_dotted(self, text: str) -> bool:
        """A module, a name in one, or a member of a class; names of other projects count as there."""
        parts = text.split(".")
        if parts[0] in self.members:
            return parts[1] in self.members[parts[0]]
        if f"storeguard.{parts[0]}" in self.parsed:
            parts = ["storeguard", *parts]
        if parts[0] not in {*PRODUCT, "tests", "benchmarks"}:
            return True
        for length in range(len(parts), 0, -1):
            module = self.parsed.get(".".join(parts[:length]))
            if module is not None:
                return _has_names(module.tree, parts[length:])
        return False


def _has_names(tree: ast.Module | ast.ClassDef, names: list[str]) -> bool:
    if not names:
        return True
    if len(names) > 1:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == names[0]:
                return _has_names(node, names[1:])
    return names[0] in _defined(tree)


@cache
def _defined(node: ast.AST) -> frozenset[str]:
    """All names that a class or module defines or imports, attributes of `self` too."""
    names = set()
    for child in ast.walk(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) if child is not node:
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=None):
                names.add(name.split(".")[-1])
    return frozenset(names)


@cache
def sources() -> Sources:
    parsed = modules(*PRODUCT, "tests", "benchmarks")
    del parsed[f"tests.{Path(__file__).stem}"]  # names things that are not there
    words: set[str] = set()
    members: dict[str, frozenset[str]] = {}
    for module in parsed.values():
        words |= set(re.findall(r"\w+", module.text))
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef):
                members[node.name] = members.get(node.name, frozenset()) | _defined(node)
    for pattern in ("serve/dashboard/*.js", "configs/*.yaml", "cluster/*.yaml", "pyproject.toml"):
        for path in ROOT.glob(pattern):
            words |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return Sources(parsed, frozenset(words), members)


def unknown_in(document: str) -> list[str]:
    """What a Markdown text writes in backticks as a path or name of ours that is not there."""
    known = sources()
    unknown = []
    for code in _CODE.findall(_FENCE.sub("", document)):
        text = code.strip().partition("(")[0]
        looks_like_a_path = bool(_PATH.fullmatch(text)) and (
            Path(text).suffix in _SUFFIXES
            or ("/" in text and text.split("/")[0] in {path.name for path in ROOT.iterdir()})
        )
        if looks_like_a_path:
            found = known.has_path(text)
        elif _DOTTED.fullmatch(text):
            found = known.has_dotted(text)
        elif _NAME.fullmatch(text):
            found = text in known.words
        else:
            continue
        if not found:
            unknown.append(code)
    return unknown


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("`storeguard/clock.py`, `events/journal.py`, `storeguard/events/`", []),
        ("`events/diary.py` and `storeguard/diary/`", ["events/diary.py", "storeguard/diary/"]),
        ("`storeguard.clock.SystemClock.now()`, `SystemClock.now`, `clock.Clock`", []),
        ("`storeguard.clock.Sundial`", ["storeguard.clock.Sundial"]),
        ("`SystemClock.strike()`", ["SystemClock.strike()"]),
        ("`captured_at`, `EventReader`", []),
        ("`caught_at`, `EventDiary`", ["caught_at", "EventDiary"]),
        ("`ray.get`, `/api/v1/events`, `GET events/{id}`, `file:///x`", []),  # not ours to check
        ("```\n`events/diary.py`\n```", []),  # a block may show anything
    ],
)
def test_what_a_document_names_is_looked_up(text: str, unknown: list[str]) -> None:
    assert unknown_in(text) == unknown


def test_what_the_documents_name_exists() -> None:
    documents = sorted((ROOT / "docs").rglob("*.md"))
    found = {path.name: unknown_in(path.read_text(encoding="utf-8")) for path in documents}
    assert {name: unknown for name, unknown in found.items() if unknown} == {}
