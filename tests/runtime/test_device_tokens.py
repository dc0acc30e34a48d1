"""An engine whose vision tokens stay on the device answers as one whose tokens do not.

The device is onnxruntime's CPU: the same rows, copies and gathers, and the same bits to compare.
"""

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from wide_engine import ENGINE

from murank import Engine, MachineError, Searcher
from murank.backends.device_rows import DeviceRows, HostRow, Row
from murank.backends.onnx.rows import OnnxRows
from murank.backends.onnx.session import Session, SessionSettings
from murank.backends.onnx.tiny_onnx import gather
from murank.engine import vision
from murank.engine.pair_orders import ORDERS
from murank.engine.scorer import Scorer
from murank.images import prepare

pytest.importorskip("onnxruntime")
CPU = SessionSettings("cpu", 1)


def crops(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 8, 4, 3), np.uint8)
    return list(coarse.repeat(16, axis=1).repeat(16, axis=2))


QUERIES, CANDIDATES = crops(3), crops(9, seed=1)


class Loader:
    """Loads engines that keep vision tokens on the device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks: list[DeviceRows] = []
        monkeypatch.setattr(vision, "device_rows", self._rows)

    def _rows(
        self, session: Any, taker: Any, *, output: str, count: int, shape: Any, dtype: Any
    ) -> DeviceRows:
        assert taker == session.memory == ("onnxruntime", "cpu", 0)
        assert (output, dtype) == ("tokens", np.float32)
        copier = Session(Path("rows"), CPU, graph=gather(dtype, shape))
        block = OnnxRows(copier, count, shape, dtype)
        self.blocks.append(DeviceRows(block, count, shape, dtype))
        return self.blocks[-1]

    def __call__(self, **options: Any) -> Engine:
        return load(**options)

    @property
    def free(self) -> int:
        gc.collect()
        return len(self.blocks[-1]._free)


def load(**options: Any) -> Engine:
    return Engine.from_pretrained(ENGINE, providers="cpu", threads=1, **options)


@pytest.fixture(scope="module")
def plain() -> Engine:
    return load()


@pytest.fixture(scope="module")
def wanted(plain: Engine) -> NDArray[np.float32]:
    return plain.mu_many(QUERIES, [CANDIDATES] * 3)


@pytest.fixture
def on_device(plain: Engine, monkeypatch: pytest.MonkeyPatch) -> Loader:
    del plain  # loaded first
    return Loader(monkeypatch)


def tokens_of(engine: Engine, images: list[NDArray[np.uint8]]) -> NDArray[Any]:
    scorer = scorer_of(engine)
    return scorer.vision.of([prepare(image, scorer.part.preprocessing).pixels for image in images])


def scorer_of(engine: Engine) -> Scorer:
    assert engine.scorer is not None
    return engine.scorer


def test_the_same_answers_to_the_bit(
    on_device: Loader, plain: Engine, wanted: NDArray[np.float32]
) -> None:
    engine = on_device()
    np.testing.assert_array_equal(engine.mu_many(QUERIES, [CANDIDATES] * 3), wanted)
    for order in ORDERS:
        found = engine.mu(QUERIES[0], CANDIDATES[:3], order=order)
        np.testing.assert_array_equal(found, plain.mu(QUERIES[0], CANDIDATES[:3], order=order))
    tokens = tokens_of(engine, [*CANDIDATES, CANDIDATES[0]])
    assert tokens.shape == (10,)
    assert all(isinstance(row, Row) for row in tokens)
    assert tokens[9] is tokens[0]


def test_a_cache_too_small_and_none(on_device: Loader, wanted: NDArray[np.float32]) -> None:
    engine = on_device(vision_cache_mb=0)
    np.testing.assert_array_equal(engine.mu_many(QUERIES, [CANDIDATES] * 3), wanted)
    everything = scorer_of(engine)._max_pairs + 8
    assert on_device.free == everything
    scorer_of(engine).vision._memory._budget = 4 * on_device.blocks[-1].row_bytes
    for _ in range(2):
        np.testing.assert_array_equal(engine.mu_many(QUERIES, [CANDIDATES] * 3), wanted)
        assert on_device.free == everything - 4
    engine.clear_cache()
    assert on_device.free == everything


def test_more_at_once_than_there_is_room(on_device: Loader, wanted: NDArray[np.float32]) -> None:
    engine = on_device(vision_cache_mb=0)
    block, held = on_device.blocks[-1], []
    while len(block._free) > 5:
        held += block.put(np.zeros((1, *block.shape), np.float32), 1)
    tokens = tokens_of(engine, CANDIDATES)
    assert [type(item) for item in tokens] == [Row] * 5 + [HostRow] * 4
    del tokens
    np.testing.assert_array_equal(engine.mu_many(QUERIES, [CANDIDATES] * 3), wanted)


def test_threads(on_device: Loader, wanted: NDArray[np.float32]) -> None:
    engine = on_device(vision_cache_mb=0)

    def ask(number: int) -> None:
        query = number % 3
        places = np.random.default_rng(number).permutation(len(CANDIDATES))[:6]
        found = engine.mu(QUERIES[query], [CANDIDATES[place] for place in places])
        np.testing.assert_allclose(found, wanted[query, places], atol=1e-5)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, range(18)))


def test_the_disk_cache(
    on_device: Loader, wanted: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_device(cache_dir=tmp_path)
    np.testing.assert_array_equal(first.mu_many(QUERIES, [CANDIDATES] * 3), wanted)
    assert len(list(tmp_path.glob("vision-*/*"))) == 12
    second = on_device(cache_dir=tmp_path)
    monkeypatch.setattr(scorer_of(second).vision.session, "run", None)  # nothing to compute
    np.testing.assert_array_equal(second.mu_many(QUERIES, [CANDIDATES] * 3), wanted)


def test_searching_and_ranking_in_time(on_device: Loader, plain: Engine) -> None:
    def asked(engine: Engine) -> object:
        searcher = Searcher.from_images(engine, CANDIDATES, candidates=5)
        searcher.warm()
        together = searcher.search_many(QUERIES, top_k=9)
        alone = searcher.search(QUERIES[0], top_k=9, deadline_ms=1e6)
        ranked = engine.rank(QUERIES[1], CANDIDATES, deadline_ms=1e6)
        return [result.matches for result in (*together, alone)], ranked

    assert asked(on_device()) == asked(plain)


def test_the_baked_prefix_goes_to_a_gpu_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = scorer_of(load()).decoder
    sent: list[int] = []
    repeat = decoder._repeat_static

    def counted(queries: int) -> object:
        sent.append(queries)
        return repeat(queries)

    monkeypatch.setattr(decoder, "_repeat_static", counted)
    for queries in (1, 2, 2, 3, 2):
        decoder._static(queries)
    assert sent == [2, 2, 3, 2]  # a CPU need not remember
    session = SimpleNamespace(device="cuda", to_device=decoder.session.to_device)
    monkeypatch.setattr(decoder, "session", session)
    sent.clear()
    found = [decoder._static(queries) for queries in (1, 2, 2, 3, 3, 2)]
    assert sent == [2, 3, 2]
    assert [value.values[0].shape()[0] for value in found] == [1, 2, 2, 3, 3, 2]


@contextmanager
def gpu_that_fails(engine: Engine, at_run: int) -> Iterator[None]:
    session: Any = scorer_of(engine).decoder.session
    run, runs = session._session.run_with_iobinding, iter(range(99))

    def fail(binding: object) -> None:
        if next(runs) == at_run:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        run(binding)

    session._session.run_with_iobinding = fail
    yield


def many(engine: Engine) -> object:
    return engine.mu_many(QUERIES, [CANDIDATES] * 3)


def single(engine: Engine) -> object:
    return engine.mu(QUERIES[0], CANDIDATES)


@pytest.mark.parametrize(
    ("pairs", "ask", "named"),
    [
        (18, many, r"queries 1 to 2 of 3: .*decoder\.onnx: the GPU failed"),
        (9, many, r"queries 1 to 1 of 3: .*decoder\.onnx: the GPU failed"),
        (9, single, r"^[^:]*decoder\.onnx: the GPU failed"),
    ],
)
def test_a_gpu_that_fails_names_the_queries(
    pairs: int, ask: Callable[[Engine], object], named: str
) -> None:
    engine = load(max_pairs=pairs)
    with gpu_that_fails(engine, 2 if ask is many else 1), pytest.raises(MachineError, match=named):
        ask(engine)
    with pytest.raises(MachineError, match=r"decoder\.onnx was given up"):
        engine.mu(QUERIES[2], CANDIDATES)
