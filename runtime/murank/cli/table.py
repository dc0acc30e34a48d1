"""Metrics as a table: percent with two decimals."""

from collections.abc import Mapping, Sequence

from murank.rerank.metrics import Metrics


def table(rows: Mapping[str, Metrics], columns: Sequence[str]) -> list[str]:
    """Return the lines of a table; "-" where a metric is not known."""
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{name:>10}" for name in columns)]
    for name, metrics in rows.items():
        lines.append(f"{name:<{width}}" + "".join(_cell(metrics.get(key)) for key in columns))
    return lines


def gain(before: Metrics, after: Metrics, columns: Sequence[str]) -> str:
    """Return the cells of after minus before, signed."""
    cells = []
    for key in columns:
        old, new = before.get(key), after.get(key)
        cells.append(f"{'-':>10}" if old is None or new is None else f"{100 * (new - old):>+10.2f}")
    return "".join(cells)


def _cell(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{100 * value:>10.2f}"
