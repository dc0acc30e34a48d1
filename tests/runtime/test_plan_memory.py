"""What an engine needs, whether that fits, and what would help."""

from dataclasses import replace
from pathlib import Path

import pytest
from plan_devices import GIB, made_device

from murank.folder.manifest import Manifest, read_manifest
from murank.folder.precision import Precision
from murank_export.plan import Workload, plan_engine
from murank_export.plan.changes import Change, changes
from murank_export.plan.engine_memory import ARENA, GraphMemory, Memory, memory

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
MANIFEST = read_manifest(ENGINE)
assert MANIFEST.scorer is not None
SHAPES = MANIFEST.scorer.shapes
ROW = 4 * SHAPES.vision_tokens * SHAPES.hidden  # bytes of an image's vision tokens
MB = 1_000_000
PAIRS = 32
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
    return memory(manifest, GRAPHS, device, gallery_size=gallery, budget=budget, max_pairs=PAIRS)


def test_every_part() -> None:
    parts = {part.name: part.bytes for part in needs().parts}
    s = SHAPES
    kv = 2 * s.layers * s.kv_heads * s.head_dim
    # Four queries' prefixes; the static part read, and once more as the decoder takes it.
    prefixes = 4 * (s.static_tokens + s.prefill_tokens) + 2 * s.static_tokens
    assert parts == {
        "Python, onnxruntime, driver": 1000,
        "encoder: weights": 10 * MB, "encoder: activations": int(ARENA * 3 * MB),
        "vision: weights": 40 * MB, "vision: activations": int(ARENA * 2 * MB),
        "decoder: weights": 100 * MB, "decoder: activations": int(ARENA * 50 * MB),
        "K/V of the static prompt and 4 queries": 4 * kv * prefixes,
        f"vision tokens, room for {room()} images": room() * ROW,
        "features and neighbours of 1000 images": 1000 * (4 * 256 + 256),
    }  # fmt: skip


def room(cache: int = 256 << 20, row: int = ROW) -> int:
    """Images that a GPU's block has places for: cached ones, and those of one call."""
    return cache // row + PAIRS + 8


def test_a_gpus_block_is_taken_whatever_the_gallery() -> None:
    small, large = (needs(gallery=size, shared=False) for size in (10, 10**6))
    assert [part for part in small.parts if part.on_device] == [
        part for part in large.parts if part.on_device
    ]
    (block,) = [part for part in small.parts if part.name.startswith("vision tokens")]
    assert block.on_device
    assert 0 <= block.bytes - (256 << 20) - (PAIRS + 7) * ROW <= ROW


def test_a_cpus_cache_grows_to_its_bound() -> None:
    small, large = (
        {part.name: part.bytes for part in needs(kind="cpu", gallery=size).parts}
        for size in (1000, 10**6)
    )
    assert small["cached vision tokens"] == 1001 * ROW
    assert large["cached vision tokens"] == 256 << 20


def test_fp16_halves_what_goes_from_graph_to_graph() -> None:
    wide, half, brain = (
        {
            part.name: part.bytes
            for part in needs(replace(MANIFEST, precision=dtype), kind="cpu").parts
        }
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
    manifest: Manifest = MANIFEST,
    *,
    kind: str = "gpu",
    budget: int = 1,
    candidates: int = 16,
    architecture: str = "sm_90",
) -> dict[str, Change]:
    device = replace(made_device(kind=kind, shared=True), architecture=architecture)
    found = changes(
        manifest, GRAPHS, device, gallery_size=1000, budget=budget, max_pairs=PAIRS,
        candidates=candidates,
        live=lambda n: (2 + 3 * n) * MB,  # 50 MB with 16
    )  # fmt: skip
    return {one.what.split(" (")[0].split(":")[0]: one for one in found}


def dtypes(found: dict[str, Change]) -> list[str]:
    exports = [what for what in found if what.startswith("export with")]
    return [what.removeprefix("export with --dtype ") for what in exports]


