"""Time and memory of the re-ranking kernels against the dense NumPy way, in one table.

    python benchmarks/kernels.py                   everything, three interleaved rounds
    python benchmarks/kernels.py --rounds 1        quicker
    python benchmarks/kernels.py --only market     one section: market, msmt, growth

Each figure is taken in a process of its own: kernels are compiled and loaded on a small input
first, then one call is timed. CPU seconds count all threads; memory is the largest resident set of
the process, inputs included. Figures are medians over the rounds, which run the contenders in turn
(MSMT17 size: one round).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
DIM = 512
SIZES = {  # queries, gallery, identities, cameras
    "market": (3368, 15913, 1501, 6),
    "msmt": (11659, 82161, 4101, 15),
    "warm": (40, 560, 60, 3),
    **{f"n{n}": (n // 6, n - n // 6, n // 13, 6) for n in (5000, 10000, 20000, 40000)},
}
FiveArrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
ZHONG: dict[str, Any] = {"k1": 20, "k2": 6, "lambda_value": 0.3, "squared": True}


def make_inputs(size: str) -> dict[str, NDArray[Any]]:
    """Clustered unit features with a shift per camera, and noisy mu for the ten nearest."""
    num_query, num_gallery, num_ids, num_cameras = SIZES[size]
    random = np.random.default_rng(7)
    total = num_query + num_gallery
    pids = np.r_[np.arange(num_query) % num_ids, random.integers(0, num_ids, num_gallery)]
    camids = random.integers(0, num_cameras, total)
    people = random.standard_normal((num_ids, DIM), np.float32)
    cameras = random.standard_normal((num_cameras, DIM), np.float32)
    features = np.empty((total, DIM), np.float32)
    for start in range(0, total, 4096):
        part = slice(start, start + 4096)
        noise = random.standard_normal(features[part].shape, np.float32)
        features[part] = people[pids[part]] + 0.5 * cameras[camids[part]] + 1.2 * noise
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    candidates = np.empty((num_query, 10), np.int64)
    for start in range(0, num_query, 512):
        part = slice(start, min(num_query, start + 512))
        candidates[part] = np.argsort(-(features[part] @ features[num_query:].T), axis=1)[:, :10]
    same = pids[:num_query, None] == pids[num_query:][candidates]
    mu = np.clip(random.normal(np.where(same, 0.25, 0.75), 0.2), 0, 1).astype(np.float32)
    return {
        "features": features, "pids": pids, "camids": camids, "mu": mu, "candidates": candidates
    }  # fmt: skip


class Contender:
    """Holds the input; each method is one call to time, named as in the table."""

    def __init__(self, size: str, folder: Path) -> None:
        self.num_query = SIZES[size][0]
        self._folder = folder / size

    def _load(self, *names: str) -> list[NDArray[Any]]:
        return [np.load(self._folder / f"{name}.npy") for name in names]

    def sgemm(self) -> Callable[[], object]:
        """Full N x N product of the features, nothing kept: twice the FLOPs that symmetry needs."""
        (x,) = self._load("features")

        def product() -> None:
            for start in range(0, len(x), 2048):
                x[start : start + 2048] @ x.T

        return product

    def dense(self) -> Callable[[], object]:
        """k-reciprocal as the field writes it: N x N matrices, NumPy, float32."""
        sys.path.insert(0, str(ROOT / "tests"))
        from dense_reference import ref_k_reciprocal

        (x,) = self._load("features")
        return lambda: ref_k_reciprocal(x, self.num_query, dtype=np.float32, **ZHONG)

    def k_reciprocal(self) -> Callable[[], object]:
        from murank_kernels import k_reciprocal

        (x,) = self._load("features")
        return lambda: k_reciprocal(x, self.num_query, **ZHONG)

    def k_reciprocal_mu(self) -> Callable[[], object]:
        from murank_kernels import k_reciprocal

        x, mu, candidates = self._load("features", "mu", "candidates")
        return lambda: k_reciprocal(x, self.num_query, mu=mu, candidates=candidates, **ZHONG)

    def k_reciprocal_top100(self) -> Callable[[], object]:
        from murank_kernels import k_reciprocal

        (x,) = self._load("features")
        return lambda: k_reciprocal(x, self.num_query, top_k=100, **ZHONG)

    def ca_jaccard(self) -> Callable[[], object]:
        from murank_kernels import ca_jaccard

        x, camids = self._load("features", "camids")
        return lambda: ca_jaccard(x, self.num_query, camids)

    def ecn_rankdist(self) -> Callable[[], object]:
        from murank_kernels import ecn

        (x,) = self._load("features")
        return lambda: ecn(x, self.num_query)

    def ecn_origdist(self) -> Callable[[], object]:
        from murank_kernels import ecn

        (x,) = self._load("features")
        return lambda: ecn(x, self.num_query, method="origdist")

    def _distances_and_labels(self) -> FiveArrays:
        from murank_kernels import simple

        x, pids, camids = self._load("features", "pids", "camids")
        q = self.num_query
        distances = simple(x, q)
        assert isinstance(distances, np.ndarray)
        return distances, pids[:q], pids[q:], camids[:q], camids[q:]

    def evaluate_rank(self) -> Callable[[], object]:
        from murank_kernels import evaluate_rank

        arguments = self._distances_and_labels()
        return lambda: evaluate_rank(*arguments)

    def evaluate_loop(self) -> Callable[[], object]:
        """Evaluate as the field writes it: one sort and one Python step a query."""
        sys.path.insert(0, str(ROOT / "tests"))
        from dense_reference import ref_evaluate_rank

        arguments = self._distances_and_labels()
        return lambda: ref_evaluate_rank(*arguments)


def measure(name: str, size: str, folder: Path) -> None:
    """Run in a child: print one JSON line of figures."""
    getattr(Contender("warm", folder), name)()()
    call = getattr(Contender(size, folder), name)()
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    figures = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    figures["gib"] = peak_gib()
    if isinstance(result, np.ndarray) and size == "market" and name in ("dense", "k_reciprocal"):
        np.save(folder / f"out_{name}.npy", result)
    print(json.dumps(figures))


def peak_gib() -> float:
    """Largest resident set of this process; getrusage would count its parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    raise SystemExit("peak memory is read from /proc, which this machine does not have")


