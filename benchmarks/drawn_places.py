"""What the MLLM adds on drawn places: README's second table of "Does it help?".

    python benchmarks/drawn_places.py                      # the shipped miniature, as `make demo`
    python benchmarks/drawn_places.py --engine engine/     # another engine

Each place is drawn, ranked and compared by the command itself, with aligned features and with
features as they are; each time candidates are chosen on the features that are ranked.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from murank.cli import main as murank
from murank_export.world import TRAINING, UNSEEN

DOMAINS = (TRAINING, *UNSEEN)
DRAWN = ("--people", 60, "--distractors", 60, "--seed", 2026, "--place", 2026)  # as `make demo`
MINIATURE = Path(__file__).parent / "miniature" / "engine"
Row = Mapping[str, Any]  # of `murank evaluate --json`


def told(*words: object) -> dict[str, Any]:
    """Return what a verb prints as JSON; SystemExit where it fails, which it has explained."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = murank([*map(str, words), "--json", "--quiet"])
    if code:
        raise SystemExit(code)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def compared(engine: Path, place: Path, level: str) -> list[Row]:
    """Score a place, and compare with and without mu."""
    job = place / f"job-{level}"
    told(
        "score", engine, "--dataset", "market1501", "--root", place, "--candidates", 10,
        "--align-cameras", level, "-o", job, "--overwrite",
    )  # fmt: skip
    rows: list[Row] = told("evaluate", job)["rows"]
    return rows


def column(engine: Path, domain: str, work: Path) -> dict[str, str]:
    """Draw a place, and return the cells of its column."""
    place = work / domain
    told("world", "-o", place, "--domain", domain, *DRAWN, "--overwrite")
    aligned, as_is = (compared(engine, place, level) for level in ("auto", "off"))

    def mean(row: Row) -> str:
        return f"{100 * row['metrics']['mAP']:.1f}"

    def interval(row: Row) -> str:
        return f"{100 * row['gain']['low']:+.1f} to {100 * row['gain']['high']:+.1f}"

    fused = _row(aligned, "k-reciprocal", "mu")
    return {
        "encoder": mean(aligned[0]),
        "encoder, aligned": mean(aligned[1]),
        "k-reciprocal, aligned": mean(_row(aligned, "k-reciprocal", "none")),
        "k-reciprocal + mu, aligned": mean(fused),
        "mu adds (95 % interval)": interval(fused),
        "mu adds to features as they are": interval(_row(as_is, "k-reciprocal", "mu")),
    }


def _row(rows: Sequence[Row], name: str, fused: str) -> Row:
    return next(row for row in rows if (row["name"], row["fused"]) == (name, fused))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, default=MINIATURE, help="the shipped miniature")
    parser.add_argument("--work", type=Path, default=Path("try/drawn-places"))
    arguments = parser.parse_args()
    names = [f"{one} (in domain)" if one == TRAINING else one for one in DOMAINS]
    columns = [column(arguments.engine, domain, arguments.work) for domain in DOMAINS]
    print(f"|  | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(cells[name] for cells in columns)} |")


if __name__ == "__main__":
    main()
