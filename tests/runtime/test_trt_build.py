"""Building and keeping plans, with a TensorRT and a GPU that are made up."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trt_fakes import FakeGpu, FakeTensorRT, plan_session
from wide_engine import ENGINE

from murank import Engine, InputError, MachineError, OutputError, UsageError
from murank.backends.trt import BuildSettings, Built, PlanMachine, build_plans, this_machine
from murank.files.json_object import write_json
from murank.folder.contents import EngineFiles
from murank.folder.integrity import check_engine
from murank.folder.manifest import read_manifest

ENCODER = BuildSettings(parts=("encoder",))


@pytest.fixture
def machine(trt: FakeTensorRT, gpu: FakeGpu) -> PlanMachine:
    del trt, gpu
    return this_machine()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ENGINE, tmp_path / "engine"))


def place(engine: Path, machine: PlanMachine) -> Path:
    """The user's own folder of these plans."""
    files = json.loads((engine / "manifest.json").read_text())["files"]
    digest = hashlib.sha256(write_json({name: files[name] for name in sorted(files)})).hexdigest()
    cache = Path(os.environ["XDG_CACHE_HOME"])
    return cache / "murank" / "plans" / digest[:16] / machine.target.fingerprint


Build = Callable[..., Built]


@pytest.fixture
def build(engine: Path, machine: PlanMachine) -> Build:
    return lambda **settings: build_plans(engine, BuildSettings(**settings), machine)


def kept(built: Built) -> dict[str, bool]:
    return {one.name: one.kept for one in built.plans}


def test_what_is_written(
    build: Build, engine: Path, machine: PlanMachine, trt: FakeTensorRT
) -> None:
    built = build(workspace_mb=64)
    assert kept(built) == {"encoder": False, "vision": False, "decoder": False}
    assert built.folder == place(engine, machine)
    assert {one.stat().st_mode & 0o777 for one in built.folder.parents[:4]} == {0o700}
    names = ("decoder.plan", "encoder.plan", "record.json", "timing.cache", "vision.plan")
    modes = {path.name: path.stat().st_mode & 0o777 for path in built.folder.iterdir()}
    assert modes == dict.fromkeys(names, 0o600)
    record = json.loads((built.folder / "record.json").read_text())
    assert record["target"] == {
        "library": "tensorrt", "version": "10.3.0", "compute_capability": "8.7",
        "device": "Fake Orin", "driver": "12.6",
    }  # fmt: skip
    for name, plan in record["plans"].items():
        content = (built.folder / f"{name}.plan").read_bytes()
        assert plan["file"] == {
            "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)
        }  # fmt: skip
    assert list(record["plans"]["decoder"]["profiles"]) == ["prefill", "scoring"]
    files = [Path(file).name for file, _ in trt.built]
    assert files == ["encoder.onnx", "vision.onnx", "decoder.onnx"]
    assert not any(Path(file).exists() for file, _ in trt.built)  # copies, which are gone
    for _, config in trt.built:
        assert not config.tf32
        assert config.limits == {trt.MemoryPoolType.WORKSPACE: 64 << 20}
    assert (built.folder / "timing.cache").read_bytes() == b"+++"  # each goes on from the last
    check_engine(engine)  # nothing is written there


def test_plans_that_fit_are_kept(build: Build, trt: FakeTensorRT) -> None:
    build()
    assert all(kept(build()).values())
    assert len(trt.built) == 3
    assert kept(build(candidates=5)) == {"encoder": True, "vision": True, "decoder": False}
    assert kept(build(candidates=5, tf32=True)) == dict.fromkeys(kept(build()), False)
    assert trt.built[-4][1].tf32 is True
    assert not any(kept(build(rebuild=True)).values())


def test_a_damaged_plan_is_built_again(build: Build) -> None:
    folder = build().folder
    (folder / "vision.plan").write_bytes(b"x" * (folder / "vision.plan").stat().st_size)
    (folder / "decoder.plan").unlink()
    assert kept(build()) == {"encoder": True, "vision": False, "decoder": False}
    (folder / "record.json").write_text("{}")
    assert not any(kept(build()).values())


def test_it_goes_on_where_it_was_interrupted(build: Build, trt: FakeTensorRT) -> None:
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # in the vision tower
            raise MemoryError

    trt.on_step = interrupt
    with pytest.raises(MemoryError):
        build()
    assert len(trt.built) == 1
    trt.on_step = None
    assert kept(build()) == {"encoder": True, "vision": False, "decoder": False}


