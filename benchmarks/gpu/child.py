"""`python -m gpu.child SECTION FILE CONTEXT`: run one section; its rows go to FILE."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from gpu.context import Context, read_context
from gpu.rows import CannotRun, Row

Section = Callable[[Context], Iterator[Row]]
SECTIONS = {  # name: module and function of gpu.sections
    "device": ("device", "rows"),
    "floor": ("floor", "rows"),
    "correctness": ("correctness", "rows"),
    "kernels": ("kernel_times", "rows"),
    "engine": ("engine", "rows"),
    "pytorch": ("pytorch", "rows"),
    "onnxruntime": ("runtimes", "onnxruntime_rows"),
    "tensorrt": ("runtimes", "tensorrt_rows"),
}


def section(name: str) -> Section:
    """Import one; what it needs is looked for when it runs."""
    module, function = SECTIONS[name]
    found: Section = getattr(importlib.import_module(f"gpu.sections.{module}"), function)
    return found


def rows_of(run: Section, context: Context) -> Iterator[Row]:
    """The section's rows, then one that says why if it cannot go on."""
    try:
        yield from run(context)
    except CannotRun as why:
        yield Row(what="the section", state="cannot run", note=f"cannot run because: {why}")


def main(name: str, file: str, context: str) -> None:
    """Run a section; anything but a CannotRun ends this process with a traceback."""
    with Path(file).open("a") as out:
        for row in rows_of(section(name), read_context(context)):
            out.write(row.to_json() + "\n")
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
