"""int8 on CPUs of several kinds."""

import platform
from pathlib import Path

import pytest

from murank import MachineError, _integer_products
from murank._integer_products import multiplies_exactly
from murank.engine import engine as engine_module

INTEL = "processor\t: 0\nflags\t\t: fpu avx2 {}\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "exact"),
    [
        ("x86_64", INTEL.format("avx512f"), False),
        ("x86_64", INTEL.format("avx512_vnni"), True),
        ("x86_64", INTEL.format("avx_vnni"), True),
        ("x86_64", "nothing: known\n", True),
        ("aarch64", INTEL.format(""), True),
    ],
)
def test_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, cpuinfo: str, exact: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(_integer_products, "_CPU_INFO", file)
    assert multiplies_exactly()  # no such file
    file.write_text(cpuinfo)
    assert multiplies_exactly() is exact


def test_an_int8_engine_is_refused_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "multiplies_exactly", lambda: False)
    with pytest.raises(MachineError, match=r"VNNI.*--dtype fp32"):
        engine_module._cpu_only("cpu", Path("engine"))
