"""Rows on a device, proved with onnxruntime's CPU as the device."""

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from murank import MachineError
from murank.backends.device_rows import DeviceRows, HostRow, Row, as_input, boxed, device_rows
from murank.backends.onnx import session as session_module
from murank.backends.onnx.rows import OnnxRows
from murank.backends.onnx.session import Session, SessionSettings
from murank.backends.onnx.tiny_onnx import gather, matmul, to_bfloat16
from murank.backends.protocol import RowBlock

pytest.importorskip("onnxruntime")
SHAPE = (2, 3, 4)
CPU = SessionSettings("cpu", 1)
FLOAT = np.dtype(np.float32)


def copier(dtype: np.dtype[Any] = FLOAT) -> Session:
    return Session(Path("rows"), CPU, graph=gather(dtype, SHAPE))


def on_cpu(count: int, dtype: Any = FLOAT) -> DeviceRows:
    """Rows in a block that onnxruntime's CPU holds."""
    block: RowBlock = OnnxRows(copier(np.dtype(dtype)), count, SHAPE, np.dtype(dtype))
    return DeviceRows(block, count, SHAPE, np.dtype(dtype))


def images(count: int, dtype: Any = np.float32, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(dtype)


def kept(rows: DeviceRows, batch: NDArray[Any], numbers: Sequence[int]) -> list[Row]:
    found = rows.put(batch[list(numbers)], len(numbers))
    assert len(found) == len(numbers)
    return found


def grid(items: Sequence[object], *shape: int) -> NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_arrangement_comes_back_to_the_bit(dtype: Any) -> None:
    batch = images(5, dtype)
    rows = on_cpu(7, dtype)
    found = kept(rows, batch, [4, 0, 2])
    value = as_input(grid([found[1], found[2], found[0], found[0], found[1], found[1]], 2, 3))
    assert not isinstance(value, np.ndarray)
    np.testing.assert_array_equal(value.numpy(), batch[[[0, 2, 4], [4, 0, 0]]])
    np.testing.assert_array_equal(found[0].numpy(), batch[4])


def test_from_a_value_that_is_on_the_device_already() -> None:
    batch = images(3)
    rows = on_cpu(4)
    found = rows.put(copier().to_device(batch), 2)
    for row, wanted in zip(found, batch, strict=False):
        np.testing.assert_array_equal(row.numpy(), wanted)


def test_a_row_is_used_again_when_nobody_holds_it() -> None:
    batch = images(4)
    rows = on_cpu(2)
    first, second = kept(rows, batch, [0, 1])
    assert rows.put(batch, 2) == []
    place = first.place
    del first
    gc.collect()
    (third,) = kept(rows, batch, [2])
    assert third.place == place
    np.testing.assert_array_equal(second.numpy(), batch[1])
    np.testing.assert_array_equal(third.numpy(), batch[2])


def test_a_copy_that_fails_keeps_no_row() -> None:
    rows = on_cpu(3)
    with pytest.raises(Exception, match="could not be run"):
        rows.put(images(2).astype(np.float16), 2)
    gc.collect()
    assert len(rows._free) == 3


class Noting:
    """A block that notes what is written where, and does it."""

    def __init__(self, block: RowBlock) -> None:
        self._block, self.written = block, [(0, 0, 0)]
        self.gathered = block.gathered

    def write(self, place: int, batch: Any, number: int, count: int = 1) -> None:
        self.written.append((place, number, count))
        self._block.write(place, batch, number, count)


def test_neighbours_are_written_in_one_run() -> None:
    rows, batch = on_cpu(8), images(6)
    rows._block = block = Noting(rows._block)
    found = rows.put(batch, 6)
    assert block.written[1:] == [(0, 0, 6)]
    for gone in (4, 1, 2):  # in this order they are used again, after those that never were
        found[gone] = cast("Any", None)
    again = rows.put(images(5, seed=1), 5)
    assert [row.place for row in again] == [1, 2, 4, 6, 7]
    assert block.written[2:] == [(1, 0, 2), (4, 2, 1), (6, 3, 2)]
    value = as_input(grid([*again, found[3], found[0]], 1, 7))
    np.testing.assert_array_equal(value.numpy()[0, :5], images(5, seed=1))
    np.testing.assert_array_equal(value.numpy()[0, 5:], batch[[3, 0]])


def test_what_there_is_room_for() -> None:
    rows, batch = on_cpu(3), images(5)
    found = rows.put(batch, 5)
    assert [row.place for row in found] == [0, 1, 2]
    np.testing.assert_array_equal(as_input(grid(found, 1, 3)).numpy()[0], batch[:3])


@pytest.mark.parametrize(
    ("place", "number", "count"), [(3, 0, 1), (-1, 0, 1), (2, 0, 2), (0, 4, 1), (0, -1, 1)]
)
def test_nothing_is_written_past_an_end(place: int, number: int, count: int) -> None:
    block = OnnxRows(copier(), 3, SHAPE, FLOAT)
    for batch in (images(4), copier().to_device(images(4))):
        with pytest.raises(IndexError, match="do not fit into place"):
            block.write(place, batch, number, count)
    block.write(1, images(4), 2, 2)


def test_some_on_the_host_are_sent_along() -> None:
    batch = images(3)
    rows = on_cpu(1)
    (row,) = kept(rows, batch, [0])
    value = as_input(grid([HostRow(batch[2]), row, row, HostRow(batch[1])], 2, 2))
    np.testing.assert_array_equal(value, batch[[[2, 0], [0, 1]]])
    plain = images(2)
    assert as_input(plain) is plain


def test_rows_pass_through_numpy_as_they_are() -> None:
    """What callers do with arrays of tokens: stack, index, reshape."""
    batch = images(2)
    rows = on_cpu(2)
    a, b = kept(rows, batch, [0, 1])
    stacked = np.stack(cast("Any", [a, b, b]))
    assert stacked.shape == (3,)
    assert stacked[1] is b
    assert [item.place for item in stacked[None][0]] == [a.place, b.place, b.place]
    assert boxed(a)[0] is a


def test_threads_never_see_each_others_rows() -> None:
    batch = images(40)
    rows = on_cpu(24)  # 3 being made and 3 held, each

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            places = random.integers(0, len(batch), 3)
            found = kept(rows, batch, places.tolist())
            value = as_input(grid(found, 1, 3))
            np.testing.assert_array_equal(value.numpy()[0], batch[places])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    gc.collect()
    assert sorted(rows._free) == list(range(24))


def fake_session(**changes: Any) -> Any:
    """A Session that says it runs on a GPU."""
    session = Session.__new__(Session)
    said = {"device": "cuda", "device_id": 1, "type": "tensor(float16)", "_threads": 3}
    said |= {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]} | changes
    session._types = {"tokens": str(said.pop("type"))}
    for name, value in said.items():
        setattr(session, name, value)
    return session


