import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest
from plan_devices import made_device
from refusal import Refuse
from wide_engine import ENGINE

from murank.cli import main
from murank_export.plan import host as _host
from murank_export.plan import plan_cli as _plan
from murank_export.plan.devices import DEVICES, Device


def plan(capsys: pytest.CaptureFixture[str], *options: str, engine: Path = ENGINE) -> str:
    code = main(["plan", str(engine), *options])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def test_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    out = plan(capsys, "--board", "orin-nano-8gb", "--candidates", "7", "--gallery-size", "50")
    for text in (
        f"{ENGINE}: fp32, NVIDIA Jetson Orin Nano 8GB (MAXN SUPER)",
        "7 candidates, gallery of 50 images: prediction, not measured",
        "vision, 7 candidates", "query, vision known", "query, nothing known",
        "of 6144 MiB: fits", "assumed: 35% of these rates, 60% of the bandwidth",
        f"source: {DEVICES['orin-nano-8gb'].source}", "note: decoding and resizing the image",
        "note: float32 products count in full precision; murank build --tf32",
    ):  # fmt: skip
        assert text in out
    assert "measured ms" not in out
    assert "what to change" not in out


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(plan(capsys, "--board", "h200", "--json"))
    assert found["kind"] == "prediction, not measured"
    assert (found["candidates"], found["gallery_size"]) == (20, 1000)
    assert found["device"]["source"] == DEVICES["h200"].source
    assert found["device"]["assumed"]["compute"] == 0.35
    total = sum(stage["predicted_s"] for stage in found["stages"])
    assert found["query"]["uncached"]["predicted_s"] == pytest.approx(total)
    parts = found["memory"]["parts"]
    on_card = sum(part["bytes"] for part in parts if part["on_device"])
    assert found["memory"]["needed_bytes"] == on_card
    assert found["memory"]["fits"] is True
    assert found["uncounted"] == {}


def test_what_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    out = plan(capsys, "--board", "agx-orin-64gb", "--memory-gb", "1")
    assert "of 1024 MiB: DOES NOT FIT" in out
    assert "export with --dtype fp16" in out
    assert "none of these is enough" in out  # Python and the driver alone are more
    needed = json.loads(plan(capsys, "--board", "agx-orin-64gb", "--json"))["memory"]
    tight = (needed["needed_bytes"] - 1000) / 2**30
    out = plan(capsys, "--board", "agx-orin-64gb", "--memory-gb", str(tight))
    assert "DOES NOT FIT" in out
    assert "none of these" not in out


def test_a_slower_power_mode(capsys: pytest.CaptureFixture[str]) -> None:
    fast, slow = (
        json.loads(plan(capsys, "--board", "agx-orin-64gb", "--power-mode", mode, "--json"))
        for mode in ("maxn", "15w")
    )
    assert fast["query"]["cached"]["floor_s"] < slow["query"]["cached"]["floor_s"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--board t4 --candidates 20 --gallery-size 10", "--candidates"),
        ("--board t4 --candidates 0", "--candidates"),
        ("--board t4 --memory-gb 0", "--memory-gb"),
        ("--board t4 --memory-gb nan", "--memory-gb"),
        ("--board t4 --check", "--board"),
        ("--board t4 --threads 2", "--board"),
        ("--board cpu --power-mode 15w", "--power-mode"),
        ("--board orin-nano-8gb --power-mode 7w", "super"),
        ("--board t4 --expect-dtype fp16", "export it again with --dtype fp16"),
        ("--board agx-orin-64gb --expect-dtype fp8", "agx-orin-64gb (compute capability 8.7)"),
        ("--board t4 --expect-dtype bf16", "t4 (compute capability 7.5)"),
        ("--board t4 --expect-dtype int4", "t4 (compute capability 7.5)"),
        ("--board cpu --expect-dtype bf16", "cpu has no bf16"),
        ("--board l4 --expect-dtype w8a16", "--dtype"),
        ("--board h200 --expect-dtype fp8", "export it again with --dtype fp8"),
        ("--candidates 3", "--board"),
        ("--board gtx-480", "orin-nano-8gb"),
    ],
)
def test_refused(options: str, named: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "plan_engine", None)  # before anything is counted
    monkeypatch.setattr(_plan, "this_cpu", None)
    refuse("plan", ENGINE, *options.split(), names=named)


def test_no_engine(tmp_path: Path, refuse: Refuse) -> None:
    refuse("plan", tmp_path, "--board", "t4", names="manifest.json")


