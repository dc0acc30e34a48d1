"""What an engine needs, whether that fits, and what would help."""

from dataclasses import replace

import pytest
from plan_devices import GIB, made_device
from wide_engine import ENGINE

from murank.folder.manifest import Manifest, read_manifest
from murank.folder.precision import Precision
from murank_export.plan.changes import Change, changes
from murank_export.plan.engine_memory import ARENA, Footprint
from murank_export.plan.prediction import Workload, plan_engine
from murank_export.plan.work import EngineRuns

MANIFEST = read_manifest(ENGINE)
assert MANIFEST.scorer is not None
SHAPES = MANIFEST.scorer.shapes
ROW = 4 * SHAPES.vision_tokens * SHAPES.hidden  # bytes of an image's vision tokens
PAIRS = 32


def engine(
    manifest: Manifest = MANIFEST, *, kind: str = "gpu", shared: bool = True, budget: int = GIB,
    gallery: int = 1000, candidates: int = 16, architecture: str = "sm_90",
) -> Footprint:  # fmt: skip
    device = replace(made_device(kind=kind, shared=shared), architecture=architecture)
    runs = EngineRuns.read(ENGINE, manifest, on_cpu=kind == "cpu")
    return Footprint(runs, device, budget, candidates, gallery, PAIRS)


def parts(of: Footprint) -> dict[str, int]:
    return {part.name: part.bytes for part in of.memory().parts}


def room(cache: int = 256 << 20, row: int = ROW) -> int:
    """Images that a GPU's block has places for: cached ones, and those of one call."""
    return cache // row + PAIRS + 8


def test_every_part() -> None:
    now = engine()
    encoder, scorer = now.runs.encoder, now.runs.scorer
    assert encoder is not None
    assert scorer is not None
    s, seen, scored = SHAPES, scorer.see(8), scorer.score(16)
    kv = 2 * s.layers * s.kv_heads * s.head_dim
    # Four queries' prefixes; the static part read, and once more as the decoder takes it.
    prefixes = 4 * (s.static_tokens + s.prefill_tokens) + 2 * s.static_tokens
    assert parts(now) == {
        "Python, onnxruntime, driver": 1000,
        "encoder: weights": encoder.weight_bytes,
        "encoder: activations": int(ARENA * encoder.live_bytes),
        "vision: weights": seen.weight_bytes,
        "vision: activations": int(ARENA * seen.live_bytes),
        "decoder: weights": scored.weight_bytes,
        "decoder: activations": int(ARENA * scored.live_bytes),
        "K/V of the static prompt and 4 queries": 4 * kv * prefixes,
        f"vision tokens, room for {room()} images": room() * ROW,
        "features and neighbours of 1000 images": 1000 * (4 * 256 + 256),
    }


def test_a_gpus_block_is_taken_whatever_the_gallery() -> None:
    small, large = (engine(gallery=size, shared=False).memory() for size in (20, 10**6))
    assert [part for part in small.parts if part.on_device] == [
        part for part in large.parts if part.on_device
    ]


def test_a_cpus_cache_grows_to_its_bound() -> None:
    small, large = (parts(engine(kind="cpu", gallery=size)) for size in (1000, 10**6))
    assert small["cached vision tokens"] == 1001 * ROW
    assert large["cached vision tokens"] == 256 << 20


def test_fp16_halves_what_goes_from_graph_to_graph() -> None:
    wide, half, brain = (
        parts(engine(replace(MANIFEST, precision=dtype), kind="cpu"))
        for dtype in ("fp32", "fp16", "bf16")
    )
    kv, tokens = "K/V of the static prompt and 4 queries", "cached vision tokens"
    for name in (kv, tokens):
        assert wide[name] == 2 * half[name]
    # The host sees float32 of bfloat16, what it reads of the prompt included.
    assert brain[tokens] == wide[tokens]
    static = 2 * SHAPES.layers * SHAPES.kv_heads * SHAPES.head_dim * SHAPES.static_tokens
    assert brain[kv] == half[kv] + 2 * static


def test_a_card_of_its_own_memory_does_not_hold_the_gallery() -> None:
    both, apart = (engine(shared=shared).memory() for shared in (True, False))
    held = sum(part.bytes for part in both.parts if not part.on_device)
    assert held > 0
    assert both.needed - apart.needed == held


def test_it_fits_up_to_the_last_byte() -> None:
    needed = engine().memory().needed
    assert engine(budget=needed).memory().fits
    assert not engine(budget=needed - 1).memory().fits


def test_an_encoder_alone() -> None:
    names = parts(engine(replace(MANIFEST, scorer=None)))
    assert not any("K/V" in name or "vision" in name for name in names)


def advice(now: Footprint) -> dict[str, Change]:
    return {one.what.split(" (")[0].split(":")[0]: one for one in changes(now)}


