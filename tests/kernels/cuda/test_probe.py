"""The first kernel of a process: what it tells must be what it was given."""

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from murank_kernels import DeviceUnavailableError
from murank_kernels.cuda import probe
from murank_kernels.cuda.parameters import as_words

Start = Callable[..., None]


class Cupy:
    """Arrays in host memory, with addresses; `start` fills the one that a kernel writes to."""

    __version__ = "14.9"

    def __init__(self, told: Any = probe.TOLD) -> None:
        self.told = told
        self.arrays: list[Any] = []
        self.launches: list[tuple[Any, ...]] = []

    def asarray(self, array: Any) -> Any:
        at = SimpleNamespace(ptr=1000 + len(self.arrays))
        self.arrays.append(SimpleNamespace(host=array, data=at, shape=array.shape, size=array.size))
        return self.arrays[-1]

    def asnumpy(self, array: Any) -> Any:
        return array.host

    def start(self, *launch: Any) -> None:
        self.launches.append(launch)
        if isinstance(self.told, Exception):
            raise self.told
        self.arrays[2].host[:] = self.told


def is_fault(error: BaseException) -> bool:
    return isinstance(error, FloatingPointError)


def test_what_is_given() -> None:
    cupy = Cupy()
    probe.check(cupy, cupy.start, is_fault)
    ((grid, block, words, shared),) = cupy.launches
    assert (grid, block, shared) == ((1,), (1,), 0)
    matrix, vector, out = (
        [0, 0, 6, 4, 1000, 2, 3, 12, 4],
        [0, 0, 4, 4, 1001, 4, 4],
        [0, 0, 12, 8, 1002, 12, 8],
    )
    assert words == [*matrix, 1 << 40, True, *vector, 0.5, *out, 0.25]


@pytest.mark.parametrize("place", range(len(probe.TOLD)))
def test_any_other_value_is_refused(place: int) -> None:
    told = list(probe.TOLD)
    told[place] += 1
    cupy = Cupy(told)
    with pytest.raises(DeviceUnavailableError) as caught:
        probe.check(cupy, cupy.start, is_fault)
    message = str(caught.value)
    assert f"given other values than {tuple(map(float, told))}): launches were written" in message
    assert " and CuPy 14.9; install those, or use device='cpu'" in message
    assert "here are numba-cuda 0" in message


def test_a_fault_is_told_with_the_versions() -> None:
    cupy = Cupy(FloatingPointError("illegal address"))
    with pytest.raises(
        DeviceUnavailableError, match=r"\(FloatingPointError: illegal address\): la"
    ):
        probe.check(cupy, cupy.start, is_fault)
    bug = Cupy(KeyError("ours"))
    with pytest.raises(KeyError, match="ours"):
        probe.check(bug, bug.start, is_fault)


def test_words_are_those_of_numbas_own_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rule for arrays is in no documentation."""
    pytest.importorskip("numba_cuda")
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    types: Any = importlib.import_module("numba.cuda.types")
    shaped = SimpleNamespace(
        size=6, shape=(2, 3), dtype=np.dtype(np.float32), ptr=99, data=SimpleNamespace(ptr=99),
        _layout=SimpleNamespace(
            strides_in_bytes=None, is_contiguous_c=True, is_contiguous_f=False
        ),
    )  # fmt: skip
    wrapped = SimpleNamespace(to_device=lambda *_: shaped)
    monkeypatch.setattr(dispatcher, "wrap_arg", lambda _: wrapped)
    handed: list[Any] = []
    dispatcher._Kernel._prepare_args(
        SimpleNamespace(extensions=[]), types.Array(types.float32, 2, "C"), shaped, 0, [], handed
    )
    assert handed == as_words(probe.tell.parameters[:1], [shaped])
