"""The ways of running an engine on this CPU, side by side: by candidates, and by images a run.

    python benchmarks/backends.py                                  the miniature
    python benchmarks/backends.py --engine fp32/ int8/ --threads 2 --rounds 9

Every engine runs in onnxruntime and, where OpenVINO takes it, in that: float32, and bf16 where the
CPU has it. All are loaded in one process and take turns. Queries are new, candidates' vision tokens
are known; each number is the median over the rounds of CPU milliseconds of all threads (`--wall`:
of wall milliseconds).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kernels import machine
from numpy.typing import NDArray

from murank import Engine, MurankError
from murank.backends.protocol import Products
from murank.backends.providers import Providers
from murank.folder.manifest import read_manifest
from murank.folder.precision import ARITHMETIC

MINIATURE = Path(__file__).resolve().parent / "miniature" / "engine"
WAYS: dict[str, tuple[Providers, Products]] = {
    "onnxruntime": ("cpu", "float32"),
    "OpenVINO float32": ("openvino", "float32"),
    "OpenVINO bf16": ("openvino", "bf16"),
}
Clock = Callable[[], float]


@dataclass
class Way:
    """An engine, loaded by one backend."""

    title: str
    engine: Engine
    times: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    logits: dict[int, NDArray[Any]] = field(default_factory=dict)  # by candidates, of one query

    def score(self, candidates: int, turn: int, clock: Clock) -> None:
        """Time prefill and scoring of a new query."""
        scorer = self.engine.need_scorer()
        known = scorer.vision.of(self._pixels(candidates, 1))
        query = scorer.vision.of(self._pixels(1, 100 + turn))
        start = clock()
        logits = scorer.decoder.logits(scorer.decoder.prefill(query), known[None])
        self.times.setdefault(("score", candidates), []).append(clock() - start)
        self.logits[candidates] = logits

    def see(self, images: int, turn: int, clock: Clock) -> None:
        """Time one run of the vision tower."""
        pixels = np.stack(self._pixels(images, 1000 + turn))
        start = clock()
        (tokens,) = self.engine.need_scorer().vision.session.run({"images": pixels}, ["tokens"])
        tokens.numpy()
        self.times.setdefault(("see", images), []).append(clock() - start)

    def middle(self, what: str, number: int) -> float:
        """Milliseconds; the first round is practice."""
        return 1000 * statistics.median(self.times[what, number][1:])

    def _pixels(self, count: int, seed: int) -> list[NDArray[np.uint8]]:
        how = self.engine.need_scorer().part.preprocessing
        shape = (count, 3, how.height, how.width)
        return list(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def load(folders: Sequence[Path], threads: int, plans: Path) -> list[Way]:
    """Load every engine in every way that takes it; say what is not here."""
    found = []
    for folder in folders:
        precision = read_manifest(folder).precision
        takes = "openvino" in ARITHMETIC[precision].backends
        for name, (providers, products) in WAYS.items():
            if providers == "openvino" and not takes:
                continue
            try:
                engine = Engine.from_pretrained(
                    folder, threads=threads, parts=["scorer"], plans=plans,
                    providers=providers, products=products,
                )  # fmt: skip
            except MurankError as error:
                print(f"{precision}, {name} is not here: {error}\n")
                continue
            found.append(Way(f"{precision}, {name}", engine))
    return found


def table(ways: Sequence[Way], what: str, numbers: Sequence[int], *, share: bool) -> None:
    """Print one; `share`: of one image, else of all candidates."""
    print(f"| {'images a run' if share else 'candidates'} | {' | '.join(map(str, numbers))} |")
    print(f"|---|{'---:|' * len(numbers)}")
    for way in ways:
        each = [way.middle(what, n) / (n if share else 1) for n in numbers]
        cells = [f"{one:.1f}" if one < 100 else f"{one:.0f}" for one in each]
        print(f"| {way.title} | {' | '.join(cells)} |")
    first = ways[0]
    for way in ways[1:]:
        gains = [first.middle(what, n) / way.middle(what, n) for n in numbers]
        print(f"| {first.title} / {way.title} | {' | '.join(f'{one:.2f}' for one in gains)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, nargs="+", default=[MINIATURE], metavar="DIR")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall", action="store_true", help="instead of CPU milliseconds")
    arguments = parser.parse_args()
    clock = time.perf_counter if arguments.wall else time.process_time
    with tempfile.TemporaryDirectory() as plans:
        ways = load(arguments.engine, arguments.threads, Path(plans))
        if not ways:
            sys.exit("nothing can be measured: no engine loads in any way; see above")
        for turn in range(arguments.rounds + 1):
            for way in ways:
                for count in arguments.candidates:
                    way.score(count, turn, clock)
                for count in arguments.images:
                    way.see(count, turn, clock)
    kind = "wall" if arguments.wall else "CPU"
    print(f"{machine()}; threads: {arguments.threads}; {kind} ms, {arguments.rounds} rounds\n")
    table(ways, "score", arguments.candidates, share=False)
    print()
    table(ways, "see", arguments.images, share=True)
    print()
    for way in ways[1:]:
        apart = max(
            float(np.abs(way.logits[n] - ways[0].logits[n]).max()) for n in arguments.candidates
        )
        print(f"logits of {way.title} differ from those of {ways[0].title} by {apart:.0e} at most")


if __name__ == "__main__":
    main()