def dtypes(**how: str) -> list[str]:
    precision: Precision = how.pop("precision", "fp32")  # type: ignore[assignment]
    exports = advice(engine(replace(MANIFEST, precision=precision), budget=1, **how))  # type: ignore[arg-type]
    return [what.split()[-1] for what in exports if what.startswith("export with")]


def test_precisions_are_those_that_the_device_has() -> None:
    assert dtypes() == ["fp16", "int8-qdq", "int4"]
    assert dtypes(architecture="sm_75") == ["fp16", "int8-qdq"]
    assert dtypes(kind="cpu") == ["int8"]
    for precision in ("fp16", "bf16"):
        assert dtypes(precision=precision) == ["int8-qdq", "int4"]
    for precision in ("int8-qdq", "fp8", "int4"):
        assert dtypes(precision=precision) == []


@pytest.mark.parametrize(("precision", "bits"), [("fp16", 16), ("int8-qdq", 8), ("int4", 4)])
def test_what_precision_saves(precision: Precision, bits: int) -> None:
    """Matrices of the layers in so many bits, all else in halves; the encoder as it was."""
    now = engine()
    assert now.runs.scorer is not None
    then = now.runs.scorer.rounded(precision)
    for before, after in (
        (now.runs.scorer.vision, then.vision),
        (now.runs.scorer.decoder, then.decoder),
    ):
        layers = sum(
            one.count for name, one in before.weights.items()
            if len(one.shape) == 2 and name not in ("embed.weight", "head") and one.is_float
        )  # fmt: skip
        floats = sum(one.count for one in before.weights.values() if one.is_float)
        rest = before.bytes(4) - 4 * floats
        assert after.bytes(2) == layers * bits // 8 + 2 * (floats - layers) + rest
    change = advice(now)[f"export with --dtype {precision}"]
    assert change.about == (bits < 16)
    changed = replace(now, runs=replace(now.runs, scorer=then))
    assert change.needed == changed.memory().needed < now.memory().needed


def test_a_cpu_holds_halves_as_floats() -> None:
    """Its int8 is as large, whether it comes from an fp16 engine or an fp32 one."""
    wide, half = (
        advice(engine(replace(MANIFEST, precision=one), kind="cpu", budget=1))
        for one in ("fp32", "fp16")
    )
    name = "export with --dtype int8"
    assert wide[name].needed == half[name].needed


def test_fewer_pairs_are_as_many_as_fit() -> None:
    needed = [replace(engine(), max_pairs=n).memory().needed for n in (1, 2, 4, 8)]
    assert needed == sorted(needed)
    found = advice(engine(budget=needed[2]))
    assert found["Engine.from_pretrained(max_pairs=4)"].needed == needed[2]
    assert found["Engine.from_pretrained(max_pairs=4)"].fits
    assert not advice(engine(budget=1))["Engine.from_pretrained(max_pairs=1)"].fits


def test_smaller_images_are_an_estimate() -> None:
    found = advice(engine(budget=1))
    assert found["export for images of half the area"].about
    assert not found["vision_cache_mb=0"].about
    assert found["all of these, with --dtype int4"].about


@pytest.mark.parametrize(
    ("kind", "name"), [("cpu", "all of these"), ("gpu", "all of these, with --dtype int4")]
)
def test_all_together_save_more_than_any_alone(kind: str, name: str) -> None:
    now = engine(kind=kind, budget=1)
    found = advice(now)
    together = found.pop(name).needed
    assert together < min(one.needed for one in found.values())
    assert max(one.needed for one in found.values()) < now.memory().needed


def test_what_would_not_help_is_not_said() -> None:
    int8 = replace(MANIFEST, precision="int8")
    assert "export with --dtype int8" not in advice(engine(int8, kind="cpu"))
    assert not any("max_pairs" in what for what in advice(engine(candidates=1)))
    for kind in ("gpu", "cpu"):  # an encoder is in floats, whatever is asked for
        assert advice(engine(replace(MANIFEST, scorer=None), kind=kind)) == {}


def test_changes_come_only_where_it_does_not_fit() -> None:
    device = made_device(kind="cpu", shared=True)
    assert plan_engine(ENGINE, device, Workload()).changes == ()
    tight = plan_engine(ENGINE, device, Workload(), memory_bytes=20 << 20)
    assert not tight.memory.fits
    assert tight.memory.budget == 20 << 20
    assert any(change.fits for change in tight.changes)


@pytest.mark.parametrize("candidates", [1, 32])
def test_activations_grow_with_the_candidates(candidates: int) -> None:
    one, more = (parts(engine(candidates=n)) for n in (candidates, 2 * candidates))
    grows = one["decoder: activations"] < more["decoder: activations"]
    assert grows == (candidates == 1)  # at most 32 pairs are in one run