def run_child(name: str, size: str, folder: Path) -> dict[str, float]:
    """Measure one contender in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, size, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_section(size: str, names: list[str], rounds: int, folder: Path) -> dict[str, Any]:
    """Run the contenders of one size in turn; medians of each figure."""
    (folder / size).mkdir(exist_ok=True)
    for name, array in make_inputs(size).items():
        np.save(folder / size / f"{name}.npy", array)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names:
            print(f"{size}: round {turn + 1}/{rounds} {name}", file=sys.stderr)
            runs[name].append(run_child(name, size, folder))
    return {
        name: {key: statistics.median(run[key] for run in figures) for key in figures[0]}
        for name, figures in runs.items()
    }


def print_rows(title: str, table: dict[str, Any], against: str = "") -> None:
    """Print one section: figures, CPU ratio to the `against` row, wall ratio to the sgemm row."""
    heads, rules = ["", "wall s", "CPU s", "peak GiB"], ["---", "---:", "---:", "---:"]
    heads += [f"CPU of {against} / CPU"] if against else []
    heads += ["wall / sgemm"] if "sgemm" in table else []
    rules += ["---:"] * (len(heads) - len(rules))
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n| {' | '.join(rules)} |")
    for name, row in table.items():
        cells = [name, f"{row['wall']:.2f}", f"{row['cpu']:.2f}", f"{row['gib']:.2f}"]
        if against:
            cells.append(f"{table[against]['cpu'] / row['cpu']:.1f}")
        if "sgemm" in table:
            cells.append(f"{row['wall'] / table['sgemm']['wall']:.2f}")
        print(f"| {' | '.join(cells)} |")


def print_growth(tables: dict[int, dict[str, Any]]) -> None:
    """Print how time and memory grow with N."""
    print("\nGrowth with N, k_reciprocal_top100\n")
    print("| N | wall s | CPU s | peak GiB | wall / sgemm |\n|---:|---:|---:|---:|---:|")
    for size, table in tables.items():
        row = table["k_reciprocal_top100"]
        share = row["wall"] / table["sgemm"]["wall"]
        print(f"| {size} | {row['wall']:.2f} | {row['cpu']:.2f} | {row['gib']:.2f} | {share:.2f} |")


def agreement(folder: Path) -> str:
    """Compare the two Market-size results entry by entry."""
    ours = np.load(folder / "out_k_reciprocal.npy", mmap_mode="r")
    theirs = np.load(folder / "out_dense.npy", mmap_mode="r")
    apart = np.abs(np.asarray(ours) - np.asarray(theirs))
    share = float((apart > 2e-6).mean())
    return f"k_reciprocal against dense: median {np.median(apart):.1e}, {share:.1e} beyond 2e-6"


def machine() -> str:
    """Name the machine and the versions."""
    import numba

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{model}, {cores} cores; {versions}, Numba {numba.__version__}"


def main() -> None:
    """Run the asked-for sections and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["market", "msmt", "growth"])
    parser.add_argument("--skip-dense", action="store_true", help="leave out the NumPy way")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, size, folder = arguments.measure
        measure(name, size, Path(folder))
        return
    with tempfile.TemporaryDirectory() as temporary:
        sections(arguments, Path(temporary))


def sections(arguments: argparse.Namespace, folder: Path) -> None:
    """Print a table per section."""
    print(f"Machine: {machine()}; medians of {arguments.rounds} rounds; D = {DIM}")
    (folder / "warm").mkdir()
    for name, array in make_inputs("warm").items():
        np.save(folder / "warm" / f"{name}.npy", array)
    wanted = [arguments.only] if arguments.only else ["market", "msmt", "growth"]
    if "market" in wanted:
        names = ["sgemm", "k_reciprocal", "k_reciprocal_mu", "k_reciprocal_top100", "ca_jaccard"]
        names += ["ecn_rankdist", "ecn_origdist"]
        names += [] if arguments.skip_dense else ["dense"]
        table = run_section("market", names, arguments.rounds, folder)
        against = "" if arguments.skip_dense else "dense"
        print_rows("Market-1501 size (3368 + 15913), k1=20, k2=6", table, against)
        if not arguments.skip_dense:
            print(f"\n{agreement(folder)}")
        table = run_section("market", ["evaluate_rank", "evaluate_loop"], arguments.rounds, folder)
        print_rows("Evaluation, Market-1501 size", table, "evaluate_loop")
    if "msmt" in wanted:
        names = ["sgemm", "k_reciprocal_top100", "k_reciprocal"]
        table = run_section("msmt", names, 1, folder)
        print_rows("MSMT17 size (11659 + 82161), k1=20, k2=6, one round", table)
    if "growth" in wanted:
        names = ["sgemm", "k_reciprocal_top100"]
        numbers = (5000, 10000, 20000, 40000)
        print_growth({n: run_section(f"n{n}", names, arguments.rounds, folder) for n in numbers})


if __name__ == "__main__":
    main()
