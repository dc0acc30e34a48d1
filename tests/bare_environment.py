"""Import every module and show every `--help` where nothing but the runtime's needs is installed.

A script. With `--simulate` it refuses every other third-party import, so that it can run anywhere.
"""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGES = ("murank_kernels", "murank")
# Of the build machine's package only the command line must show its help anywhere.
EXPORT = ("murank_export", "murank_export.engine.export_cli", "murank_export.adapt.adapt_cli")
ALLOWED = {
    *sys.stdlib_module_names, *PACKAGES, "murank_export", "numpy", "numba", "llvmlite",
    "threadpoolctl", "PIL", "safetensors",
}  # fmt: skip

# The room of `murank serve` needs the extra `serve`, and nobody else imports it.
SERVICE = "murank.service"
SERVICE_NEEDS = {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"}


class Refuse:
    """Finds no third-party module that the runtime does not need, installed or not."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name.partition(".")[0] in ALLOWED:
            return None
        raise ModuleNotFoundError(f"{name} is not part of the runtime", name=name)


def import_everything() -> int:
    """Import all modules and return how many there are."""
    for name in EXPORT:
        importlib.import_module(name)
    count = len(EXPORT)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for info in pkgutil.walk_packages(path, f"{package}."):
            try:
                importlib.import_module(info.name)
            except ModuleNotFoundError as error:
                needed = (error.name or "").partition(".")[0]
                if not info.name.startswith(f"{SERVICE}.") or needed not in SERVICE_NEEDS:
                    raise
            count += 1
    return count


def show_help() -> int:
    """Run `--help` of the command and of every verb; return how many there are."""
    from murank.cli import VERBS, main

    calls = [["--help"], *([verb, "--help"] for verb in VERBS)]
    for call in calls:
        code = main(call)
        assert code == 0, f"murank {' '.join(call)} returned {code}"
    return len(calls)


if __name__ == "__main__":
    if sys.argv[1:] == ["--simulate"]:
        sys.meta_path.insert(0, Refuse())
    print(f"{import_everything()} modules imported, {show_help()} help pages shown")
