"""How a gallery answers, takes in, opens and erases: one table.

    python benchmarks/gallery.py                     100,000 tracks of 512 values
    python benchmarks/gallery.py --rows 1000000      a million: 3 GiB of memory, 3 of disk
    python benchmarks/gallery.py --align             the same on 128 aligned directions
    python benchmarks/gallery.py --soak 30000        queries, adds and erasures in turn: its memory

Features are drawn at random: what is timed does not depend on them. The rows with an MLLM and with
crops use the shipped miniature. Figures are wall time; p99 is of all queries of a row.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from kernels import machine
from made_crops import draw

from murank import Engine, Gallery

ENGINE = Path(__file__).parent / "miniature" / "engine"
DIM, CAMERAS, QUERIES, PERSON = 512, 8, 200, 200
_BLOCK = 1000


def encoder_only(dim: int) -> Any:
    """An engine's face for features that are made elsewhere."""
    encoder = SimpleNamespace(part=SimpleNamespace(dim=dim))
    return SimpleNamespace(
        encoder=encoder, scorer=None, encoder_sha256="0" * 64, forget_key=lambda _key: False
    )


class Table:
    """Rows, printed as they come."""

    def row(self, name: str, value: str, goal: str = "") -> None:
        """Print one."""
        print(f"| {name} | {value} | {goal} |", flush=True)

    def latency(self, name: str, work: Callable[[int], object], goal: str = "") -> None:
        """Print p50 and p99 of many calls."""
        for number in range(5):
            work(number)
        seconds = []
        for number in range(QUERIES):
            start = time.perf_counter()
            work(number)
            seconds.append(time.perf_counter() - start)
        p50, p99 = 1000 * np.percentile(seconds, [50, 99])
        self.row(name, f"p50 {p50:.1f}, p99 {p99:.1f} ms", goal)

    @contextmanager
    def timed(self, name: str, goal: str = "", per: int = 0) -> Iterator[None]:
        """Print how long what is inside takes, or how many of it a second."""
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        self.row(name, f"{per / spent:,.0f} a second" if per else f"{spent:.2f} s", goal)


def filled(gallery: Gallery, rows: int, random: np.random.Generator) -> None:
    """Add rows, each a track of one; every 200 in a row are one person's."""
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        place = np.arange(start, start + count)
        gallery.add(
            features=random.standard_normal((count, gallery.dim), np.float32),
            camera=random.integers(0, CAMERAS, count), time=place.astype(float),
            subject=[f"person {one // PERSON}" for one in place.tolist()],
            id=[f"{one}" for one in place.tolist()],
        )  # fmt: skip


