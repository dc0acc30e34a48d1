"""What an engine needs, whether that fits, and what would help."""

from dataclasses import replace
from pathlib import Path

import pytest
from plan_devices import GIB, made_device

from murank.engine.manifest import Manifest, read_manifest
from murank.plan import Workload, plan_engine
from murank.plan._changes import Change, changes
from murank.plan._memory import ARENA, GraphMemory, Memory, memory

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
MANIFEST = read_manifest(ENGINE)
MB = 1_000_000
GRAPHS = {
    "encoder": GraphMemory(weight_bytes=10 * MB, float_weights=1 * MB, live_bytes=3 * MB),
    "vision": GraphMemory(weight_bytes=40 * MB, float_weights=9 * MB, live_bytes=2 * MB),
    "decoder": GraphMemory(weight_bytes=100 * MB, float_weights=20 * MB, live_bytes=50 * MB),
}


def needs(
    manifest: Manifest = MANIFEST, *, kind: str = "gpu", shared: bool = True, budget: int = GIB,
    gallery: int = 1000,
) -> Memory:  # fmt: skip
    device = made_device(kind=kind, shared=shared)
    return memory(manifest, GRAPHS, device, gallery_size=gallery, budget=budget)


def test_every_part() -> None:
    parts = {part.name: part.bytes for part in needs().parts}
    s = MANIFEST.scorer.shapes if MANIFEST.scorer else None
    assert s is not None
    kv = 2 * s.layers * s.kv_heads * s.head_dim
    # Four queries' prefixes; the static part read, and once more as the decoder takes it.
    prefixes = 4 * (s.static_tokens + s.prefill_tokens) + 2 * s.static_tokens
    assert parts == {
        "Python, onnxruntime, driver": 1000,
        "encoder: weights": 10 * MB, "encoder: activations": int(ARENA * 3 * MB),
        "vision: weights": 40 * MB, "vision: activations": int(ARENA * 2 * MB),
        "decoder: weights": 100 * MB, "decoder: activations": int(ARENA * 50 * MB),
        "K/V of the static prompt and 4 queries": 4 * kv * prefixes,
        "cached vision tokens": 4 * 1001 * s.vision_tokens * s.hidden,
        "features and neighbours of 1000 images": 1000 * (4 * 256 + 256),
    }  # fmt: skip


def test_the_cache_has_a_bound() -> None:
    large = {part.name: part.bytes for part in needs(gallery=10**6).parts}
    assert large["cached vision tokens"] == 256 << 20


def test_fp16_halves_what_goes_from_graph_to_graph() -> None:
    wide, half = (
        {part.name: part.bytes for part in needs(replace(MANIFEST, precision=dtype)).parts}
        for dtype in ("fp32", "fp16")
    )
    for name in ("K/V of the static prompt and 4 queries", "cached vision tokens"):
        assert wide[name] == 2 * half[name]


def test_a_card_of_its_own_memory_does_not_hold_the_gallery() -> None:
    both, apart = needs(shared=True), needs(shared=False)
    held = sum(part.bytes for part in both.parts if not part.on_device)
    assert held > 0
    assert both.needed - apart.needed == held


def test_it_fits_up_to_the_last_byte() -> None:
    needed = needs().needed
    assert needs(budget=needed).fits
    assert not needs(budget=needed - 1).fits


def test_an_encoder_alone() -> None:
    names = [part.name for part in needs(replace(MANIFEST, scorer=None)).parts]
    assert not any("K/V" in name or "vision tokens" in name for name in names)


def advice(
    manifest: Manifest = MANIFEST, *, kind: str = "gpu", budget: int = 1, pairs: int = 16
) -> dict[str, Change]:
    device = made_device(kind=kind, shared=True)
    found = changes(
        manifest, GRAPHS, device, gallery_size=1000, budget=budget, pairs=pairs,
        live=lambda n: (2 + 3 * n) * MB,  # 50 MB with 16
    )  # fmt: skip
    return {one.what.split(" (")[0].split(":")[0]: one for one in found}


def test_fp16_is_what_a_gpu_is_told_and_int8_a_cpu() -> None:
    gpu, cpu = advice(), advice(kind="cpu")
    assert "export with --dtype fp16" in gpu
    assert "export with --dtype int8" not in gpu
    assert "export with --dtype int8" in cpu
    assert "export with --dtype fp16" not in cpu


def test_what_precision_saves() -> None:
    needed = needs().needed
    by_name = {part.name: part.bytes for part in needs().parts}
    moving = by_name["K/V of the static prompt and 4 queries"] + by_name["cached vision tokens"]
    saved = needed - advice()["export with --dtype fp16"].needed
    assert saved == 75 * MB + moving // 2
    # Three of four bytes of each value in vision and decoder; encoders stay in floats.
    assert needed - advice(kind="cpu")["export with --dtype int8"].needed == 3 * 29 * MB


def test_fewer_pairs_are_as_many_as_fit() -> None:
    needed = needs().needed
    found = advice(budget=needed - int(ARENA * 30 * MB))
    # 16 -> 8 saves 24 MB alive, 4 saves 36.
    assert found["Engine.from_pretrained(max_pairs=4)"].fits
    assert found["Engine.from_pretrained(max_pairs=4)"].needed == needed - int(ARENA * 36 * MB)
    assert not advice(budget=1)["Engine.from_pretrained(max_pairs=1)"].fits


def test_smaller_images_are_an_estimate() -> None:
    found = advice()
    assert found["export for images of half the area"].about
    assert not found["vision_cache_mb=0"].about
    assert found["all of these"].about


def test_all_together_save_more_than_any_alone() -> None:
    found = advice(kind="cpu")
    together = found.pop("all of these").needed
    assert len(found) == 4
    assert together < min(one.needed for one in found.values())
    assert max(one.needed for one in found.values()) < needs().needed


def test_what_would_not_help_is_not_said() -> None:
    int8 = replace(MANIFEST, precision="int8")
    assert "export with --dtype int8" not in advice(int8, kind="cpu")
    assert not any("max_pairs" in what for what in advice(pairs=1))
    assert set(advice(replace(MANIFEST, scorer=None))) == {"export with --dtype fp16"}
    assert advice(replace(MANIFEST, scorer=None), kind="cpu") == {}


def test_changes_come_only_where_it_does_not_fit() -> None:
    device = made_device(kind="cpu", shared=True)
    assert plan_engine(ENGINE, device, Workload()).changes == ()
    tight = plan_engine(ENGINE, device, Workload(), memory_bytes=20 * MB)
    assert not tight.memory.fits
    assert tight.memory.budget == 20 * MB
    assert any(change.fits for change in tight.changes)


@pytest.mark.parametrize("candidates", [1, 32])
def test_activations_grow_with_the_candidates(candidates: int) -> None:
    device = made_device()
    one, more = (
        {part.name: part.bytes for part in plan_engine(ENGINE, device, Workload(n)).memory.parts}
        for n in (candidates, 2 * candidates)
    )
    grows = one["decoder: activations"] < more["decoder: activations"]
    assert grows == (candidates == 1)  # at most 32 pairs are in one run
