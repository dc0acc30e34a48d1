"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from photos.figures import Score


def scores_table(title: str, rows: Mapping[str, Mapping[str, Score]]) -> str:
    """Figures (mAP/rank-1) of named rows; a cell that is not measured is a dash."""
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    filled = {
        name: [_cell(cells[column]) if column in cells else "-" for column in columns]
        for name, cells in rows.items()
    }
    return table(title, columns, filled)


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Return a table under a title."""
    lines = [f"**{title}**", "", f"|  | {' | '.join(columns)} |"]
    lines.append("|---|" + "---:|" * len(columns))
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def mean_of(figures: Sequence[Mapping[str, Mapping[str, Score]]]) -> dict[str, dict[str, Score]]:
    """Mean over random halves of one set, cell by cell."""
    return {
        row: {column: mean_score([one[row][column] for one in figures]) for column in cells}
        for row, cells in figures[0].items()
    }


def by_set(
    found: Mapping[str, Mapping[str, Mapping[str, Score]]], column: str
) -> dict[str, dict[str, Score]]:
    """Turn figures of sets into rows of one column: row -> set -> score."""
    rows: dict[str, dict[str, Score]] = {}
    for name, figures in found.items():
        for row, cells in figures.items():
            if column in cells:
                rows.setdefault(row, {})[name] = cells[column]
    return rows


def gains_table(title: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """What mu adds in mAP, with 95 % intervals over queries: a row a set, level, seed, method."""
    columns: list[str] = []
    rows = {}
    for name, figures in found.items():
        for seed, one in figures.items():
            for method, gains in one["gains"].items():
                columns = list(gains)
                cells = [_interval(gain) for gain in gains.values()]
                rows[f"{name}, {seed}, {method}"] = [f"{one['mAP'][method]:.1f}", *cells]
    return table(title, ["mAP without mu", *columns], rows)


def auc_table(title: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """AUC among the candidates: a row a set, level and seed."""
    columns: list[str] = []
    rows = {}
    for name, figures in found.items():
        for seed, one in figures.items():
            columns = list(one["auc"])
            rows[f"{name}, {seed}"] = [
                " / ".join(f"{100 * value:.1f}" for value in values)
                for values in one["auc"].values()
            ]
    return table(title, columns, rows)


def _interval(gain: Mapping[str, float]) -> str:
    mean, low, high = (100 * gain[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _cell(score: Score) -> str:
    return f"{score[0]:.1f}/{score[1]:.1f}"


def mean_score(scores: Sequence[Score]) -> Score:
    """Mean of several draws or halves."""
    mean = np.mean(scores, axis=0)
    return float(mean[0]), float(mean[1])
