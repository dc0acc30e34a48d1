"""Metrics as a table: percent with two decimals."""

from collections.abc import Mapping, Sequence

from murank.rerank.metrics import Metrics

_CELL = 10  # characters, at least


def table(rows: Mapping[str, Metrics], columns: Sequence[str]) -> list[str]:
    """Return the lines of a table; "-" where a metric is not known."""
    width = max(len(name) for name in rows)
    cells = {key: max(_CELL, len(key) + 2) for key in columns}
    lines = [" " * width + "".join(f"{key:>{cell}}" for key, cell in cells.items())]
    for name, metrics in rows.items():
        values = (_cell(metrics.get(key), cell) for key, cell in cells.items())
        lines.append(f"{name:<{width}}" + "".join(values))
    return lines


def gain(before: Metrics, after: Metrics, columns: Sequence[str]) -> str:
    """Return the cells of after minus before, signed."""
    cells = []
    for key in columns:
        old, new = before.get(key), after.get(key)
        cells.append(f"{'-':>10}" if old is None or new is None else f"{100 * (new - old):>+10.2f}")
    return "".join(cells)


def _cell(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{100 * value:>{width}.2f}"