@pytest.mark.parametrize(
    ("precision", "refusing", "taking"), [("int8", "l4", "cpu"), ("fp8", "orin-nx-16gb", "l4")]
)
def test_an_engine_that_the_device_cannot_multiply(
    precision: str,
    refusing: str,
    taking: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refuse: Refuse,
) -> None:
    monkeypatch.setattr(_plan, "this_cpu", lambda _: made_device(kind="cpu", shared=True))
    engine = Path(shutil.copytree(ENGINE, tmp_path / "engine"))
    edit_manifest(engine, lambda data: data.update(precision=precision))
    refuse("plan", engine, "--board", refusing, names=f"{engine} is {precision}")
    plan(capsys, "--board", taking, engine=engine)
    edit_manifest(engine, lambda data: data.update(scorer=None))  # its encoder is in floats
    plan(capsys, "--board", refusing, engine=engine)


def test_how_quantised_graphs_are_counted_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Path(shutil.copytree(ENGINE, tmp_path / "engine"))
    edit_manifest(engine, lambda data: data.update(precision="int8-qdq"))
    assert "note: Q/DQ graphs are counted as TensorRT multiplies them" in plan(
        capsys, "--board", "l4", engine=engine
    )
    monkeypatch.setattr(_plan, "this_cpu", lambda _: made_device(kind="cpu", shared=True))
    assert "compute Q/DQ graphs in floats, node by node: for checks only" in plan(
        capsys, "--board", "cpu", engine=engine
    )
    assert "Q/DQ" not in plan(capsys, "--board", "l4")


def test_checked_on_this_cpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "_SECONDS", 0.0)
    devices = iter([made_device(kind="cpu", shared=True), faster_device()])
    monkeypatch.setattr(_plan, "this_cpu", lambda _: next(devices))
    options = ("--board", "cpu", "--check", "--threads", "1", "--candidates", "9", "--json")
    found = json.loads(plan(capsys, *options, "--gallery-size", "40"))
    for stage in found["stages"]:
        assert 0 < stage["measured_s"] < 10
    assert found["device"]["rates"] == {"fp32": 10.0, "int8": 80.0}  # the better of both
    grown = found["memory"]["measured_of_graphs_bytes"]
    assert grown is None or 0 <= grown < 1 << 30


def faster_device() -> Device:
    return made_device(kind="cpu", shared=True, rates={"fp32": 9.0, "int8": 80.0})


def test_the_table_of_a_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "_SECONDS", 0.0)
    monkeypatch.setattr(_plan, "this_cpu", lambda _: made_device(kind="cpu", shared=True))
    out = plan(capsys, "--board", "cpu", "--check", "--candidates", "2")
    assert "measured ms   error" in out
    assert "MiB predicted" in out
    assert out.count("%\n") == 0
    assert out.count("%  ") >= 7  # an error for every stage


@pytest.mark.parametrize("threads", [None, 1])
def test_this_cpu_is_measured(threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host, "_SECONDS", 0.0)
    monkeypatch.setattr(_host, "_SIZE", 256)
    monkeypatch.setattr(_host, "_COPIED", 1 << 20)
    device = _host.this_cpu(threads)
    assert set(device.rates) == {"fp32", "int8"}
    # No CPU of these decades is outside, a hundred times slower for a moment's neighbours.
    assert all(1e6 < rate < 1e14 for rate in device.rates.values())
    assert 1e6 < device.bandwidth < 1e13
    assert 1 << 26 < device.memory_bytes < 1 << 45
    assert device.kind == "cpu"
    assert "measured here" in device.source


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_the_measured_product_is_a_product(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host, "_SIZE", 32)
    (found,) = _result(_host._product(kind, 1))
    random = np.random.default_rng(0)
    left, right = (random.integers(0, 100, (32, 32)) for _ in range(2))
    np.testing.assert_array_equal(found, left @ right)


def _result(run: Any) -> Any:
    return run()


def test_the_fastest_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 5.0, 7.0, 8.0, 13.0, 99.0])
    monkeypatch.setattr("murank_export.plan.host.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(_host, "_SECONDS", 0.0)
    runs: list[int] = []
    assert _host.fastest(lambda: runs.append(1), least=3) == 2.0
    assert len(runs) == 4  # one to warm up


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_host, "Path", lambda _: tmp_path / "nowhere" / "missing")
    assert _host.forget_peak() is None
