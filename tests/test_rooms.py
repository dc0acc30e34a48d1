"""The order of the rooms: an import goes down, never up, and never round in a circle."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"murank_kernels": "kernels", "murank": "runtime", "murank_export": "export"}
# From the ground up. A room may import those above it in this list, and itself.
ROOMS = [
    "checks",
    "machine",
    "files",
    "images",
    "prompt",
    "datasets",
    "folder",
    "backends",
    "engine",
    "pairs",
    "rerank",
    "jobs",
    "search",
    "sheet",
    "calibration",
    "bench",
    "doctor",
    "cli",
]
LOOSE = {"_exceptions", "_version"}  # private files in no room: above checks, below all others
MOST_ROOMS, LONGEST_FILE = 24, 450
# May be named as another file: a verb as what it calls, a backend's file as the other backend's.
TWICE = re.compile(
    r"__(init|main)__|murank/cli/\w+|murank/backends/\w+/(loader|session|rows)|murank_kernels/cuda/\w+"
)


def modules(package: str) -> dict[str, Path]:
    """All modules of a package by dotted name."""
    top = ROOT / SOURCES[package]
    found = {}
    for path in sorted((top / package).rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {name: path for package in SOURCES for name, path in modules(package).items()}


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports: lazily and for types alone, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module not in MODULES:
                continue
            inner = (f"{node.module}.{one.name}" for one in node.names)
            yield from (name if name in MODULES else node.module for name in inner)


IMPORTS = {name: sorted(set(imports(path))) for name, path in MODULES.items()}


def room_of(name: str) -> str | None:
    """Which room of murank a module is in; None: in none."""
    package, *parts = name.split(".")
    return parts[0] if package == "murank" and parts and parts[0] in ROOMS else None


def test_rooms_are_those_of_the_table() -> None:
    top = ROOT / "runtime" / "murank"
    assert {path.parent.name for path in top.glob("*/__init__.py")} == set(ROOMS)
    assert len(ROOMS) <= MOST_ROOMS
    assert {path.stem for path in top.glob("*.py")} == LOOSE | {"__init__", "__main__"}


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_up(room: str) -> None:
    below = ROOMS[: ROOMS.index(room) + 1]
    for name in (name for name in MODULES if room_of(name) == room):
        for other in IMPORTS[name]:
            assert room_of(other) is None or room_of(other) in below, f"{name} imports {other}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_imports(room: str) -> None:
    used = {room_of(other) for name in MODULES if room_of(name) == room for other in IMPORTS[name]}
    text = ast.get_docstring(ast.parse(MODULES[f"murank.{room}"].read_text(encoding="utf-8"))) or ""
    said = re.search(r"^Imports (.*)", text, re.DOTALL | re.MULTILINE)
    assert said is not None
    if said[1].startswith("all rooms"):
        assert room == ROOMS[-1]
        return
    assert used - {None, room} == {*re.findall(r"\w+", said[1])} & {*ROOMS}


def test_the_loose_files_import_checks_alone() -> None:
    for name in LOOSE:
        assert {room_of(other) for other in IMPORTS[f"murank.{name}"]} <= {None, "checks"}, name


@pytest.mark.parametrize(
    ("package", "never"),
    [("murank_kernels", ("murank", "murank_export")), ("murank", ("murank_export",))],
)
def test_no_package_imports_those_above_it(package: str, never: tuple[str, ...]) -> None:
    for name in modules(package):
        assert not [one for one in IMPORTS[name] if one.split(".")[0] in never], name


def test_no_circle() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in IMPORTS[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_no_file_is_too_long() -> None:
    for name, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE, name


@pytest.mark.parametrize("package", SOURCES)
def test_a_name_stands_once(package: str) -> None:
    files = modules(package).values()
    stems = [path.stem for path in files if not TWICE.search(path.with_suffix("").as_posix())]
    classes = [
        node.name for path in files for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]  # fmt: skip
    assert [name for name, count in Counter(stems + classes).items() if count > 1] == []
