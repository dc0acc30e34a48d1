"""The plan of the shipped engine against closed forms of its configuration."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from plan_devices import made_device

from murank import InputError, UsageError
from murank.folder.manifest import ScorerPart, read_manifest
from murank_export.plan import DEVICES, Prediction, Workload, check_plan, plan_engine
from murank_export.plan.work import Graphs, Work, prefill_shapes, run_sizes, score_shapes, stages

MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature"
ENGINE = MINIATURE / "engine"
PART = read_manifest(ENGINE).scorer
assert PART is not None
SCORER: ScorerPart = PART
CONFIG: dict[str, dict[str, int]] = json.loads((MINIATURE / "base" / "config.json").read_text())
GRAPHS = Graphs.read(ENGINE, read_manifest(ENGINE), 2)


def decoder_operations(candidates: int, tokens: int, prefix: int) -> int:
    """Two a weight and token, attention to all keys; of the last layer what the answer needs."""
    text, s = CONFIG["text_config"], SCORER.shapes
    heads = text["num_attention_heads"] * s.head_dim
    kv = 2 * s.hidden * s.kv_heads * s.head_dim
    rest = 2 * s.hidden * heads + 3 * s.hidden * text["intermediate_size"]

    def layer(queries: int) -> int:
        attention = 2 * heads * queries * (prefix + tokens)  # scores, and their values
        return 2 * candidates * (kv * tokens + rest * queries + attention)

    return (s.layers - 1) * layer(tokens) + layer(1) + 2 * candidates * s.hidden * 2


def vision_operations() -> int:
    vision, tokens = CONFIG["vision_config"], SCORER.shapes.vision_tokens
    width, patches = vision["embed_dim"], tokens * vision["spatial_merge_size"] ** 2
    merged = width * vision["spatial_merge_size"] ** 2
    block = width * width * (4 + 2 * vision["mlp_ratio"]) + 2 * width * patches
    patch = 3 * vision["patch_size"] ** 2
    merger = tokens * (merged * merged + merged * SCORER.shapes.hidden)
    return 2 * (patches * (vision["depth"] * block + patch * width) + merger)


@pytest.mark.parametrize("candidates", [1, 7])
def test_decoder(candidates: int) -> None:
    s = SCORER.shapes
    assert GRAPHS.decoder is not None
    score = GRAPHS.decoder.cost(score_shapes(SCORER, candidates))
    prefix = s.static_tokens + s.prefill_tokens
    assert score.operations == decoder_operations(candidates, s.suffix_tokens, prefix)
    prefill = GRAPHS.decoder.cost(prefill_shapes(SCORER))
    assert prefill.operations == decoder_operations(1, s.prefill_tokens, s.static_tokens)
    assert not score.uncounted


def works(*, candidates: int = 20, max_pairs: int = 32, size: int = 100) -> tuple[Work, ...]:
    """The stages of a query on the shipped engine."""
    return stages(
        read_manifest(ENGINE), GRAPHS, candidates=candidates, gallery_size=size,
        max_pairs=max_pairs,
    )  # fmt: skip


def test_vision_of_a_query_and_of_its_candidates() -> None:
    found = {work.title: work for work in works(candidates=11)}
    assert found["vision, query"].operations == vision_operations()
    assert found["vision, 11 candidates"].operations == 11 * vision_operations()
    batches = [times for _, times in found["vision, 11 candidates"].runs]
    assert sum(batches) == 2  # eight, and three


def test_weights_are_those_of_the_files() -> None:
    files = read_manifest(ENGINE).files
    work = {one.title: one for one in works()}
    for title, name in (("vision, query", "vision"), ("prefill", "decoder")):
        ((cost, _),) = work[title].runs
        outside = files[f"onnx/{name}.onnx.data"].size
        inside = files[f"onnx/{name}.onnx"].size
        assert outside <= cost.weight_bytes <= outside + inside
    ((encoder, _),) = work["embed the query"].runs
    assert 0.95 < encoder.weight_bytes / files["onnx/encoder.onnx"].size <= 1


def test_retrieval_reads_every_feature_once() -> None:
    retrieve = next(one for one in works(size=500) if one.stage == "retrieve")
    assert (retrieve.operations, retrieve.bytes) == (2 * 500 * 256, 4 * 500 * 256)


def test_the_order_of_the_stages() -> None:
    order = ["embed", "retrieve", "vision", "vision", "prefill", "score", "rerank"]
    assert [one.stage for one in works()] == order


@pytest.mark.parametrize(
    ("candidates", "most", "sizes"), [(20, 32, [20]), (20, 8, [6, 7, 7]), (3, 1, [1, 1, 1])]
)
def test_runs_of_the_decoder(candidates: int, most: int, sizes: list[int]) -> None:
    assert sorted(run_sizes(candidates, most)) == sizes


def test_parts_alone() -> None:
    whole = read_manifest(ENGINE)
    for manifest, wanted in (
        (replace(whole, scorer=None), ["embed", "retrieve", "rerank"]),
        (replace(whole, encoder=None), ["vision", "vision", "prefill", "score"]),
    ):
        graphs = Graphs.read(ENGINE, manifest, 2)
        found = stages(manifest, graphs, candidates=4, gallery_size=9, max_pairs=8)
        assert [one.stage for one in found] == wanted


def plan(size: int = 1000, **workload: int) -> Prediction:
    return plan_engine(ENGINE, made_device(), Workload(gallery_size=size, **workload))


def test_totals_with_and_without_vision_tokens() -> None:
    found = plan(candidates=5)
    by_title = {one.work.title: one.seconds for one in found.stages}
    for total, name in ((found.predicted, "predicted"), (found.floor, "floor")):
        saved = getattr(by_title["vision, 5 candidates"], name)
        assert total(cached=False) - total(cached=True) == pytest.approx(saved)
        everything = sum(getattr(one, name) for one in by_title.values())
        assert total(cached=False) == pytest.approx(everything)
    assert all(one.floor <= one.predicted for one in by_title.values())


def test_more_pairs_a_run_read_the_weights_less_often() -> None:
    few, many = (
        next(one for one in plan(candidates=16, max_pairs=n).stages if one.work.stage == "score")
        for n in (2, 16)
    )
    assert few.work.operations == many.work.operations
    assert few.seconds.floor >= many.seconds.floor
    assert few.work.bytes > many.work.bytes


def test_a_stronger_device_is_never_slower() -> None:
    small, large = (
        plan_engine(ENGINE, DEVICES[name], Workload()) for name in ("orin-nano-8gb", "h200")
    )
    for one, other in zip(small.stages, large.stages, strict=True):
        assert other.seconds.predicted <= one.seconds.predicted


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    workload = Workload(candidates=5, gallery_size=4)
    with pytest.raises(UsageError, match="5 candidates cannot come from a gallery of 4"):
        check_plan(tmp_path, workload, device="t4", architecture="sm_75", dtype=None)
    with pytest.raises(InputError, match=r"no manifest\.json"):
        check_plan(tmp_path, Workload(), device="t4", architecture="sm_75", dtype=None)