def test_precisions_are_those_that_the_device_has() -> None:
    assert dtypes(advice()) == ["fp16", "int8-qdq", "int4"]
    assert dtypes(advice(architecture="sm_75")) == ["fp16", "int8-qdq"]
    assert dtypes(advice(kind="cpu")) == ["int8"]
    half: tuple[Precision, ...] = ("fp16", "bf16")
    few_bits: tuple[Precision, ...] = ("int8-qdq", "fp8", "int4")
    for precision in half:
        assert dtypes(advice(replace(MANIFEST, precision=precision))) == ["int8-qdq", "int4"]
    for precision in few_bits:
        assert dtypes(advice(replace(MANIFEST, precision=precision))) == []


def test_what_precision_saves() -> None:
    needed, found = needs().needed, advice()
    by_name = {part.name: part.bytes for part in needs().parts}
    kv = by_name["K/V of the static prompt and 4 queries"]
    block = room() * ROW - room(row=ROW // 2) * (ROW // 2)
    # Vision and decoder in half; the encoder stays in floats.
    saved = needed - found["export with --dtype fp16"].needed
    assert saved == 70 * MB + kv // 2 + block
    # 29 million values of float matrices, two bytes each by now.
    more = needed - found["export with --dtype int8-qdq"].needed
    assert more - saved == 29 * MB
    most = needed - found["export with --dtype int4"].needed
    assert most - more == 29 * MB // 2
    about = {what: one.about for what, one in found.items() if what.startswith("export with --")}
    assert [*about.values()] == [False, True, True]
    # Three of four bytes of each value, on CPUs.
    cpu = needs(kind="cpu").needed - advice(kind="cpu")["export with --dtype int8"].needed
    assert cpu == 3 * 29 * MB


def test_a_cpu_holds_halves_as_floats() -> None:
    """Its int8 saves as much from an fp16 engine as from an fp32 one."""
    half = replace(MANIFEST, precision="fp16")
    needed = needs(half, kind="cpu").needed
    tokens = 1001 * ROW // 2 + 1001 * ROW  # float32 again, where they were halves
    kv = next(part.bytes for part in needs(half, kind="cpu").parts if "K/V" in part.name)
    found = advice(half, kind="cpu")["export with --dtype int8"].needed
    assert found == needed - 3 * 29 * MB + kv + tokens - 1001 * ROW


def test_fewer_pairs_are_as_many_as_fit() -> None:
    needed = needs().needed
    found = advice(budget=needed - int(ARENA * 30 * MB))
    # 16 -> 8 saves 24 MB alive, 4 saves 36; and room for their vision tokens.
    assert found["Engine.from_pretrained(max_pairs=4)"].fits
    saved = needed - found["Engine.from_pretrained(max_pairs=4)"].needed
    assert saved == int(ARENA * 36 * MB) + (PAIRS - 4) * ROW
    assert not advice(budget=1)["Engine.from_pretrained(max_pairs=1)"].fits


def test_smaller_images_are_an_estimate() -> None:
    found = advice()
    assert found["export for images of half the area"].about
    assert not found["vision_cache_mb=0"].about
    assert found["all of these, with --dtype int4"].about


def test_all_together_save_more_than_any_alone() -> None:
    found = advice(kind="cpu")
    together = found.pop("all of these").needed
    assert len(found) == 4
    assert together < min(one.needed for one in found.values())
    assert max(one.needed for one in found.values()) < needs().needed


def test_what_would_not_help_is_not_said() -> None:
    int8 = replace(MANIFEST, precision="int8")
    assert "export with --dtype int8" not in advice(int8, kind="cpu")
    assert not any("max_pairs" in what for what in advice(candidates=1))
    for kind in ("gpu", "cpu"):  # an encoder is in floats, whatever is asked for
        assert advice(replace(MANIFEST, scorer=None), kind=kind) == {}


def test_of_other_precisions_only_one_goes_with_the_rest() -> None:
    found = advice()
    together = found.pop("all of these, with --dtype int4")
    assert together.needed < min(one.needed for one in found.values())
    assert "all of these" in advice(replace(MANIFEST, precision="int8-qdq"))


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
