"""The plan of the shipped engine: counts that were once those of a walk over its graphs' nodes."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from plan_devices import made_device

from murank import InputError, UsageError
from murank.folder.manifest import read_manifest
from murank_export.plan.devices import DEVICES
from murank_export.plan.prediction import Prediction, Workload, check_plan, plan_engine
from murank_export.plan.scorer_runs import ScorerRuns
from murank_export.plan.work import EngineRuns, Work, run_sizes

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
MANIFEST = read_manifest(ENGINE)
RUNS = EngineRuns.read(ENGINE, MANIFEST, on_cpu=True)
assert RUNS.scorer is not None
SCORER: ScorerRuns = RUNS.scorer
assert RUNS.encoder is not None


def works(*, candidates: int = 20, max_pairs: int = 32, size: int = 100) -> tuple[Work, ...]:
    """The stages of a query on the shipped engine."""
    return RUNS.stages(candidates=candidates, gallery_size=size, max_pairs=max_pairs)


# Of an image by hand: 32 patches of 3 x 16 x 16, 192 wide, 5 blocks with an MLP of 384, and a
# merger of 8 tokens.
EMBED = 2 * 32 * 768 * 192
BLOCK = 2 * 32 * 192 * (576 + 192 + 2 * 384) + 2 * 2 * 32 * 32 * 192
SEE = EMBED + 5 * BLOCK + 2 * 8 * 768 * (768 + 192)


def test_golden_counts() -> None:
    assert SEE == 119_537_664
    assert {one.title: one.operations for one in works()} == {
        "embed the query": 37_026_304,
        "retrieve": 2 * 100 * 256,
        "vision, query": SEE,
        "vision, 20 candidates": 20 * SEE,
        "prefill": 23_387_904,
        "score 20 candidates": 553_067_520,
        "fuse and re-rank": 0,
    }


def test_bytes_are_about_those_of_the_nodes() -> None:
    """Passes over activations stand for single nodes: within a sixteenth of what those move."""
    nodes = {
        "embed the query": 3_933_728, "prefill": 8_095_288, "score 20 candidates": 76_484_944,
    }  # fmt: skip
    found = {one.title: one.bytes for one in works()}
    for title, wanted in nodes.items():
        assert found[title] == pytest.approx(wanted, rel=1 / 16)


def test_largest_activations_are_about_those_of_the_nodes() -> None:
    """Two are of one layer that is no estimate, two of an image's values as floats, twice."""
    image = 2 * 4 * 3 * 128 * 64
    nodes = [
        (SCORER.see(1), image), (SCORER.see(8), 8 * image), (RUNS.encoder, 301_056),
        (SCORER.score(20), 2_107_720),
    ]  # fmt: skip
    for run, wanted in nodes:
        assert run is not None
        assert run.live_bytes == pytest.approx(wanted, rel=0.05)
    assert 1 <= SCORER.prefill().live_bytes / 242_296 < 1.25


def test_weights_are_those_of_the_files() -> None:
    """Those of 8 bits are floats in memory."""
    files = MANIFEST.files
    for run, name in ((SCORER.see(1), "vision"), (SCORER.prefill(), "decoder")):
        weights = onnx.load(str(ENGINE / "onnx" / f"{name}.onnx"), load_external_data=False)
        narrow = sum(
            math.prod(one.dims)
            for one in weights.graph.initializer
            if one.data_type == onnx.TensorProto.INT8
        )
        outside = files[f"onnx/{name}.onnx.data"].size
        assert narrow > outside / 2
        outside += 3 * narrow
        inside = files[f"onnx/{name}.onnx"].size
        assert 0.99 * outside < run.weight_bytes <= outside + inside  # without scales
        read = sum(step.weight_bytes for step in run.steps)
        assert 0.97 * outside < read <= run.weight_bytes
    assert RUNS.encoder is not None
    assert 0.95 < RUNS.encoder.weight_bytes / files["onnx/encoder.onnx"].size <= 1


