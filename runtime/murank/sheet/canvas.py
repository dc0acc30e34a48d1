"""Pictures by matplotlib, which is loaded when one is drawn: no display, no global state."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from murank.files.atomic import write_files
from murank.machine.library import library, pip_install

_DPI = 150


def canvas(inches: tuple[float, float]) -> tuple[Any, Any]:
    """Return an empty figure and what renders it; MachineError if matplotlib cannot be used."""
    agg = "matplotlib.backends.backend_agg"
    matplotlib: Any = library("matplotlib", "matplotlib.figure", agg, install=pip_install("plot"))
    figure = matplotlib.figure.Figure(figsize=inches, dpi=_DPI, layout="constrained")
    return figure, matplotlib.backends.backend_agg.FigureCanvasAgg(figure)


def check_drawing() -> None:
    """Raise MachineError unless there is what it takes to draw."""
    canvas((1.0, 1.0))


def write_plots(
    path: Path, inches: tuple[float, float], draw: Sequence[Callable[[Any], object]]
) -> None:
    """Draw axes side by side, each by its own function, and write them as a PNG.

    Raises
    ------
    MachineError
        matplotlib is not installed.
    OutputError
        The file cannot be written; nothing is half written.
    """
    figure, rendered = canvas(inches)
    for axes, one in zip(figure.subplots(1, len(draw)), draw, strict=True):
        one(axes)
    raw = BytesIO()
    rendered.print_png(raw)
    write_files(path.parent, {path.name: lambda file: file.write(raw.getvalue())})
