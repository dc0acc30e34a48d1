"""What `murank build` refuses before it does anything, and the shapes that plans are made for."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_folder import make_engine

from murank import InputError, MachineError, UsageError
from murank.backends.trt import BuildSettings, PlanMachine, PlanPlatform
from murank.backends.trt.api import TensorRT
from murank.backends.trt.build_settings import check_dtype, check_engine_fits
from murank.backends.trt.plan_target import check_supported
from murank.backends.trt.profiles import graphs_of
from murank.folder.manifest import Manifest
from murank.folder.precision import ARITHMETIC, INTEGER, Precision

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


@pytest.mark.parametrize(
    ("dtype", "has", "words"),
    [
        (
            "fp8",
            "8.6",
            r"8\.6\) has no fp8 arithmetic: its tensor cores multiply fp16 and int8, fp8",
        ),
        ("fp8", "8.7", r"8\.7\) has no fp8.* fp8 came with 8\.9; use an fp16 or int8-qdq engine"),
        ("fp8", "7.5", r"7\.5\) has no fp8"),
        ("bf16", "7.5", r"7\.5\) has no bf16.* fp16 and int8, bf16 came with 8\.0; use an fp16"),
        ("int4", "7.5", r"7\.5\) has no int4 .*TensorRT multiplies by int4 weights from 8\.0 on;"),
    ],
)
def test_arithmetic_that_the_gpu_lacks(
    manifest: Manifest, dtype: Precision, has: str, words: str
) -> None:
    with pytest.raises(UsageError, match=f"^this GPU .*{words}"):
        check_dtype(dtype, has)
    made = replace(manifest, precision=dtype)  # by itself, without --dtype
    with pytest.raises(InputError, match=f"^engine is {dtype}, and this GPU .*{words}"):
        check_engine_fits(ENGINE, made, BuildSettings(), has)
    check_engine_fits(ENGINE, made, BuildSettings(parts=("encoder",)), has)


@pytest.mark.parametrize("precision", ARITHMETIC)
@pytest.mark.parametrize("has", ["7.5", "8.0", "8.7", "8.9", "9.0", "11.0", "12.0"])
def test_the_table_decides(manifest: Manifest, precision: Precision, has: str) -> None:
    how, made = ARITHMETIC[precision], replace(manifest, precision=precision)
    fits = "plans" in how.backends and tuple(map(int, has.split("."))) >= how.least_capability
    try:
        check_engine_fits(ENGINE, made, BuildSettings(), has)
    except InputError:
        assert not fits
    else:
        assert fits


def test_engines_that_do_not_fit(manifest: Manifest) -> None:
    def check(manifest: Manifest, **settings: Any) -> None:
        check_engine_fits(ENGINE, manifest, BuildSettings(**settings), "8.7")

    check(manifest, dtype="fp16")
    with pytest.raises(InputError, match=r"engine is fp16, .* again with --dtype fp32"):
        check(manifest, dtype="fp32")
    for precision in INTEGER:
        integer = replace(manifest, precision=precision)
        with pytest.raises(InputError, match=rf"engine is {precision}.*for CPUs.*--dtype int8-qdq"):
            check(integer)
        check(integer, parts=("encoder",))
    with pytest.raises(InputError, match="engine has no encoder: export it with one"):
        check(replace(manifest, encoder=None), parts=("encoder",))


def machine(library: Any, compute_capability: str) -> PlanMachine:
    members = {"SM89": 1, "SM75": 2, "SM61": 3}
    module = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members))
    target = PlanPlatform(
        library=library, version="1.7", compute_capability=compute_capability, device="Thing",
        driver="13.0",
    )  # fmt: skip
    return PlanMachine(TensorRT(module, library, "1.7"), target, None)


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
    names = ["prefill", "scoring", "prefill-many", "scoring-many"]  # the special ones first
    assert [one.name for one in decoder.profiles] == names
    prefill, scoring, *of_many = (one.to_json() for one in decoder.profiles)
    assert prefill["vision"] == ["1x1x1x50x64", "1x1x1x50x64", "1x2x1x50x64"]
    assert scoring["vision"] == ["1x1x1x50x64", "1x20x1x50x64", "1x20x1x50x64"]
    assert (prefill["text"], scoring["text"]) == (3 * ["2x64"], 3 * ["9x64"])
    assert (prefill["position_ids"], scoring["position_ids"]) == (3 * ["3x52"], 3 * ["3x59"])
    assert prefill["past_value_3"] == 3 * ["1x2x235x16"]
    assert scoring["past_key_0"] == 3 * ["1x2x287x16"]
    assert len(scoring) == 3 + 2 * 4
    prefill, scoring = of_many
    assert prefill["vision"] == ["1x1x1x50x64", "2x1x1x50x64", "2x1x1x50x64"]
    assert scoring["vision"] == ["1x1x1x50x64", "2x20x1x50x64", "2x20x1x50x64"]
    assert prefill["past_value_3"] == ["1x2x235x16", "2x2x235x16", "2x2x235x16"]


def test_plans_are_tuned_for_what_is_usual(manifest: Manifest) -> None:
    """Which is neither the largest run nor the smallest."""

    def candidates(**settings: Any) -> list[tuple[int, ...]]:
        profiles = {
            one.name: one for one in graphs_of(manifest, BuildSettings(**settings))[-1].profiles
        }
        many = profiles.get("scoring-many", profiles["scoring"]).shapes["vision"]
        return [shape[:2] for shape in (many.least, many.usual, many.most)]

    assert candidates() == [(1, 1), (1, 20), (1, 64)]
    assert candidates(candidates=5) == [(1, 1), (1, 5), (1, 5)]
    assert candidates(candidates=1) == [(1, 1), (1, 1), (1, 2)]  # never without a free length
    assert candidates(max_queries=4, candidates=100) == [(1, 1), (4, 20), (4, 100)]
    names = [one.name for one in graphs_of(manifest, BuildSettings())[-1].profiles]
    assert names == ["prefill", "scoring"]


def test_parts_and_defaults(manifest: Manifest) -> None:
    def names(**settings: Any) -> list[str]:
        return [one.name for one in graphs_of(manifest, BuildSettings(**settings))]

    assert names() == ["encoder", "vision", "decoder"]
    assert names(parts=("encoder",)) == ["encoder"]
    assert names(parts=("scorer",)) == ["vision", "decoder"]
    scoring = graphs_of(manifest, BuildSettings())[-1].profiles[1].shapes
    assert scoring["vision"].most == (1, 64, 1, 50, 64)