def test_operations_of_one_layer_by_hand() -> None:
    """192 wide, 6 heads of 32 with 2 for K/V, 320 inside; 3 pairs of 14 tokens behind 68."""
    steps = SCORER.score(3).steps
    assert {step.name: step.operations for step in steps[:9]} == {
        "q": 2 * 3 * 14 * 192 * 192, "k": 2 * 3 * 14 * 192 * 64, "v": 2 * 3 * 14 * 192 * 64,
        "out": 2 * 3 * 14 * 192 * 192, "gate": 2 * 3 * 14 * 192 * 320,
        "up": 2 * 3 * 14 * 192 * 320, "down": 2 * 3 * 14 * 320 * 192,
        "scores": 2 * 3 * 14 * 6 * 32 * (68 + 14), "values": 2 * 3 * 14 * 6 * 32 * (68 + 14),
    }  # fmt: skip
    last = {step.name: step.operations for step in steps[30:39]}
    assert last["k"] == 2 * 3 * 14 * 192 * 64
    assert last["q"] == 2 * 3 * 192 * 192  # of one token a pair
    assert last["scores"] == 2 * 3 * 6 * 32 * (68 + 14)


def test_a_batch_of_images_is_so_many_runs() -> None:
    found = {work.title: work for work in works(candidates=11)}
    assert found["vision, 11 candidates"].operations == 11 * found["vision, query"].operations
    assert sum(times for _, times in found["vision, 11 candidates"].runs) == 2  # eight, and three


def test_retrieval_reads_every_feature_once() -> None:
    retrieve = next(one for one in works(size=500) if one.stage == "retrieve")
    assert (retrieve.operations, retrieve.bytes) == (2 * 500 * 256, 4 * 500 * 256)


@pytest.mark.parametrize(
    ("candidates", "most", "sizes"), [(20, 32, [20]), (20, 8, [6, 7, 7]), (3, 1, [1, 1, 1])]
)
def test_runs_of_the_decoder(candidates: int, most: int, sizes: list[int]) -> None:
    assert sorted(run_sizes(candidates, most)) == sizes


def test_parts_alone() -> None:
    for manifest, wanted in (
        (replace(MANIFEST, scorer=None), ["embed", "retrieve", "rerank"]),
        (replace(MANIFEST, encoder=None), ["vision", "vision", "prefill", "score"]),
        (MANIFEST, ["embed", "retrieve", "vision", "vision", "prefill", "score", "rerank"]),
    ):
        runs = EngineRuns.read(ENGINE, manifest, on_cpu=True)
        found = runs.stages(candidates=4, gallery_size=9, max_pairs=8)
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
        check_plan(tmp_path, workload, device="t4", architecture="sm_75", precision=None)
    with pytest.raises(InputError, match=r"manifest\.json"):
        check_plan(tmp_path, Workload(), device="t4", architecture="sm_75", precision=None)


@pytest.mark.parametrize("weights", ["layers.2.up.weight", "layers.0.q.weight"])
def test_a_graph_that_is_not_murank_s(tmp_path: Path, weights: str) -> None:
    shutil.copytree(ENGINE / "onnx", tmp_path / "onnx")
    file = tmp_path / "onnx" / "decoder.onnx"
    model = onnx.load(file, load_external_data=False)
    (found,) = [one for one in model.graph.initializer if one.name == weights]
    found.dims[:] = [found.dims[0] * found.dims[1]]
    onnx.save(model, file)
    runs = EngineRuns.read(tmp_path, MANIFEST, on_cpu=True)
    with pytest.raises(InputError, match=rf"decoder\.onnx.*{weights}"):
        runs.stages(candidates=1, gallery_size=1, max_pairs=1)
    found.name = "another"
    onnx.save(model, file)
    runs = EngineRuns.read(tmp_path, MANIFEST, on_cpu=True)
    with pytest.raises(InputError, match=rf"decoder\.onnx.*{weights}"):
        runs.stages(candidates=1, gallery_size=1, max_pairs=1)
