"""Pictures by matplotlib, which is loaded when one is drawn: no display, no global state."""

from io import BytesIO
from pathlib import Path
from typing import Any

from murank.files.atomic import write_files
from murank.machine.library import library

_DPI = 150


def canvas(inches: tuple[float, float]) -> tuple[Any, Any]:
    """Return an empty figure and what renders it; MachineError if matplotlib cannot be used."""
    agg = "matplotlib.backends.backend_agg"
    matplotlib: Any = library(
        "matplotlib", "matplotlib.figure", agg, install="install murank with its extra 'plot'"
    )
    figure = matplotlib.figure.Figure(figsize=inches, dpi=_DPI, layout="constrained")
    return figure, matplotlib.backends.backend_agg.FigureCanvasAgg(figure)


def write_png(path: Path, rendered: Any) -> None:
    """Write what a canvas holds, whole or not at all; OutputError if it cannot be written."""
    raw = BytesIO()
    rendered.print_png(raw)
    write_files(path.parent, {path.name: lambda file: file.write(raw.getvalue())})
