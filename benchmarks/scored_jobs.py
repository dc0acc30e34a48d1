"""What `murank score` reuses, what its journal costs, how it spreads: a section each.

    python benchmarks/scored_jobs.py                       all sections, 1,000 queries
    python benchmarks/scored_jobs.py --queries 5000        as in docs/scale.md
    python benchmarks/scored_jobs.py --only reuse

The job is of drawn crops and the shipped miniature. CPU seconds are of all threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from made_crops import draw

from murank.journal import Journal, MadeBy

ENGINE = Path(__file__).parent / "miniature" / "engine"
K, ROUNDS = 10, 3
_PAIRS, _UNIT = 1_000_000, 8
# What a sample is in, by a file on the stack, innermost first.
_WORK = {
    "onnxruntime": "graphs", "PIL": "decoding", "images": "decoding", "tiles": "products",
    "journal": "journal", "atomic.py": "journal", "stage.py": "journal",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What a section is run with."""

    queries: int
    place: Path

    @property
    def crops(self) -> Path:
        """Folder of the data set, drawn at the first use."""
        return self.place / "crops"

    def score(self, job: object, *options: object) -> list[str]:
        """Return the words of a run."""
        source = ["--query", self.crops / "query", "--gallery", self.crops / "gallery"]
        words = [
            "score",
            ENGINE,
            *source,
            "-o",
            self.place / str(job),
            "--quiet",
            "--json",
            *options,
        ]
        return [str(word) for word in words]


@dataclass(frozen=True)
class Run:
    """What one run said and took."""

    report: Any
    cpu: float
    wall: float


def run(words: Sequence[str]) -> Run:
    """Run murank in a process of its own."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "murank", *words], stdout=subprocess.PIPE)
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"murank {words[0]} failed")
    return Run(json.loads(said), used.ru_utime + used.ru_stime, time.perf_counter() - start)


def draw_crops(setting: Setting) -> None:
    """Write a query and a gallery crop of each person."""
    for folder, camera in (("query", 1), ("gallery", 2)):
        (setting.crops / folder).mkdir(parents=True)
        for person in range(setting.queries):
            file = setting.crops / folder / f"{person:06d}_c{camera}s1_000000_00.png"
            draw(person, camera, 0).save(file)


def reuse(setting: Setting) -> None:
    """What is asked again after a finished job."""
    crops, first = setting.crops, setting.crops / "gallery" / "000000_c2s1_000000_00.png"

    def said(what: str, *options: object) -> None:
        found = run(setting.score("reuse", "--candidates", K, "--overwrite", *options))
        new = found.report["images_embedded"], found.report["pairs_asked"]
        print(
            f"  {what:<28} {new[0]:>7,} images {new[1]:>9,} pairs {found.wall:6.1f} s", flush=True
        )

    off = ("--align-cameras", "off")
    print(f"\nafter a job of {setting.queries:,} x {setting.queries:,} images, {K} candidates")
    said("nothing is known", *off)
    said("the same again", *off)
    first.touch()
    said("one gallery image touched", *off)
    draw(10**6, 2, 0).save(first)
    said("one gallery image replaced", *off)
    said(f"{2 * K} candidates", *off, "--candidates", 2 * K)
    said("the other order", *off, "--order", "both")
    crops.rename(setting.place / "moved")
    shutil.copytree(setting.place / "moved", crops)  # other times
    said("the folders copied", *off)


def journal(setting: Setting) -> None:
    """A million recorded pairs: written, and read by the next run."""
    folder = setting.place / "journal"
    random = np.random.default_rng(0)
    contents = [hashlib.sha256(b"%d" % i).digest() for i in range(_PAIRS // K + 20_000)]
    queries, gallery = contents[: _PAIRS // K], contents[_PAIRS // K :]
    made_by = MadeBy("engine", "CPU", {"decoder": ["CPUExecutionProvider"]})
    rows = random.integers(0, len(gallery), (_PAIRS // K, K))
    units = []
    for start in range(0, len(rows), _UNIT):
        some = rows[start : start + _UNIT]
        used, places = np.unique(some, return_inverse=True)
        images = [*queries[start : start + _UNIT], *(gallery[i] for i in used)]
        first = np.repeat(np.arange(len(some)), K)
        pairs = np.stack([first, len(some) + places.ravel()], axis=1)
        units.append((images, pairs, random.random(len(pairs), np.float32)))
    book = Journal(folder)
    before = cpu_seconds()
    for images, pairs, mu in units:
        book.record_mu(made_by, "given", images, pairs, mu, {}, {})
    book.close()
    written = cpu_seconds() - before
    size = sum(file.stat().st_size for file in folder.rglob("*.seg"))
    before = cpu_seconds()
    known = len(Journal(folder).mu("engine", "given"))
    read = cpu_seconds() - before
    print(f"\na journal of {_PAIRS:,} pairs of {len(contents):,} images: {size / 1e6:.0f} MB")
    print(f"  written   {written:6.2f} CPU s")
    print(f"  read      {read:6.2f} CPU s ({known:,} distinct pairs)", flush=True)


def cpu_seconds() -> float:
    """Of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def samples(setting: Setting) -> None:
    """Where CPU time goes: samples of the main thread, one a few milliseconds of CPU."""
    code = "import scored_jobs, sys; scored_jobs.sampled(sys.argv[1:])"
    words = setting.score("samples", "--candidates", K, "--threads", 1)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    print(f"\nsamples of a job of {setting.queries:,} x {setting.queries:,} images, one thread")
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=environment)


