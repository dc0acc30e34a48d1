"""int8 on CPUs of several kinds."""

import platform
from pathlib import Path

import pytest

from murank.machine import integer_products as _integer_products
from murank.machine.integer_products import multiplies_exactly

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
