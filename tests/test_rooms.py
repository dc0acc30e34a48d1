"""The order of the rooms: an import goes down, never up, and never round in a circle."""

from __future__ import annotations

import ast
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
LOOSE = {"_exceptions", "_version"}  # private files in no room, below all of them
LARGEST_ROOM, LONGEST_FILE = 24, 450


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
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
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
    assert len(ROOMS) <= LARGEST_ROOM
    assert {path.stem for path in top.glob("*.py")} == LOOSE | {"__init__", "__main__"}


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_up(room: str) -> None:
    below = ROOMS[: ROOMS.index(room) + 1]
    for name in (name for name in MODULES if room_of(name) == room):
        for other in IMPORTS[name]:
            assert room_of(other) is None or room_of(other) in below, f"{name} imports {other}"


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