class FakeCopier:
    asked: tuple[Any, ...]
    on_cpu: dict[str, int] | None = None

    def __init__(self, name: Path, settings: SessionSettings, *, graph: bytes) -> None:
        FakeCopier.asked = (str(name), settings, graph)

    def allocate(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        return ("block", tuple(shape), dtype)


HALF = np.dtype(np.float16)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64"])
def test_memory_is_empty(dtype: str) -> None:
    made = copier().allocate((3, 2, 5), np.dtype(dtype)).numpy()
    assert (made.dtype.name, made.shape, made.any()) == (dtype, (3, 2, 5), False)


CUDA_1 = ("onnxruntime", "cuda", 1)


def wanted(session: Any, taker: tuple[str, str, int] = CUDA_1) -> DeviceRows | None:
    return device_rows(session, taker, output="tokens", count=9, shape=SHAPE, dtype=HALF)


def test_where_they_are_kept_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "Session", FakeCopier)
    found = wanted(fake_session())
    assert found is not None
    assert len(found._free) == 9
    block = cast("OnnxRows", found._block)
    assert block._block == ("block", (9, *SHAPE), HALF)
    name, settings, graph = FakeCopier.asked
    assert (name, graph) == ("vision tokens on the device", gather(HALF, SHAPE))
    ((provider, options),) = cast("Any", settings.providers)
    assert (provider, options["device_id"]) == ("CUDAExecutionProvider", "1")
    assert settings.threads == 3
    cpu = {"device": "cpu", "device_id": 0}
    for session in (
        fake_session(providers=["CPUExecutionProvider"], **cpu),
        fake_session(providers=["CPUExecutionProvider", "CUDAExecutionProvider"], **cpu),
        fake_session(providers=["TensorrtExecutionProvider", "CPUExecutionProvider"]),
        fake_session(type="tensor(float)"),
        fake_session(type="tensor(bfloat16)"),
    ):
        assert wanted(session, session.memory) is None
    monkeypatch.setattr(FakeCopier, "on_cpu", {"Gather": 1})  # each run would fetch the block
    assert wanted(fake_session()) is None


@pytest.mark.parametrize(
    "taker", [("onnxruntime", "cpu", 0), ("onnxruntime", "cuda", 0), ("tensorrt", "cuda", 1)]
)
def test_a_decoder_elsewhere_gets_arrays(
    monkeypatch: pytest.MonkeyPatch, taker: tuple[str, str, int]
) -> None:
    monkeypatch.setattr(session_module, "Session", FakeCopier)
    assert wanted(fake_session(), taker) is None
    assert wanted(fake_session(), CUDA_1) is not None


def test_a_block_that_the_device_has_no_memory_for() -> None:
    with pytest.raises(MachineError, match=r"^rows: \d+ MiB more are wanted on the device"):
        OnnxRows(copier(), 1 << 40, SHAPE, FLOAT)


@pytest.mark.parametrize("content", [gather(HALF, SHAPE), matmul(64), to_bfloat16(4)])
def test_the_bytes_are_a_model(content: bytes) -> None:
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    assert names in (["rows", "places", "found"], ["a", "b", "c"], ["wide", "narrow"])


def test_the_product_is_one() -> None:
    session = Session(Path("product"), CPU, graph=matmul(64))
    a, b = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32)
    (c,) = session.run({"a": a, "b": b}, ["c"])
    np.testing.assert_allclose(c.numpy(), a.astype(np.float64) @ b, atol=1e-4)
