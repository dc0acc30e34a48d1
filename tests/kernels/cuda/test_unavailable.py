"""device="cuda" where it cannot run: one sentence with the remedy, before any work."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from murank_kernels import (
    DeviceUnavailableError,
    InvalidInputError,
    ca_jaccard,
    ecn,
    evaluate_rank,
    k_reciprocal,
    simple,
)
from murank_kernels.cuda import require

FEATURES = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
CAMERAS = np.zeros(9, int)
LABELS = (np.arange(3), np.arange(6) % 3, np.zeros(3, int), np.ones(6, int))


FakeCupy = Callable[..., Any]


def refusal(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> str:
    monkeypatch.setattr(require, "load_cupy", lambda: cupy)
    monkeypatch.setattr(require, "load_cublas", lambda: None)
    with pytest.raises(DeviceUnavailableError) as caught:
        k_reciprocal(FEATURES, 3, device="cuda")
    message = str(caught.value)
    assert message.startswith("device='cuda' ")
    assert message.endswith(", or use device='cpu'")
    return message


def has_gpu() -> bool:
    try:
        require.usable_cupy()
    except DeviceUnavailableError:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="this machine has what device='cuda' needs")
def test_this_machine() -> None:
    """Nothing is faked here: what is said must name something to do."""
    for call in (k_reciprocal, ecn, simple):
        with pytest.raises(DeviceUnavailableError, match=r"murank\[cuda\]|install it|nvidia-smi"):
            call(FEATURES, 3, device="cuda")
    with pytest.raises(DeviceUnavailableError, match="device='cuda'"):
        ca_jaccard(FEATURES, 3, CAMERAS, device="cuda")


@pytest.mark.parametrize(("name", "value"), [("cuda", None), ("find_spec", lambda _: None)])
def test_without_numba_cuda(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy
) -> None:
    """Numba has a CUDA part of its own, which is found where numba-cuda is not."""
    monkeypatch.setattr(require, name, value)
    message = refusal(monkeypatch, fake_cupy())
    assert "numba-cuda, which is not installed: pip install 'murank[cuda]'" in message


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise ImportError("No module named 'cupy'")

    monkeypatch.setattr(require, "load_cupy", fails)
    with pytest.raises(DeviceUnavailableError, match=r"needs CuPy, .*: pip install 'murank.cuda"):
        simple(FEATURES, 3, device="cuda")


def test_without_cublas(monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy) -> None:
    def fails() -> None:
        raise ImportError("libcublas.so.13")

    monkeypatch.setattr(require, "load_cupy", fake_cupy)
    monkeypatch.setattr(require, "load_cublas", fails)
    with pytest.raises(DeviceUnavailableError, match=r"no cuBLAS \(libcublas.so.13\): pip install"):
        simple(FEATURES, 3, device="cuda")


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"driver": 0}, "finds no driver: install it (on a Jetson it is part of JetPack)"),
        ({"driver": 12040}, "driver for CUDA 12.4, which is too old for this CuPy, built for CUDA"),
        ({"count": 0}, "finds no GPU: check nvidia-smi"),
        ({"fault": "no device"}, "finds no GPU that works (no device): check"),
        ({"capability": "72"}, "compute capability 7.5 or newer, this one has 7.2"),
    ],
)
def test_what_is_missing(
    facts: dict[str, Any], part: str, monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy
) -> None:
    assert part in refusal(monkeypatch, fake_cupy(**facts))


@pytest.mark.parametrize("facts", [{}, {"capability": "110"}, {"driver": 13000, "built": 13020}])
def test_what_is_enough(
    facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy
) -> None:
    cupy = fake_cupy(**facts)
    monkeypatch.setattr(require, "load_cupy", lambda: cupy)
    monkeypatch.setattr(require, "load_cublas", lambda: None)
    assert require.usable_cupy() is cupy


def test_a_wrong_device_is_not_a_missing_one() -> None:
    with pytest.raises(InvalidInputError, match="device"):
        simple(FEATURES, 3, device="gpu")


def test_products_are_checked_before_anything_is_looked_for() -> None:
    calls: list[Callable[..., Any]] = [
        k_reciprocal,
        ecn,
        simple,
        partial(ca_jaccard, camids=CAMERAS),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="must be 'float32' or 'tf32', got 'bf16'"):
            call(FEATURES, 3, products="bf16", device="cuda")
        with pytest.raises(InvalidInputError, match="products='tf32' is for device='cuda': a CPU"):
            call(FEATURES, 3, products="tf32")
        with pytest.raises(InvalidInputError, match="device"):
            call(FEATURES, 3, products="tf32", device="gpu")


class OnDevice:
    """An array in a GPU's memory, as far as anybody looks."""

    __cuda_array_interface__ = {"shape": (9, 4), "typestr": "<f4", "version": 3}  # noqa: RUF012
    shape = (9, 4)


def test_arrays_on_a_gpu_and_work_on_the_cpu() -> None:
    given: Any = OnDevice()
    calls: dict[str, Callable[[], Any]] = {
        "features": lambda: simple(given, 3),
        "mu": lambda: simple(FEATURES, 3, mu=given, candidates=np.zeros((3, 1), int)),
        "q_pids": lambda: evaluate_rank(np.zeros((3, 6)), given, *LABELS[1:]),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidInputError, match=f"{name} is in a GPU's memory: pass device"):
            call()
