"""Plans of freshly exported engines: operations as PyTorch counts them; precisions, bytes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from longer import longer
from plan_devices import made_device
from torch.utils.flop_counter import FlopCounterMode

from murank.folder.manifest import read_manifest
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.vision import VisionTower
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.plan.prediction import Workload, plan_engine
from murank_export.plan.scorer_runs import ScorerRuns
from murank_export.plan.work import EngineRuns, Work

EngineFolder = Callable[..., Path]
SCORING = ("vision", "prefill", "score")


def runs(folder: Path, *, on_cpu: bool = False) -> EngineRuns:
    return EngineRuns.read(folder, read_manifest(folder), on_cpu=on_cpu)


def works(folder: Path, *, on_cpu: bool = False) -> tuple[Work, ...]:
    return runs(folder, on_cpu=on_cpu).stages(candidates=5, gallery_size=100, max_pairs=8)


def operations(module: torch.nn.Module, *inputs: Any) -> int:
    """What PyTorch counts of a module's products."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def decoder_operations(module: Decoder, scorer: ScorerRuns, candidates: int, *, query: bool) -> int:
    s = scorer.part.shapes
    tokens = s.prefill_tokens if query else s.suffix_tokens
    prefix = s.static_tokens + (0 if query else s.prefill_tokens)
    past = [torch.zeros(1, s.kv_heads, prefix, s.head_dim) for _ in range(2 * s.layers)]
    return operations(
        module, torch.zeros(1, candidates, s.levels, s.vision_tokens, s.hidden),
        torch.zeros(tokens - s.vision_tokens, s.hidden), torch.zeros(3, tokens, dtype=torch.int64),
        past,
    )  # fmt: skip


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_operations_are_those_that_pytorch_counts(
    engine_folder: EngineFolder, checkpoint: Callable[..., Path], family: str
) -> None:
    """With windows, gated towers, deepstack levels and normed heads among them."""
    scorer = runs(engine_folder(family)).scorer
    assert scorer is not None
    loaded = load_checkpoint(checkpoint(family))
    size = (scorer.part.preprocessing.height, scorer.part.preprocessing.width)
    grid, _ = loaded.grid(size)
    mean, std = loaded.mean, loaded.std
    tower = VisionTower(loaded.model.model.visual, grid, "fp32", mean=mean, std=std)
    for images in (1, 3):
        pixels = torch.zeros(images, 3, *size, dtype=torch.uint8)
        assert scorer.see(images).operations == operations(tower, pixels)
    module = Decoder(loaded.model, (0, 1), "fp32")
    assert scorer.prefill().operations == decoder_operations(module, scorer, 1, query=True)
    for candidates in (1, 7):
        found = scorer.score(candidates).operations
        assert found == decoder_operations(module, scorer, candidates, query=False)


def products(folder: Path) -> Counter[tuple[str, bool]]:
    """Operations by arithmetic, and whether weights are read (attention has none)."""
    found: Counter[tuple[str, bool]] = Counter()
    for work in works(folder):
        for run, times in work.runs:
            for step in run.steps:
                found[step.kind, step.weight_bytes > 0] += times * step.operations
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
    def weights(precision: str, *, on_cpu: bool = False) -> int:
        found = {
            work.stage: work.runs[0][0].weight_bytes
            for work in works(engine_folder(precision=precision), on_cpu=on_cpu)
        }
        return found["vision"] + found["score"]

    assert weights("fp16") == pytest.approx(weights("fp32") / 2, rel=0.1)
    assert weights("fp16", on_cpu=True) == pytest.approx(weights("fp32"), rel=0.1)
    assert weights("int8") < weights("fp16")


def test_a_foretold_precision_is_the_exported_one_but_for_scales(
    engine_folder: EngineFolder,
) -> None:
    """int8's come to 4 bytes an output, of 64 inputs and more.

    Of its tower's rotations there are two tables instead of four, half as wide.
    """
    wide, half, integer = (
        runs(engine_folder(precision=one), on_cpu=True).scorer for one in ("fp32", "fp16", "int8")
    )
    assert wide is not None
    assert half is not None
    assert integer is not None
    for name in ("vision", "decoder"):
        exported = getattr(integer, name).bytes(4)
        for one in (wide, half):
            graph = getattr(one.rounded("int8"), name)
            cos = graph.weights.get("cos")
            rotations = [x.bytes(4) for x in graph.weights.values() if cos and x.shape == cos.shape]
            foretold = graph.bytes(4) - 3 * sum(rotations) // 4
            assert 0.8 * exported < foretold <= exported


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_other_families(engine_folder: EngineFolder, family: str) -> None:
    found = plan_engine(engine_folder(family), made_device(), Workload(5, 100))
    assert {one.work.stage for one in found.stages} >= set(SCORING)
    assert all(one.seconds.predicted >= one.seconds.floor > 0 for one in found.stages)


def test_layouts_differ_where_they_should(engine_folder: EngineFolder) -> None:
    first, paper = (
        {one.title: one.operations for one in works(engine_folder(layout=layout))}
        for layout in ("prefix_first", "paper")
    )
    assert first["vision, query"] == paper["vision, query"]
    assert first["score 5 candidates"] < paper["score 5 candidates"]
