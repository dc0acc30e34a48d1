"""What the service costs, and what it does under load: one table.

    python benchmarks/service.py                 everything but the soak, some three minutes
    python benchmarks/service.py --soak 30       minutes of mixed load instead

Callers are threads of this process on the loopback, each with a connection that is kept, asking
again as soon as they are answered; the service is a process of its own, with the shipped
miniature. Every query asks about 20 candidates whose tokens are known. Figures are wall time.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from kernels import machine
from made_crops import draw

from murank import Engine, Overloaded, Worker

ENGINE = Path(__file__).parent / "miniature" / "engine"
HOST, CANDIDATES, SECONDS = "127.0.0.1", 20, 8.0
Ask = Callable[[int], tuple[int, int]]  # number of a query -> its code, and pairs scored


def picture(person: int, shot: int) -> bytes:
    """A crop, as the bytes of a JPEG file."""
    data = io.BytesIO()
    draw(person, shot, 0).save(data, "JPEG", quality=95)
    return data.getvalue()


PICTURES = [picture(number // 4, number % 4) for number in range(60)]


def query(number: int) -> tuple[bytes, list[bytes]]:
    """A query and its candidates, of 40 people."""
    start = number % 40
    return PICTURES[start], PICTURES[start + 1 : start + 1 + CANDIDATES]


class Caller:
    """One connection, used by one thread."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=120)

    def ask(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, Any]:
        """Return the code and the answer."""
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def rerank(self, number: int, deadline_ms: float | None = None) -> tuple[int, int]:
        """Ask about one query; return the code, and the pairs that were scored."""
        code, answer = self.ask("/v1/rerank", BODIES[number % 40] | {"deadline_ms": deadline_ms})
        return code, answer["meta"]["scored"] if code == 200 else 0


