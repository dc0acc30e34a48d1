"""Plans of freshly exported engines of every precision: the same products, other bytes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from longer import longer
from plan_devices import made_device

from murank.folder.manifest import read_manifest
from murank_export.plan import Workload, plan_engine
from murank_export.plan.work import Graphs, Work, stages

EngineFolder = Callable[..., Path]
SCORING = ("vision", "prefill", "score")


def works(folder: Path, half_bytes: int = 2) -> tuple[Work, ...]:
    manifest = read_manifest(folder)
    graphs = Graphs.read(folder, manifest, half_bytes)
    return stages(manifest, graphs, candidates=5, gallery_size=100, max_pairs=8)


def products(folder: Path) -> Counter[tuple[str, bool]]:
    """Operations by arithmetic, and whether weights are read (attention has none)."""
    found: Counter[tuple[str, bool]] = Counter()
    for work in works(folder):
        for cost, times in work.runs:
            assert not cost.uncounted
            for node in cost.nodes:
                found[node.arithmetic, node.weight_bytes > 0] += times * node.operations
    return +found


def test_precisions_have_the_same_products(engine_folder: EngineFolder) -> None:
    wide, half = (products(engine_folder(precision=p)) for p in ("fp32", "fp16"))
    assert set(wide) == {("fp32", True), ("fp32", False)}
    assert wide.total() == half.total()
    assert half["fp16", True] > 0.95 * wide["fp32", True]  # all but the answer's rows
    assert half["fp32", False] > 0  # attention's scores stay in float32


@pytest.mark.parametrize(("precision", "terms"), [("int8", 1), *longer(("w8a16", 2))])
def test_integers_have_as_many_or_twice(
    engine_folder: EngineFolder, precision: str, terms: int
) -> None:
    wide, integer = (products(engine_folder(precision=p)) for p in ("fp32", precision))
    assert integer["fp32", False] == wide["fp32", False]
    layers = wide["fp32", True] - integer["fp32", True]
    assert integer["int8", True] == terms * layers
    assert layers > wide["fp32", True] / 2  # patches are embedded in floats: many of two layers'


def test_precisions_have_other_weights(engine_folder: EngineFolder) -> None:
    def weights(precision: str, half_bytes: int = 2) -> int:
        found = {
            work.stage: work.runs[0][0].weight_bytes
            for work in works(engine_folder(precision=precision), half_bytes)
        }
        return found["vision"] + found["score"]

    assert weights("fp16") == pytest.approx(weights("fp32") / 2, rel=0.1)
    assert weights("fp16", 4) == pytest.approx(weights("fp32"), rel=0.1)  # as CPUs keep it
    assert weights("int8") < weights("fp16")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_other_families(engine_folder: EngineFolder, family: str) -> None:
    folder = engine_folder(family)
    found = plan_engine(folder, made_device(), Workload(5, 100))
    assert found.uncounted == {}
    assert {one.work.stage for one in found.stages} >= set(SCORING)
    assert all(one.seconds.predicted >= one.seconds.floor > 0 for one in found.stages)


def test_layouts_differ_where_they_should(engine_folder: EngineFolder) -> None:
    first, paper = (
        {one.title: one.operations for one in works(engine_folder(layout=layout))}
        for layout in ("prefix_first", "paper")
    )
    assert first["vision, query"] == paper["vision, query"]
    assert first["score 5 candidates"] < paper["score 5 candidates"]
