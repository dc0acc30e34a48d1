"""Rows on a device, proved with onnxruntime's CPU as the device."""

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from murank import MachineError
from murank.engine import device_rows
from murank.engine.device_rows import DeviceRows, HostRow, Row, as_input, one
from murank.engine.session import Session, SessionSettings
from murank.engine.tiny_onnx import gather, matmul

pytest.importorskip("onnxruntime")
SHAPE = (2, 3, 4)
CPU = SessionSettings("cpu", 1)


def images(count: int, dtype: Any = np.float32, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(dtype)


def kept(rows: DeviceRows, batch: Any, places: Sequence[int]) -> list[Row]:
    found = [rows.put(batch, place) for place in places]
    assert all(row is not None for row in found)
    return cast("list[Row]", found)


def grid(items: Sequence[object], *shape: int) -> NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_arrangement_comes_back_to_the_bit(dtype: Any) -> None:
    batch = images(5, dtype)
    rows = DeviceRows(CPU, 7, SHAPE, np.dtype(dtype))
    found = kept(rows, batch, [4, 0, 2])
    value = as_input(grid([found[1], found[2], found[0], found[0], found[1], found[1]], 2, 3))
    assert not isinstance(value, np.ndarray)
    np.testing.assert_array_equal(value.numpy(), batch[[[0, 2, 4], [4, 0, 0]]])
    np.testing.assert_array_equal(found[0].numpy(), batch[4])


def test_from_a_value_that_is_on_the_device_already() -> None:
    batch = images(3)
    rows = DeviceRows(CPU, 2, SHAPE, np.dtype(np.float32))
    (row,) = kept(rows, rows._session.to_device(batch), [1])
    np.testing.assert_array_equal(row.numpy(), batch[1])


def test_a_row_is_used_again_when_nobody_holds_it() -> None:
    batch = images(4)
    rows = DeviceRows(CPU, 2, SHAPE, np.dtype(np.float32))
    first, second = kept(rows, batch, [0, 1])
    assert rows.put(batch, 2) is None
    place = first.place
    del first
    gc.collect()
    (third,) = kept(rows, batch, [2])
    assert third.place == place
    np.testing.assert_array_equal(second.numpy(), batch[1])
    np.testing.assert_array_equal(third.numpy(), batch[2])


def test_a_copy_that_fails_keeps_no_row() -> None:
    rows = DeviceRows(CPU, 1, SHAPE, np.dtype(np.float32))
    with pytest.raises(Exception, match="could not be run"):
        rows.put(images(2), 9)
    gc.collect()
    assert len(rows._free) == 1


def test_some_on_the_host_are_sent_along() -> None:
    batch = images(3)
    rows = DeviceRows(CPU, 1, SHAPE, np.dtype(np.float32))
    (row,) = kept(rows, batch, [0])
    value = as_input(grid([HostRow(batch[2]), row, row, HostRow(batch[1])], 2, 2))
    np.testing.assert_array_equal(value, batch[[[2, 0], [0, 1]]])
    plain = images(2)
    assert as_input(plain) is plain


def test_rows_pass_through_numpy_as_they_are() -> None:
    """What callers do with arrays of tokens: stack, index, reshape."""
    batch = images(2)
    rows = DeviceRows(CPU, 2, SHAPE, np.dtype(np.float32))
    a, b = kept(rows, batch, [0, 1])
    stacked = np.stack(cast("Any", [a, b, b]))
    assert stacked.shape == (3,)
    assert stacked[1] is b
    assert [item.place for item in stacked[None][0]] == [a.place, b.place, b.place]
    assert one(a)[0] is a


def test_threads_never_see_each_others_rows() -> None:
    batch = images(40)
    rows = DeviceRows(CPU, 24, SHAPE, np.dtype(np.float32))  # 3 being made and 3 held, each

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
    said = {"device": "cuda", "device_id": 1, "type": "tensor(float16)"}
    said |= {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]} | changes
    output = SimpleNamespace(name="tokens", type=said.pop("type"))
    for name, value in said.items():
        setattr(session, name, value)
    session._session = SimpleNamespace(get_outputs=lambda: [output])
    return session


class FakeRows:
    asked: tuple[Any, ...]
    on_cpu: dict[str, int] = {}  # noqa: RUF012 - a stand-in

    def __init__(self, *what: Any) -> None:
        FakeRows.asked = what
        self._session = SimpleNamespace(on_cpu=FakeRows.on_cpu)


WANTED: dict[str, Any] = {
    "output": "tokens", "count": 9, "shape": SHAPE, "dtype": np.dtype(np.float16)
}  # fmt: skip


def test_where_they_are_kept_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_rows, "DeviceRows", FakeRows)
    settings = SessionSettings("cuda", 3)
    found: object = device_rows.device_rows(fake_session(), settings, **WANTED)
    assert isinstance(found, FakeRows)
    asked = SessionSettings([("CUDAExecutionProvider", {"device_id": "1"})], 3)
    assert FakeRows.asked == (asked, 9, SHAPE, np.dtype(np.float16))
    for session in (
        fake_session(device="cpu", providers=["CPUExecutionProvider"]),
        fake_session(device="cpu", providers=["CPUExecutionProvider", "CUDAExecutionProvider"]),
        fake_session(providers=["TensorrtExecutionProvider", "CPUExecutionProvider"]),
        fake_session(type="tensor(float)"),
        SimpleNamespace(device="cuda", providers=["TensorRT"]),
    ):
        assert device_rows.device_rows(cast("Any", session), settings, **WANTED) is None
    monkeypatch.setattr(FakeRows, "on_cpu", {"Gather": 1})  # each run would fetch the whole block
    assert device_rows.device_rows(fake_session(), settings, **WANTED) is None


def test_a_block_that_the_device_has_no_memory_for() -> None:
    with pytest.raises(MachineError, match=r"vision tokens on the device: \d+ MiB more are wanted"):
        DeviceRows(CPU, 1 << 40, SHAPE, np.dtype(np.float32))


@pytest.mark.parametrize("content", [gather(np.dtype(np.float16), SHAPE), matmul(64)])
def test_the_bytes_are_a_model(content: bytes) -> None:
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    assert names in (["rows", "places", "found"], ["a", "b", "c"])


def test_the_product_is_one() -> None:
    from pathlib import Path

    session = Session(Path("product"), CPU, graph=matmul(64))
    a, b = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32)
    (c,) = session.run({"a": a, "b": b}, ["c"])
    np.testing.assert_allclose(c.numpy(), a.astype(np.float64) @ b, atol=1e-4)
