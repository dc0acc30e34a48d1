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
ROOMS = {
    "murank_kernels": [
        "machine",
        "loops",
        "checks",
        "fusion",
        "tiles",
        "codes",
        "cuda",
        "methods",
        "evaluation",
        "alignment",
        "online",
    ],
    "murank": [
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
        "crew",
        "rerank",
        "journal",
        "jobs",
        "search",
        "gallery",
        "worker",
        "service",
        "sheet",
        "report",
        "calibration",
        "bench",
        "doctor",
        "cli",
    ],
    "murank_export": [
        "sources",
        "world",
        "graphs",
        "mllm",
        "encoders",
        "engine",
        "adapt",
        "plan",
    ],
}
EACH = [(package, room) for package, rooms in ROOMS.items() for room in rooms]
# Private files in no room, below all of them; but for checks of the runtime.
LOOSE: dict[str, set[str]] = {
    "murank_kernels": {"_exceptions", "_types"},
    "murank": {"_exceptions", "_version"},
    "murank_export": set(),
}
ABOVE = {"__init__", "__main__", "_compile_all"}  # in no room, above all of them
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


def room_of(name: str, package: str) -> str | None:
    """Which room of a package a module is in; None: in none of them."""
    parts = name.split(".")
    return parts[1] if parts[0] == package and parts[1:] and parts[1] in ROOMS[package] else None


def rooms_used(package: str, room: str) -> dict[str, set[str]]:
    """Which rooms of its package each module of a room imports."""
    return {
        name: {used for other in IMPORTS[name] if (used := room_of(other, package))}
        for name in MODULES
        if room_of(name, package) == room
    }


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_are_those_of_the_table(package: str) -> None:
    top = ROOT / SOURCES[package] / package
    assert {path.parent.name for path in top.glob("*/__init__.py")} == set(ROOMS[package])
    assert len(ROOMS[package]) <= MOST_ROOMS
    assert {path.stem for path in top.glob("*.py")} - ABOVE == LOOSE[package]


@pytest.mark.parametrize(("package", "room"), EACH)
def test_no_import_runs_up(package: str, room: str) -> None:
    below = set(ROOMS[package][: ROOMS[package].index(room) + 1])
    above = {f"{package}.{name}" for name in ABOVE} | {package}
    for name, used in rooms_used(package, room).items():
        assert used <= below, name
        assert not above & {*IMPORTS[name]}, name


@pytest.mark.parametrize(("package", "room"), EACH)
def test_a_room_says_what_it_imports(package: str, room: str) -> None:
    used = set().union(*rooms_used(package, room).values()) - {room}
    path = MODULES[f"{package}.{room}"]
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    said = re.search(r"^Imports (.*)", text, re.DOTALL | re.MULTILINE)
    assert said is not None
    if said[1].startswith("all rooms"):
        assert room == ROOMS[package][-1]
        return
    assert used == {*re.findall(r"\w+", said[1])} & {*ROOMS[package]}


@pytest.mark.parametrize("package", ROOMS)
def test_the_loose_files_import_no_room(package: str) -> None:
    for name in LOOSE[package]:
        used = {room_of(other, package) for other in IMPORTS[f"{package}.{name}"]}
        assert used <= {None, "checks"}, name


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
