"""Who may import whom, and that the runtime needs nothing more than it says."""

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_environment import SERVICE_NEEDS

from murank.cli import VERBS

ROOT = Path(__file__).parents[1]
KERNELS, RUNTIME, EXPORT = "murank_kernels", "murank", "murank_export"
FOLDERS = {KERNELS: "kernels", RUNTIME: "runtime", EXPORT: "export"}
THIRD_PARTIES = {
    KERNELS: {"numpy", "numba", "threadpoolctl"},
    RUNTIME: {
        "numpy",
        "numba",
        "threadpoolctl",
        "PIL",
        "onnxruntime",
        "safetensors",
        "matplotlib",
        "pyarrow",
        "pymilvus",
        "ray",
        "onnx",  # where they are asked for
    },
}
OWN = {KERNELS: {KERNELS}, RUNTIME: {RUNTIME, KERNELS}, EXPORT: {EXPORT, RUNTIME, KERNELS}}
NEVER = {"tests", "benchmarks"} | {path.stem for path in (ROOT / "tests").glob("*.py")}


def imported(file: Path, package: str) -> Iterator[str]:
    """Top-level names that a file imports, at any depth of the code."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else (node.module or "").partition(".")[0]


@functools.cache
def imports_of(package: str) -> set[tuple[str, str]]:
    folder = ROOT / FOLDERS[package] / package
    files = sorted(folder.rglob("*.py"))
    assert files
    return {
        (name, str(file.relative_to(ROOT))) for file in files for name in imported(file, package)
    }


@pytest.mark.parametrize("package", [KERNELS, RUNTIME])
def test_only_what_is_allowed(package: str) -> None:
    allowed = sys.stdlib_module_names | THIRD_PARTIES[package] | OWN[package]
    others = {(name, file) for name, file in imports_of(package) if name not in allowed}
    of_service = {(name, file) for name, file in others if "murank/service/" in file}
    assert {name for name, _ in of_service} <= SERVICE_NEEDS
    assert others - of_service == set()


@pytest.mark.parametrize("package", FOLDERS)
def test_packages_never_import_tests_or_benchmarks(package: str) -> None:
    assert {(name, file) for name, file in imports_of(package) if name in NEVER} == set()


def test_bare_environment() -> None:
    paths = os.pathsep.join(str(ROOT / folder) for folder in FOLDERS.values())
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "bare_environment.py"), "--simulate"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"murank {verb}" in done.stdout
