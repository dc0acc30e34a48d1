"""What threads gain, waste and use: 1, 2, 4, 8, ... of the cores that this process may use.

    python benchmarks/cores.py                              the miniature, and the kernels
    python benchmarks/cores.py --engine fp32/ int8/         engines of your own, one after the other
    python benchmarks/cores.py --engine DIR --candidates 20 --rounds 5

On an engine: one query of K candidates whose vision tokens are known (prefill and score), and the
vision tokens of 8 images; in onnxruntime, and where it takes the engine in OpenVINO (float32, and
bf16 where the CPU has it). Then k-reciprocal re-ranking of 4,000 x 512 made features.

speed-up     wall of one thread / wall
efficiency   speed-up / threads: 1 is a core well used
split        CPU seconds of one thread / those of the busiest: the speed-up if none ever waited for
             another, or for other processes. Kernels end their threads, which tell no more.
CPU ratio    CPU seconds / those of one thread: 1 is no work that only threads make
most at once threads that ran, or waited for a core, at one time, for a twentieth of the time or
             more (a caller hands out work while others begin): more than asked for would be
             oversubscription. Calls that are watched are not timed.

In the last row of each the process may use one core and is told nothing of threads: one should
run, and take no longer than where one is asked for.

Each row is a process of its own, one that waits for its turn while another is measured; figures
are medians over the rounds. With more cores than this machine has there are more rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from kernels import machine
from numpy.typing import NDArray
from running_threads import RunningThreads, cpu_seconds

from murank import MurankError
from murank.folder.manifest import read_manifest
from murank.folder.precision import ARITHMETIC
from murank_kernels.machine.cores import usable_cores

MINIATURE = Path(__file__).resolve().parent / "miniature" / "engine"
KERNELS = "numba"
IMAGES, ROWS, DIM = 8, 4000, 512
ALONE = 0  # threads of a process that may use one core: it chooses
_LOOKS = 40  # at what runs, in calls that are not timed
_LONGEST = 5.0  # seconds for them
_REST = 0.002  # seconds until the account of a thread is complete
_TIMES = ("wall", "cpu", "busiest")
Row = dict[str, float]
Calls = dict[str, Callable[[], object]]  # what is measured, ready to be called


def steps(cores: int) -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    found = [1 << i for i in range(cores.bit_length())]
    return [*[step for step in found if step < cores], cores]


def engine_calls(job: dict[str, Any]) -> Calls:
    """A query, and vision of images that were never seen."""
    from murank import Engine

    backend, candidates = job["backend"], job["candidates"]
    engine = Engine.from_pretrained(
        job["engine"], threads=job["threads"] or None, parts=["scorer"], plans=Path(job["plans"]),
        providers="cpu" if backend == "onnxruntime" else "openvino",
        products="bf16" if backend.endswith("bf16") else "float32",
    )  # fmt: skip
    scorer, random = engine.need_scorer(), np.random.default_rng(0)
    how = scorer.part.preprocessing

    def images(count: int) -> list[NDArray[np.uint8]]:
        return list(random.integers(0, 256, (count, 3, how.height, how.width), np.uint8))

    known, query = scorer.vision.of(images(candidates)), scorer.vision.of(images(1))
    return {
        f"query, {candidates} candidates": lambda: scorer.decoder.logits(
            scorer.decoder.prefill(query), known[None]
        ),
        f"vision, {IMAGES} images": lambda: scorer.vision.of(images(IMAGES)),
    }


def kernel_calls(threads: int | None) -> Calls:
    """Re-rank made features."""
    import numba
    from made_features import make_features

    from murank_kernels import k_reciprocal

    made = make_features(num_ids=200, num_distractors=ROWS // 2, dim=DIM)
    features, count = made.features[-ROWS:], ROWS // 8
    if threads is not None:
        numba.set_num_threads(threads)
    return {f"k-reciprocal, {ROWS} x {DIM}": lambda: k_reciprocal(features, count)}


def child(job: dict[str, Any]) -> None:
    """Measure a round a line that comes in, and answer with a line."""
    try:
        calls = engine_calls(job) if "engine" in job else kernel_calls(job["threads"] or None)
        seen = {name: watched(call) for name, call in calls.items()}
    except MurankError as error:  # not on this machine
        print(json.dumps({"cannot": str(error)}), flush=True)
        return
    print("{}", flush=True)
    for _ in sys.stdin:
        found = {name: seen[name] | timed(call) for name, call in calls.items()}
        print(json.dumps(found), flush=True)


def watched(call: Callable[[], object]) -> Row:
    """Count threads, of as many calls as it takes; the first is not looked at."""
    call()
    end = time.perf_counter() + _LONGEST
    with RunningThreads() as running:
        while running.looks < _LOOKS and time.perf_counter() < end:
            call()
    return {"most": running.most(), "bound": len(running.bound)}


def timed(call: Callable[[], object]) -> Row:
    """Time one call, and the thread that worked most."""
    before, cpu, wall = cpu_seconds(), time.process_time(), time.perf_counter()
    call()
    row = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    time.sleep(_REST)
    each = [seconds - before.get(thread, 0) for thread, seconds in cpu_seconds().items()]
    return row | {"busiest": max(each)}


@contextmanager
def started(job: dict[str, Any]) -> Iterator[Callable[[], dict[str, Row]]]:
    """Start a child; what is yielded measures a round. MurankError where it cannot run."""
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    mine = os.sched_getaffinity(0)
    if job["threads"] == ALONE:
        os.sched_setaffinity(0, {max(mine)})  # which the child inherits
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    finally:
        os.sched_setaffinity(0, mine)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = iter(process.stdout)

        def answer() -> dict[str, Any]:
            line = next(answers, None)
            if line is None:
                raise MurankError(f"its process ended ({process.wait()}): see above")
            found: dict[str, Any] = json.loads(line)
            return found

        if (cannot := answer().get("cannot")) is not None:
            raise MurankError(cannot)

        def measure() -> dict[str, Row]:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended: `answer` says so
                os.write(process.stdin.fileno(), b"go\n")  # no buffer, which would fail again
            return answer()

        yield measure


def run(job: dict[str, Any], threads: Sequence[int], rounds: int) -> dict[str, dict[int, Row]]:
    """Return medians by what was measured, and threads."""
    found: dict[str, dict[int, list[Row]]] = {}
    with ExitStack() as stack:
        children = {n: stack.enter_context(started({**job, "threads": n})) for n in threads}
        for turn in range(rounds):
            print(f"{job['title']}: round {turn + 1}/{rounds}", file=sys.stderr)
            for n, measure in children.items():
                for name, row in measure().items():
                    found.setdefault(name, {}).setdefault(n, []).append(row)
    return {name: {n: _middle(rows) for n, rows in by.items()} for name, by in found.items()}


def _middle(rows: list[Row]) -> Row:
    middle = {key: statistics.median(row[key] for row in rows) for key in _TIMES}
    return rows[0] | middle


def jobs(engines: Sequence[Path], candidates: int, plans: str) -> list[dict[str, Any]]:
    """What there is to measure; what is compiled goes to `plans`."""
    found = []
    for folder in engines:
        precision = read_manifest(folder).precision
        takes = "openvino" in ARITHMETIC[precision].backends
        for backend in ("onnxruntime", *(("OpenVINO", "OpenVINO bf16") if takes else ())):
            title = f"{precision} {backend}"
            job = {"engine": str(folder), "backend": backend, "candidates": candidates}
            found.append({"title": title, **job, "plans": plans})
    return [*found, {"title": KERNELS}]


def lines(title: str, name: str, rows: dict[int, Row]) -> Iterator[str]:
    """One line of the table for each number of threads."""
    one = rows[1]
    for n, row in rows.items():
        gain = one["wall"] / row["wall"]
        split = f"{one['busiest'] / row['busiest']:.2f}" if title != KERNELS else ""
        cells = [
            f"{name}, {title}", str(n or "one core, not told"), f"{1000 * row['wall']:.1f}",
            f"{1000 * row['cpu']:.1f}", f"{gain:.2f}", f"{gain / (n or 1):.2f}", split,
            f"{row['cpu'] / one['cpu']:.2f}", f"{row['most']:.0f}",
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Read the arguments; a child measures, its parent reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, nargs="+", default=[MINIATURE], metavar="DIR")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    cpu_seconds()  # or say that this system does not tell
    with tempfile.TemporaryDirectory() as plans:
        report(jobs(arguments.engine, arguments.candidates, plans), arguments.rounds)


def report(wanted: Sequence[dict[str, Any]], rounds: int) -> None:
    """Measure, and print the table."""
    cores = usable_cores()
    print(f"Machine: {machine()}; of them usable: {cores}; medians of {rounds} rounds\n")
    heads = ["", "threads", "wall ms", "CPU ms", "speed-up", "efficiency", "split", "CPU ratio"]
    print(f"| {' | '.join([*heads, 'most at once'])} |\n|---|{'---:|' * len(heads)}")
    bound, cannot = 0.0, []
    for job in wanted:
        try:
            found = run(job, [*steps(cores), ALONE], rounds)
        except MurankError as error:
            cannot.append(f"{job['title']} is not here: {error}")
            continue
        for name, rows in found.items():
            print(*lines(job["title"], name, rows), sep="\n", flush=True)
            bound += sum(row["bound"] for row in rows.values())
    print(f"\nThreads bound to fewer cores than their process: {bound:.0f}.", *cannot, sep="\n")
    print(f"What {2 * cores} cores would give: python {' '.join(sys.argv)} on a machine with them.")


if __name__ == "__main__":
    main()