def test_ctrl_c_stops_between_two_steps(
    engine: Path, machine: PlanMachine, trt: FakeTensorRT
) -> None:
    """What the callback raises must not pass through TensorRT's frames."""
    seen = []

    def progress(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        if stage.startswith("vision") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plans(engine, BuildSettings(), machine, progress=progress)
    assert seen[-4:] == [
        ("encoder: tactics", 1, 2), ("encoder: tactics", 2, 2),
        ("vision: tactics", 1, 2), ("vision: tactics", 2, 2),
    ]  # fmt: skip
    assert [Path(file).name for file, _ in trt.built] == ["encoder.onnx"]


def test_the_timing_cache_that_was_named(build: Build, tmp_path: Path, trt: FakeTensorRT) -> None:
    file = tmp_path / "elsewhere" / "cache"
    folder = build(timing_cache=file).folder
    assert file.read_bytes() == b"+++"
    assert not (folder / "timing.cache").exists()
    file.write_bytes(b"of another version")
    build(timing_cache=file, rebuild=True)
    assert file.read_bytes() == b"+++"
    build(timing_cache=file, rebuild=True)
    assert file.read_bytes() == b"++++++"
    assert len(trt.built) == 9


def test_a_timing_cache_that_was_changed_is_not_read(build: Build) -> None:
    folder = build().folder
    (folder / "timing.cache").write_bytes(b"???")
    build(rebuild=True)
    assert (folder / "timing.cache").read_bytes() == b"+++"


@pytest.mark.parametrize("name", ["onnx/vision.onnx", "onnx/decoder.onnx.data"])
def test_changed_between_check_and_parse(
    build: Build, monkeypatch: pytest.MonkeyPatch, trt: FakeTensorRT, name: str
) -> None:
    def check(folder: Path, **options: Any) -> object:
        found = check_engine(folder, **options)
        if options.get("hashes", True):
            content = bytearray((folder / name).read_bytes())
            content[-1] ^= 1
            (folder / name).write_bytes(content)
        return found

    monkeypatch.setattr("murank.backends.trt.build.check_engine", check)
    with pytest.raises(InputError, match=re.escape(Path(name).name)):
        build()
    part = Path(name).name.split(".")[0]
    assert part not in [Path(file).stem for file, _ in trt.built]


def test_no_room_for_copies(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(MachineError, match="TMPDIR"):
        build()
    assert not (tmp_path / "cache").exists()


def test_another_engine_gets_other_plans(build: Build, engine: Path, trt: FakeTensorRT) -> None:
    """Whatever the weights are: their hash is in the manifest. A calibration changes none."""
    first = build()
    manifest = json.loads((engine / "manifest.json").read_text())
    manifest["scorer"]["tau"] = 2.0
    (engine / "manifest.json").write_text(json.dumps(manifest))
    assert all(kept(build()).values())
    path = engine / "onnx" / "vision.onnx.data"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    manifest["files"]["onnx/vision.onnx.data"]["sha256"] = hashlib.sha256(
        path.read_bytes()
    ).hexdigest()
    (engine / "manifest.json").write_text(json.dumps(manifest))
    assert build().folder.parent != first.folder.parent
    assert len(trt.built) == 6


def test_plans_for_equal_boards(
    build: Build, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built into a folder, which another user may read, and nobody writes to."""
    shared = tmp_path / "shared"
    built = build(plans=shared)
    assert built.folder.parents[1] == shared
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    for path in (built.folder, *built.folder.iterdir(), *built.folder.parents[:2]):
        path.chmod(0o555 if path.is_dir() else 0o444)
    image = np.zeros((64, 32, 3), np.uint8)
    loaded = Engine.from_pretrained(engine, providers="tensorrt-plans", plans=shared)
    assert loaded.mu(image, [image]).shape == (1,)
    with pytest.raises(MachineError, match="has no TensorRT plans"):
        Engine.from_pretrained(engine, providers="tensorrt-plans")


def test_a_user_without_a_home_folder(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    for cache in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        with pytest.raises(MachineError, match="XDG_CACHE_HOME"):
            build()


def test_another_device_has_another_folder(
    engine: Path, machine: PlanMachine, trt: FakeTensorRT
) -> None:
    del trt
    first = build_plans(engine, ENCODER, machine)
    for changes in ({"driver": "12.8"}, {"version": "10.4"}, {"device": "Fake Orin Nano"}):
        other = replace(machine, target=replace(machine.target, **changes))
        second = build_plans(engine, ENCODER, other)
        assert second.folder != first.folder
        assert kept(second) == {"encoder": False}
    assert kept(build_plans(engine, ENCODER, machine)) == {"encoder": True}


def test_graphs_that_tensorrt_does_not_take(build: Build, trt: FakeTensorRT) -> None:
    trt.refuse_parse = True
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        build()


def test_plans_that_cannot_be_built(build: Build, tmp_path: Path, trt: FakeTensorRT) -> None:
    trt.refuse_build = True
    with pytest.raises(MachineError, match=r"encoder\.onnx"):
        build()
    assert not (tmp_path / "cache").exists()  # nothing is left behind


def test_a_graph_with_other_inputs(build: Build, engine: Path) -> None:
    manifest = json.loads((engine / "manifest.json").read_text())
    scorer = manifest["scorer"]
    scorer["vision"], scorer["decoder"] = scorer["decoder"], scorer["vision"]
    (engine / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"decoder\.onnx: its inputs are not those .*images, past"):
        build()


def test_more_weights_than_memory(build: Build, gpu: FakeGpu) -> None:
    gpu.free = 4 << 20
    with pytest.raises(MachineError, match="the vision has 9 MiB of weights, and the GPU has 4 M"):
        build()


def test_refused_before_any_work(
    build: Build, engine: Path, machine: PlanMachine, trt: FakeTensorRT
) -> None:
    with pytest.raises(UsageError, match=r"8\.7\) has no fp8"):
        build(dtype="fp8")
    with pytest.raises(InputError, match=r"is fp32, .* with --dtype fp16"):
        build(dtype="fp16")
    manifest = json.loads((engine / "manifest.json").read_text())
    (engine / "manifest.json").write_text(json.dumps({**manifest, "precision": "fp8"}))
    hashed: list[str] = []
    with pytest.raises(InputError, match=r"engine is fp8, and this GPU .*8\.7\) has no fp8"):
        build_plans(
            engine, BuildSettings(), machine, progress=lambda stage, *_: hashed.append(stage)
        )
    assert hashed == []
    (engine / "manifest.json").write_text(json.dumps(manifest))
    (engine / "onnx" / "decoder.onnx.data").write_bytes(b"")
    with pytest.raises(InputError, match=r"decoder\.onnx\.data"):
        build()
    old = replace(machine, target=replace(machine.target, compute_capability="5.3"))
    with pytest.raises(MachineError, match=r"below 7\.5"):
        build_plans(engine, BuildSettings(), old)
    assert trt.built == []


def test_one_build_at_a_time(build: Build, engine: Path, machine: PlanMachine) -> None:
    from murank.backends.trt.plan_store import PlanStore

    with (
        PlanStore(EngineFiles(engine, read_manifest(engine)), machine.target).writing(),
        pytest.raises(OutputError, match=r"at work in .*plans"),
    ):
        build()
    build()


@pytest.mark.parametrize("above", [0, 1, 2])
def test_symlinks_are_not_followed(
    build: Build, engine: Path, machine: PlanMachine, tmp_path: Path, above: int
) -> None:
    link = place(engine, machine).joinpath(*[".."] * above).resolve()
    (tmp_path / "outside").mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "outside")
    with pytest.raises((InputError, OutputError), match="symlink"):
        build()
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "../..", "vision.plan", "record.json"])
def test_plans_that_others_may_change(build: Build, engine: Path, name: str) -> None:
    path = (build().folder / name).resolve()
    for mode in (0o620, 0o602):
        path.chmod(path.stat().st_mode | mode)
        with pytest.raises(InputError, match=r"belong to you or to root, .* plans are code: chmod"):
            plan_session(engine, "onnx/vision.onnx")
        path.chmod(path.stat().st_mode & ~0o022)
    plan_session(engine, "onnx/vision.onnx")
    if os.geteuid() == 0:  # who alone may give a file away
        os.chown(path, 1234, -1)
        with pytest.raises(InputError, match=f"{path.name} must belong to you or to root"):
            plan_session(engine, "onnx/vision.onnx")


def test_a_folder_that_others_may_write_to_gets_no_plans(build: Build, trt: FakeTensorRT) -> None:
    folder = build().folder
    folder.chmod(0o770)
    with pytest.raises(
        InputError, match=r"nobody else may write to it, .* delete it and run murank"
    ):
        build(rebuild=True)
    assert len(trt.built) == 3


def test_a_plan_that_others_may_write_to_is_built_again(build: Build) -> None:
    folder = build().folder
    (folder / "vision.plan").chmod(0o622)
    assert kept(build()) == {"encoder": True, "vision": False, "decoder": True}
    assert (folder / "vision.plan").stat().st_mode & 0o777 == 0o600


def test_what_a_killed_build_left_is_removed(build: Build) -> None:
    folder = build().folder
    (folder / ".murank-0123456789abcdef-decoder.plan").write_bytes(b"half")
    build()
    assert not (folder / ".murank-0123456789abcdef-decoder.plan").exists()
