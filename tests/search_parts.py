"""An engine by hand for searches: pixels are features, and a clock that only its work moves."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from murank import Engine
from murank.engine.deadline import Pace
from murank.engine.decoder import Prefix
from murank.engine.memory_cache import MemoryCache, ShownImage, content_key, pixels_of_shown
from murank.engine.scorer import Scorer
from murank.images import Preprocessing

SIZE = Preprocessing(4, 2)
DIM = 24
WHITE = 255
Pixels = NDArray[np.uint8]


ON_CPU = ("CPUExecutionProvider",)


class FakeClock:
    """Seconds; `costs` says how long one item of each kind of work takes."""

    def __init__(self, **costs: float) -> None:
        self.now = 100.0
        self.costs = costs
        self.done: Counter[str] = Counter()
        self.largest = 0.0  # the longest step so far

    def __call__(self) -> float:
        return self.now

    def work(self, kind: str, items: int) -> None:
        self.done[kind] += items
        spent = items * self.costs.get(kind, 0.0)
        self.now += spent
        self.largest = max(self.largest, spent)


class FakeEncoder:
    """Features are the pixels, less their mean; rows of length 1."""

    def __init__(self, clock: FakeClock) -> None:
        self.part = SimpleNamespace(preprocessing=SIZE, dim=DIM)
        self.session = SimpleNamespace(providers=list(ON_CPU))
        self._clock = clock

    def features(self, pixels: Pixels, names: Sequence[object] = ()) -> NDArray[np.float32]:
        del names
        self._clock.work("embed", len(pixels))
        rows = pixels.reshape(len(pixels), -1).astype(np.float32)
        rows -= rows.mean(axis=1, keepdims=True)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


class FakeVision:
    """Tokens are the pixels as floats, [1,1,24]; NaN for an image that is all white."""

    looked_up = computed = 0

    def __init__(self, clock: FakeClock) -> None:
        self.file = Path("vision.onnx")
        self.session = SimpleNamespace(providers=list(ON_CPU))
        self._clock = clock
        self.known: dict[str, NDArray[np.float32]] = {}

    def _remembered(self, key: str) -> NDArray[np.float32] | None:
        return self.known.get(key)

    def of(self, images: Sequence[ShownImage]) -> NDArray[np.float32]:
        keys = [content_key(image) for image in images]
        pixels = [pixels_of_shown(image) for image in images]
        new = {
            key: np.where(image.min() == WHITE, np.nan, image.reshape(1, 1, -1)).astype(np.float32)
            for key, image in zip(keys, pixels, strict=True)
            if key not in self.known
        }
        self._clock.work("vision", len(new))
        self.known |= new
        return np.stack([self.known[key] for key in keys])


class FakeDecoder:
    """No is the more likely the further apart two images are."""

    def __init__(self, clock: FakeClock) -> None:
        self.file = Path("decoder.onnx")
        self._clock = clock
        self.session = SimpleNamespace(device="cpu", providers=list(ON_CPU))
        self.runs: list[tuple[int, ...]] = []  # shapes [Q,K] of the runs

    def prefill(self, tokens: NDArray[np.float32]) -> Prefix:
        self._clock.work("prefill", len(tokens))
        return Prefix((tokens,))

    def joined(self, prefixes: Sequence[Prefix]) -> Prefix:
        return Prefix((np.concatenate([one.values[0] for one in prefixes]),))

    def logits(self, prefix: Prefix, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        self.runs.append(tokens.shape[:2])
        self._clock.work("score", tokens.shape[0] * tokens.shape[1])
        (query,) = prefix.values
        gap = np.abs(tokens - query[:, None]).mean(axis=(2, 3, 4))
        return np.stack([gap / 40 - 1, np.zeros_like(gap)], axis=-1)


class FakeScorer(Scorer):
    """The real steps on the parts above."""

    def __init__(self, clock: FakeClock, max_pairs: int = 32) -> None:
        self.part = cast("Any", SimpleNamespace(preprocessing=SIZE, tau=1.0))
        self._max_pairs = self._most_candidates = max_pairs
        self.decoder = cast("Any", FakeDecoder(clock))
        self.vision = cast("Any", FakeVision(clock))
        self._prefix_bytes = 1
        self._prefixes, self._files = MemoryCache(4), MemoryCache(64)


def make_engine(
    clock: FakeClock | None = None,
    *,
    encoder: bool = True,
    scorer: bool = True,
    max_pairs: int = 32,
) -> Engine:
    """An engine whose work the clock counts; its `rank` goes by that clock."""
    clock = clock or FakeClock()
    engine = Engine(
        cast("Any", SimpleNamespace(calibration=None, precision="fp32")),
        "0" * 64,
        encoder=cast("Any", FakeEncoder(clock)) if encoder else None,
        scorer=FakeScorer(clock, max_pairs) if scorer else None,
        vision_memory=MemoryCache(0),
        vision_disk=None,
    )
    engine.pace = Pace(clock)
    return engine


def on_clock(clock: FakeClock) -> AbstractContextManager[object]:
    """Searchers made inside go by that clock."""
    return mock.patch("murank.search.searcher.Pace", partial(Pace, clock))


def forget(engine: Engine) -> None:
    """Empty the caches of an engine."""
    cast("Any", engine.scorer).vision.known.clear()
    cast("Any", engine.scorer).clear()


def make_images(count: int, seed: int = 0, *, spread: int = 255) -> list[Pixels]:
    """Pictures [4,2,3] that differ by up to `spread`."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 256 - spread, (4, 2, 3)) if spread < 255 else 0
    pixels = base + random.integers(0, spread + 1, (count, 4, 2, 3))
    return list(pixels.clip(0, 255).astype(np.uint8))