def features_alone(table: Table, folder: Path, rows: int, *, align: bool) -> None:
    """All that needs no image."""
    file, random = folder / "gallery.db", np.random.default_rng(0)
    engine = encoder_only(DIM)
    how: Any = {"align_cameras": "auto" if align else "off"}
    with Gallery.open(file, engine, **how) as gallery:
        with table.timed("add features, 1,000 a transaction", per=rows):
            filled(gallery, rows, random)
        if align:
            with table.timed("align"):
                gallery.align()
    with table.timed("open, every chunk checked", "0.8 s / 6 s at 1,000,000"):
        gallery = Gallery.open(file, engine, **how)
    queries = random.standard_normal((QUERIES, DIM), np.float32)
    goals = {"none": "", "k-reciprocal": "25 / 200 ms; 12 / 80 aligned", "ca-jaccard": ""}
    with gallery:
        for method, goal in goals.items():

            def search(number: int, method: Any = method) -> None:
                query = queries[number % QUERIES]
                gallery.search(feature=query, cameras=range(1, 6), since=100.0, method=method)

            table.latency(f"search with a filter, {method}", search, goal)
        for count, name in ((16, "16 a transaction"), (1, "one each")):
            with table.timed(
                f"add features, {name}", "1,500" if count > 1 else "100", per=count * 50
            ):
                for _ in range(50):
                    gallery.add(
                        features=random.standard_normal((count, DIM), np.float32),
                        camera=1,
                        time=0.0,
                    )
        with table.timed("erase one person's 200 rows", "3 s at 1,000,000"):
            assert gallery.erase(subject="person 3").complete
        spread = [f"{one}" for one in range(5, rows, max(1, rows // 200))][:200]
        with table.timed("erase 200 rows spread over all", "10 s at 1,000,000"):
            assert gallery.erase(ids=spread).complete
        stats = gallery.stats()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    table.row("memory, peak of the process", f"{peak:.2f} GiB", "3 GiB; 1 aligned, at 1,000,000")
    table.row("disk", f"{stats.bytes_on_disk / (1 << 30):.2f} GiB")


def with_crops(table: Table, folder: Path, rows: int) -> None:
    """What needs the engine: crops in, and the MLLM asked."""
    engine = Engine.from_pretrained(ENGINE, providers="cpu")
    random = np.random.default_rng(1)
    crops = [draw(place // 4, place % 4, 0) for place in range(400)]
    with Gallery.open(folder / "crops.db", engine, align_cameras="off") as gallery:
        filled(gallery, rows, random)
        gallery.add(crops[:200], camera=0, time=0.0)
        table.latency(
            "search, 20 candidates asked about, tokens known",
            lambda i: gallery.search(crops[200 + i % 100], candidates=20, method="k-reciprocal"),
            "45 ms at 100,000",
        )
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.5):
                gallery.search(crops[300], deadline_ms=100)

        looking = threading.Thread(target=look)
        looking.start()
        with table.timed("add crops, 8 a call, while 2 queries a second run", "200", per=400):
            for start in range(0, 400, 8):
                gallery.add(crops[start : start + 8], camera=1, time=1.0)
        stop.set()
        looking.join()


def soak(table: Table, folder: Path, rounds: int) -> None:
    """A query, an add and an erasure a round, among 2,000 rows; memory after the first 2,000."""
    random = np.random.default_rng(0)
    sizes: list[float] = []
    start = time.perf_counter()
    with Gallery.open(folder / "soak.db", encoder_only(DIM), align_cameras="off") as gallery:
        filled(gallery, 2000, random)
        for number in range(rounds):
            feature = random.standard_normal(DIM, np.float32)
            gallery.search(feature=feature, cameras=[1, 2, 3], top_k=10)
            gallery.add(features=feature[None], camera=number % 8, time=0.0, id=f"new {number}")
            assert gallery.erase(ids=f"new {number - 50}" if number >= 50 else "0").complete
            if number % 100 == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                sizes.append(pages * resource.getpagesize() / (1 << 20))
        assert gallery.verify().is_clean
    hours = (time.perf_counter() - start) / 3600
    late = np.array(sizes[20:])
    slope = np.polyfit(np.linspace(0, hours * len(late) / len(sizes), len(late)), late, 1)[0]
    table.row(f"{rounds:,} queries, adds and erasures", f"{hours * 60:.1f} minutes")
    table.row("memory", f"{late[0]:.0f} to {late[-1]:.0f} MiB, {slope:+.1f} an hour", "under 1")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--align", action="store_true")
    parser.add_argument("--soak", type=int, metavar="N", help="instead")
    parser.add_argument("--folder", type=Path, help="for the files (a temporary one)")
    arguments = parser.parse_args()
    table = Table()
    what = "soak" if arguments.soak is not None else f"{arguments.rows:,} tracks"
    print(f"{machine()}\n\n| {what} | measured | goal |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.soak is not None:
            soak(table, Path(folder), arguments.soak)
            return
        features_alone(table, Path(folder), arguments.rows, align=arguments.align)
        with_crops(table, Path(folder), arguments.rows)


if __name__ == "__main__":
    main()
