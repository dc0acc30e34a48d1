"""What `murank build` refuses before it does anything, and the shapes that plans are made for."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_folder import make_engine

from murank import InputError, MachineError, UsageError
from murank.engine.manifest import Manifest
from murank.trt import BuildSettings, Machine, Target
from murank.trt._api import TensorRT
from murank.trt._machine import check_supported
from murank.trt._profiles import graphs_of
from murank.trt._settings import check_dtype, check_engine_fits

ENGINE = Path("engine")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_engine(tmp_path / "engine")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_queries": 0}, "max_queries must be in 1..4096"),
        ({"candidates": 5000}, "candidates must be in 1..4096"),
        ({"workspace_mb": 0}, "workspace_mb must be at least 1"),
        ({"parts": ()}, "parts must be of encoder, scorer"),
        ({"parts": ("vision",)}, "parts must be of encoder, scorer"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BuildSettings(**wrong)


@pytest.mark.parametrize("older", ["8.6", "8.7", "7.5"])
def test_fp8_where_the_gpu_has_none(older: str) -> None:
    with pytest.raises(
        UsageError, match=rf"capability {older}\) has no fp8.*with 8\.9; use an fp16"
    ):
        check_dtype("fp8", older)


@pytest.mark.parametrize(("dtype", "has"), [("fp8", "8.9"), ("fp8", "11.0"), ("int4", "8.7")])
def test_dtypes_that_no_engine_has(dtype: str, has: str) -> None:
    with pytest.raises(UsageError, match=rf"writes no {dtype} engine as yet"):
        check_dtype(dtype, has)


@pytest.mark.parametrize("dtype", [None, "fp32", "fp16"])
def test_dtypes_that_are_fine(dtype: str | None) -> None:
    check_dtype(dtype, "8.7")


def test_engines_that_do_not_fit(manifest: Manifest) -> None:
    def check(manifest: Manifest, **settings: Any) -> None:
        check_engine_fits(ENGINE, manifest, BuildSettings(**settings))

    check(manifest, dtype="fp16")
    with pytest.raises(InputError, match=r"engine is fp16, .* again with --dtype fp32"):
        check(manifest, dtype="fp32")
    for precision in ("int8", "w8a16"):
        integer = replace(manifest, precision=precision)
        with pytest.raises(InputError, match=rf"engine is {precision}.*for CPUs.*--dtype fp16"):
            check(integer)
        check(integer, parts=("encoder",))
    with pytest.raises(InputError, match="engine has no encoder: export it with one"):
        check(replace(manifest, encoder=None), parts=("encoder",))


def machine(library: Any, compute_capability: str) -> Machine:
    members = {"SM89": 1, "SM75": 2, "SM61": 3}
    module = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members))
    target = Target(
        library=library, version="1.7", compute_capability=compute_capability, device="Thing",
        driver="13.0",
    )  # fmt: skip
    return Machine(TensorRT(module, library, "1.7"), target, None)


def test_gpus_that_the_library_does_not_know() -> None:
    for library, capability in (("tensorrt", "8.7"), ("tensorrt_rtx", "8.9"), ("tensorrt", "7.5")):
        check_supported(machine(library, capability))
    with pytest.raises(MachineError, match=r"RTX 1\.7 makes no plans .* 8\.7 \(Thing\): install"):
        check_supported(machine("tensorrt_rtx", "8.7"))
    for library in ("tensorrt", "tensorrt_rtx"):
        with pytest.raises(MachineError, match=r"6\.1 \(Thing\) is below 7\.5"):
            check_supported(machine(library, "6.1"))


def test_profiles(manifest: Manifest) -> None:
    encoder, vision, decoder = graphs_of(manifest, BuildSettings(max_queries=2, candidates=20))
    assert (encoder.file, vision.file) == ("onnx/encoder.onnx", "onnx/vision.onnx")
    one, batch = encoder.profiles
    assert one.to_json() == {"images": 3 * ["1x3x256x128"]}
    assert batch.to_json() == {"images": ["2x3x256x128", "32x3x256x128", "32x3x256x128"]}
    assert vision.profiles[1].shapes["images"].most == (8, 3, 280, 140)
    prefill, scoring = (one.to_json() for one in decoder.profiles)
    assert prefill["vision"] == ["1x1x1x50x64", "2x1x1x50x64", "2x1x1x50x64"]
    assert scoring["vision"] == ["1x1x1x50x64", "2x20x1x50x64", "2x20x1x50x64"]
    assert (prefill["text"], scoring["text"]) == (3 * ["2x64"], 3 * ["9x64"])
    assert (prefill["position_ids"], scoring["position_ids"]) == (3 * ["3x52"], 3 * ["3x59"])
    assert prefill["past_value_3"] == ["1x2x235x16", "2x2x235x16", "2x2x235x16"]
    assert scoring["past_key_0"] == ["1x2x287x16", "2x2x287x16", "2x2x287x16"]
    assert len(scoring) == 3 + 2 * 4


def test_parts_and_defaults(manifest: Manifest) -> None:
    def names(**settings: Any) -> list[str]:
        return [one.name for one in graphs_of(manifest, BuildSettings(**settings))]

    assert names() == ["encoder", "vision", "decoder"]
    assert names(parts=("encoder",)) == ["encoder"]
    assert names(parts=("scorer",)) == ["vision", "decoder"]
    scoring = graphs_of(manifest, BuildSettings())[-1].profiles[1].shapes
    assert scoring["vision"].most == (1, 64, 1, 50, 64)
