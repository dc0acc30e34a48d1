"""What jobs cost: a section each, by `--only NAME`; without it, all of them.

    python benchmarks/jobs.py --only features                 re-rank 100,000 x 512 features
    python benchmarks/jobs.py --only features --before DIR    the same, in turn with another tree
    python benchmarks/jobs.py --only strips                   compare pairs of strips, as workers do

Each figure is of a process of its own: CPU seconds of all threads, the largest resident set, its
own files included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
DIM, NUM_QUERY = 512, 4000


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    cpu: float  # seconds of all threads
    peak: float  # MB


@dataclass(frozen=True)
class Setting:
    """What a section is run with."""

    num_rows: int
    trees: Mapping[str, Path]  # "now", and "before" where it was named
    place: Path


def made_features(num_rows: int) -> dict[str, NDArray[Any]]:
    """People of twenty images each, so noisy that neighbours are not only their own."""
    random = np.random.default_rng(0)
    people = random.standard_normal((max(1, num_rows // 20), DIM), np.float32)
    pids = random.integers(0, len(people), num_rows)
    features = np.empty((num_rows, DIM), np.float32)
    for start in range(0, num_rows, 8192):
        some = slice(start, start + 8192)
        noise = random.standard_normal(features[some].shape, np.float32)
        features[some] = people[pids[some]] + np.float32(1.2) * noise
    camids = random.integers(0, 6, num_rows)
    num_query = np.array(min(NUM_QUERY, num_rows // 2))
    return {"features": features, "pids": pids, "camids": camids, "num_query": num_query}


def _path(tree: Path) -> str:
    return os.pathsep.join(str(tree / folder) for folder in ("export", "runtime", "kernels"))


def cost_of(tree: Path, *words: object) -> Cost:
    """Run `murank` of a tree of this repository."""
    child = subprocess.Popen(
        [sys.executable, "-m", "murank", *map(str, words)],
        env={**os.environ, "PYTHONPATH": _path(tree)}, stdout=subprocess.DEVNULL, cwd=tree,
    )  # fmt: skip
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"murank {words[0]} failed")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def features(setting: Setting) -> None:
    """Re-rank features alone: no job, no engine."""
    arrays = made_features(setting.num_rows)
    files = {"no labels": setting.place / "plain.npz", "labels": setting.place / "labels.npz"}
    np.savez(files["labels"], **arrays)  # type: ignore[arg-type]
    np.savez(files["no labels"], features=arrays["features"], num_query=arrays["num_query"])
    del arrays
    print(f"\nre-ranking {setting.num_rows:,} x {DIM} features, k-reciprocal (defaults)")
    for labels, file in files.items():
        for name, tree in setting.trees.items():
            found = cost_of(
                tree, "rerank", file, "--method", "k-reciprocal", "--align-cameras", "off",
                "-o", setting.place / f"{labels}-{name}", "--quiet",
            )  # fmt: skip
            print(
                f"  {labels:<10} {name:<7} {found.cpu:6.1f} CPU s  {found.peak:5.0f} MB", flush=True
            )


STRIPS = """
import sys, time
from pathlib import Path
import numpy as np
from murank.rerank.strip_crew import MakeStripWork, StripPairUnit
from murank_kernels.tiles.lists import Lists
from murank_kernels.tiles.strips import STRIP, bounds_of
work = MakeStripWork(Path(sys.argv[1]), 15)()
lists = Lists.start(len(work.arrays["features"]), 15, with_cameras=False)
seconds = []
for pair in [(s, s) for s in range(6)] + [(s, s + 1) for s in range(5)] + [(0, 2), (1, 3), (2, 4)]:
    unit = StripPairUnit(pair, bounds_of(pair, lists))
    start = time.process_time()
    for first, found in work.finish(unit, None):
        lists.merge(found, first)
    seconds.append(time.process_time() - start)
print(sum(seconds[-3:]) / 3 / STRIP**2)
"""


def strips(setting: Setting) -> None:
    """Compare pairs of strips as a worker does, which maps the features of all rows."""
    from murank_kernels.checks.validate import as_features
    from murank_kernels.fusion.changes import Changes
    from murank_kernels.tiles.distances import squared_norms

    rows = as_features(made_features(setting.num_rows)["features"], normalize=True)
    changes = vars(Changes.none(len(rows)))
    arrays = {"features": rows, "norms": squared_norms(rows), "cameras": np.empty(0, np.int32)}
    for name, array in {**arrays, **changes}.items():
        np.save(setting.place / f"{name}.npy", array)
    print(f"\nneighbours of {setting.num_rows:,} x {DIM} features by pairs of strips")
    child = subprocess.Popen(
        [sys.executable, "-c", STRIPS, str(setting.place)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": _path(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    each = float(child.stdout.read())
    _, _, used = os.wait4(child.pid, 0)
    print(f"  {1e9 * each:.1f} ns CPU a pair; a worker's peak {used.ru_maxrss * 1024 / 1e6:.0f} MB")
    print(f"  1,000,000 rows would take {each * 5e11:,.0f} CPU s (reckoned, not measured)")


SECTIONS: dict[str, Callable[[Setting], None]] = {"features": features, "strips": strips}


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description="What jobs cost.")
    parser.add_argument("--only", choices=SECTIONS, metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument("--before", type=Path, metavar="DIR", help="another tree, to compare with")
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="(100,000)")
    args = parser.parse_args()
    trees = {} if args.before is None else {"before": args.before.resolve()}
    for name, section in SECTIONS.items():
        if args.only in (None, name):
            with tempfile.TemporaryDirectory() as place:
                section(Setting(args.rows, {**trees, "now": ROOT}, Path(place)))


if __name__ == "__main__":
    main()