def as_text(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


BODIES: list[dict[str, Any]] = [
    {"query": as_text(one), "documents": [as_text(other) for other in others]}
    for one, others in map(query, range(40))
]


@contextmanager
def served(*options: str | Path) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """Run a service; yield its port, its process, and seconds until it had answered a query."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    words = [sys.executable, "-m", "murank", "serve", ENGINE, "--providers", "cpu", *options]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*map(str, words), "--port", str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while True:
            try:
                if Caller(port).rerank(0)[0] == 200:
                    break
            except OSError:
                time.sleep(0.01)
            if process.poll() is not None:
                raise SystemExit("the service did not start: run murank serve by hand")
        yield port, process, time.perf_counter() - start
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise SystemExit(f"the service ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def load(callers: Sequence[Ask], seconds: float) -> tuple[np.ndarray, Counter[int], float]:
    """Let callers ask for so long; return seconds of each answer, codes, pairs a second."""
    spent: list[float] = []
    codes: Counter[int] = Counter()
    pairs: list[int] = []
    end = time.perf_counter() + seconds

    def run(first: int, ask: Ask) -> None:
        number = first
        while time.perf_counter() < end:
            start = time.perf_counter()
            code, scored = ask(number)
            if code == 200:
                spent.append(time.perf_counter() - start)
            else:
                time.sleep(0.02)
            codes[code] += 1
            pairs.append(scored)
            number += 7

    threads = [threading.Thread(target=run, args=item) for item in enumerate(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1000 * np.array(spent), codes, sum(pairs) / seconds


def row(*cells: object) -> None:
    """Print a row."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def overhead(port: int, engine: Engine) -> None:
    """Asked in turns, so that both see the same machine."""
    caller = Caller(port)
    spent: dict[str, list[float]] = {"service": [], "library": []}
    for number in range(240):
        for name, ask in (
            ("service", lambda n: caller.rerank(n)),
            ("library", lambda n: engine.rank(*query(n), deadline_ms=60_000)),
        ):
            start = time.perf_counter()
            ask(number)
            if number >= 40:  # tokens are known from then on
                spent[name].append(time.perf_counter() - start)
    p50, p99 = (
        1000 * (np.percentile(spent["service"], q) - np.percentile(spent["library"], q))
        for q in (50, 99)
    )
    alone = 1000 * np.median(spent["library"])
    row("overhead over the library", f"p50 {p50:.1f}, p99 {p99:.1f} ms on {alone:.1f}", "2 / 6 ms")


def deadlines(port: int) -> None:
    """One caller, then four, 50 ms each."""

    def callers(count: int) -> list[Ask]:
        asks = [Caller(port) for _ in range(count)]
        return [lambda number, one=one: one.rerank(number, 50) for one in asks]  # type: ignore[misc]

    _, _, alone = load(callers(1), SECONDS)
    spent, codes, pairs = load(callers(4), SECONDS)
    p99, most = np.percentile(spent, 99), spent.max()
    row("4 callers, deadline 50 ms", f"p99 {p99:.0f}, max {most:.0f} ms; {dict(codes)}", "65, 80")
    row("pairs a second of 4 callers, of 1", f"{pairs:.0f}, {alone:.0f}: {pairs / alone:.2f}",
        "0.90")  # fmt: skip


def throughput(port: int) -> None:
    """Closed loops: as many callers as there are, without a deadline."""
    for count in (1, 2, 4, 8, 16, 48):
        asks = [Caller(port) for _ in range(count)]
        spent, codes, pairs = load([one.rerank for one in asks], SECONDS)
        p50, p99 = np.percentile(spent, [50, 99])
        row(f"{count} callers", f"{pairs:.0f} pairs/s, p50 {p50:.0f}, p99 {p99:.0f} ms; "
            f"{dict(codes)}", "no collapse")  # fmt: skip


def together(engine: Engine) -> None:
    """The worker alone, with and without runs that queries share."""
    for count in (1, 2, 4, 8):
        found = {}
        for shares in (True, False):
            with Worker(engine, together=shares) as worker:

                def ask(number: int, worker: Worker = worker) -> tuple[int, int]:
                    try:
                        return 200, len(worker.rank(*query(number)).result().scored)
                    except Overloaded:
                        return 429, 0

                found[shares] = load([ask] * count, SECONDS / 2)[2]
        row(f"worker alone, {count} callers, runs shared / not",
            f"{found[True]:.0f} / {found[False]:.0f} pairs/s: "
            f"{found[True] / found[False]:.2f}", "")  # fmt: skip


def soak(minutes: float, folder: Path) -> None:
    """Queries, searches, rows in and out; the slope of memory after the first sixth."""
    with served("--gallery", folder / "g.db", "--retention", "5m") as (port, process, _):
        stop = time.monotonic() + 60 * minutes
        codes: Counter[int] = Counter()
        sizes: list[tuple[float, float]] = []

        def work(thread: int) -> None:
            caller, number = Caller(port), thread
            while time.monotonic() < stop:
                number += 4
                data = as_text(PICTURES[number % 60])
                kind = number // 4 % 4
                if kind == 0:
                    codes[caller.rerank(number, 200)[0]] += 1
                elif kind == 1:
                    body = {"crops": [data], "camera": number % 5, "time": time.time(),
                            "id": f"{thread}-{number}", "track": f"{number // 40}"}  # fmt: skip
                    codes[caller.ask("/v1/gallery/rows", body)[0]] += 1
                elif kind == 2:
                    body = {"crop": data, "deadline_ms": 200}
                    codes[caller.ask("/v1/gallery/search", body)[0]] += 1
                else:
                    body = {"ids": [f"{thread}-{number - 168}"]}
                    codes[caller.ask("/v1/gallery/erase", body)[0]] += 1

        threads = [threading.Thread(target=work, args=(one,)) for one in range(4)]
        for thread in threads:
            thread.start()
        while time.monotonic() < stop:
            time.sleep(5)
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            sizes.append((time.monotonic() / 3600, pages * resource.getpagesize() / (1 << 20)))
        for thread in threads:
            thread.join()
        late = np.array(sizes[len(sizes) // 6 :])
        slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
        row(f"soak, {minutes:g} minutes", f"{dict(codes)}", "no error")
        row("memory", f"{sizes[-1][1]:.0f} MiB, {slope:+.1f} MiB an hour", "under 1 an hour")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    arguments = parser.parse_args()
    print(f"{machine()}\n\n| what | measured | goal |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.soak is not None:
            soak(arguments.soak, Path(folder))
            return
        with served() as (port, _, first):
            row("first answer of a fresh service", f"{first:.2f} s", "2 s")
            with Engine.from_pretrained(ENGINE, providers="cpu") as engine:
                overhead(port, engine)
            deadlines(port)
            throughput(port)
        with Engine.from_pretrained(ENGINE, providers="cpu") as engine:
            together(engine)


if __name__ == "__main__":
    main()
