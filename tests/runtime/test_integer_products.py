"""int8 on CPUs of several kinds."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from murank.backends.onnx import session as _session
from murank.backends.onnx.integer_probe import products_are_exact
from murank.backends.onnx.session import Session, SessionSettings
from murank.backends.onnx.tiny_onnx import integer_product
from murank.machine import cpu_flags as _cpu_flags
from murank.machine.integer_products import multiplies_exactly, told

INTEL = "processor\t: 0\nflags\t\t: fpu avx2 {}\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "exact", "says"),
    [
        ("x86_64", INTEL.format("avx512f"), False, "no VNNI"),
        ("x86_64", INTEL.format("avx512_vnni"), True, "avx512_vnni"),
        ("x86_64", INTEL.format("avx_vnni"), True, "avx_vnni"),
        ("x86_64", "nothing: known\n", True, None),
        ("aarch64", ARM.format("asimddp i8mm bf16"), True, "i8mm, asimddp, bf16"),
        ("aarch64", ARM.format(""), True, "no asimddp"),
        ("aarch64", "nothing: known\n", True, None),
        ("riscv64", INTEL.format(""), True, None),
    ],
)
def test_flags(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    machine: str,
    cpuinfo: str,
    exact: bool,
    says: str | None,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(_cpu_flags, "_CPU_INFO", file)
    assert multiplies_exactly()  # no such file
    assert told() is None
    file.write_text(cpuinfo)
    assert multiplies_exactly() is exact
    found = told()
    assert found is None if says is None else found is not None and found.startswith(says)


@pytest.fixture
def without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions ask for products that no x86 CPU gets wrong, whatever this one is."""
    monkeypatch.setattr(_session, "multiplies_exactly", lambda: False)


def product(weight: Any, x: Any) -> Any:
    graph = integer_product(weight)
    session = Session(Path("a product"), SessionSettings("cpu", 1), graph=graph)
    (y,) = session.run({"x": x}, ["y"])
    return y.numpy()


@pytest.mark.usefixtures("without_vnni")
@pytest.mark.parametrize("rows", [1, 2, 5, 40])
@pytest.mark.parametrize("shape", [(2, 1), (33, 7), (768, 48)])
def test_products_without_vnni_are_whole(shape: tuple[int, int], rows: int) -> None:
    """Steps near the largest: sums of two leave 16 bits, those of a row do not leave 32."""
    random = np.random.default_rng(rows)
    weight = random.choice(np.array([-127, 126, 127], np.int8), shape)
    x = random.integers(200, 256, (rows, shape[0])).astype(np.uint8)
    found = product(weight, x)
    np.testing.assert_array_equal(found, x.astype(np.int64) @ weight.astype(np.int64))


@pytest.mark.usefixtures("without_vnni")
def test_the_probe_finds_them_right() -> None:
    products_are_exact.cache_clear()
    assert products_are_exact()
    products_are_exact.cache_clear()


def test_the_probe_finds_what_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime to which the option says nothing, on a CPU that needs it."""
    run = Session.run

    def saturating(self: Session, inputs: Any, outputs: Any) -> Any:
        (y,) = run(self, inputs, outputs)
        return [type("Value", (), {"numpy": lambda _: y.numpy().clip(-(2**15), 2**15 - 1)})()]

    monkeypatch.setattr(Session, "run", saturating)
    products_are_exact.cache_clear()
    assert not products_are_exact()
    products_are_exact.cache_clear()