def sampled(words: Sequence[str]) -> None:
    """Run murank here, and print where its main thread was while another looked at it."""
    from murank.cli import main

    counts: Counter[str] = Counter()
    is_done, looked_at = threading.Event(), threading.get_ident()

    def look() -> None:
        while not is_done.wait(0.003):
            counts[where(sys._current_frames()[looked_at])] += 1

    with silenced():
        main(["doctor", "--json"])  # imports and compiled kernels are no work of the job
        watcher = threading.Thread(target=look)
        watcher.start()
        main([*words])
        is_done.set()
        watcher.join()
    total = sum(counts.values())
    for name, count in counts.most_common():
        print(f"  {name:<24} {100 * count / total:5.1f} %  ({count} samples)", flush=True)


def where(frame: Any) -> str:
    """Return what a thread is doing."""
    innermost = Path(frame.f_code.co_filename).name
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for part in reversed(path.parts[-4:]):
            if part in _WORK:
                return _WORK[part]
        if path.name in ("_base.py", "threading.py"):
            return "decoding"  # it waits for images
        frame = frame.f_back
    return f"other ({innermost})"


@contextmanager
def silenced() -> Any:
    """Keep what is printed."""
    with Path(os.devnull).open("w") as nothing:
        kept, sys.stdout = sys.stdout, nothing
        try:
            yield
        finally:
            sys.stdout = kept


def workers(setting: Setting) -> None:
    """Two processes of one thread each against one: what more images cost, start-up apart."""
    small = Setting(setting.queries // 4, setting.place / "small")
    draw_crops(small)
    spans: dict[str, list[float]] = {"1": [], "2": []}
    costs: dict[str, list[float]] = {"1": [], "2": []}
    for turn in range(ROUNDS):
        for count in spans:
            words = (f"{count}-{turn}", "--candidates", K, "--threads", 1, "--workers", count)
            (large, less) = (run(one.score(*words)) for one in (setting, small))
            spans[count].append(_asking(large) - _asking(less))
            costs[count].append(large.cpu - less.cpu)
    ratio = median(one / two for one, two in zip(spans["1"], spans["2"], strict=True))
    more = setting.queries - small.queries
    print(f"\n{more:,} queries more by workers of one thread, medians of {ROUNDS} rounds in turn")
    for count, found_spans in spans.items():
        print(f"  {count}: {median(found_spans):6.1f} s, {median(costs[count]):6.1f} CPU s")
    print(f"  2 against 1: {ratio:.2f} x", flush=True)


def ray(setting: Setting) -> None:
    """Actors of Ray against a process of this machine."""
    from ray_jobs import compare

    compare(setting, run)


def _asking(found: Run) -> float:
    seconds = found.report["seconds"]
    return float(seconds["embed"] + seconds["mu"])


SECTIONS: dict[str, Callable[[Setting], None]] = {
    "reuse": reuse, "journal": journal, "samples": samples, "workers": workers,
    "ray": ray,
}  # fmt: skip


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=SECTIONS, metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument("--queries", type=int, default=1000, metavar="N", help="(1,000)")
    args = parser.parse_args()
    for name, section in SECTIONS.items():
        if args.only in (None, name):
            with tempfile.TemporaryDirectory() as place:
                setting = Setting(args.queries, Path(place))
                if name != "journal":
                    draw_crops(setting)
                section(setting)


if __name__ == "__main__":
    main()
