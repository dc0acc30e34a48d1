"""The two ways of writing attention against one plain softmax over all that a token sees."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from murank.folder.manifest import read_manifest
from murank.folder.precision import ARITHMETIC, INTEGER
from murank_export import ExportSettings, export_engine
from murank_export.graphs.attention import (
    OPSET,
    Attention,
    Fused,
    Heads,
    Portable,
    attention_of,
)
from murank_export.plan.work import EngineRuns

EngineFolder = Callable[..., Path]
WAYS = (Portable, Fused)
HEADS = (Heads(4, 4, 8), Heads(6, 2, 4), Heads(4, 1, 6))


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """[S,heads,D] turned in pairs of places (i, i + D/2), by complex numbers."""
    first, second = x.double().chunk(2, -1)
    both = torch.complex(first, second) * torch.exp(1j * angles.double())[:, None, :]
    return torch.cat([both.real, both.imag], -1)


def plain(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """One query [heads,D] over keys and values [L,KVH,D], of which it sees some: [heads*D]."""
    heads, width = query.shape
    group = heads // keys.shape[1]
    found = []
    for head in range(heads):
        scores = keys[:, head // group].double() @ query[head].double() / width**0.5
        weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), 0)
        found.append(weights @ values[:, head // group].double())
    return torch.cat(found)


def assert_close(found: Tensor, wanted: Tensor, length: int) -> None:
    """Within float32's rounding of scores (some 30 wide) and of sums of `length` values."""
    bound = (30 + length) * float(np.finfo(np.float32).eps) * max(float(wanted.abs().max()), 1)
    assert float((found.double() - wanted.double()).abs().max()) <= bound


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("last", [False, True])
def test_over_a_prefix(way: type[Attention], heads: Heads, last: bool) -> None:
    draw = torch.Generator().manual_seed(heads.width)
    queries, candidates, tokens, prefix = 2, 3, 5, 7

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    angles, factor = 3 * drawn(tokens, heads.width // 2), 1.25
    query = drawn(queries, candidates, tokens, heads.queries, heads.width)
    key, value = (drawn(queries, candidates, tokens, heads.keys, heads.width) for _ in range(2))
    past = [drawn(queries, heads.keys, prefix, heads.width) for _ in range(2)]
    attention = way(heads)  # type: ignore[call-arg]
    tables = attention.tables(angles, factor, prefix, torch.float32)
    asking = query[:, :, -1:] if last else query
    out, *extended = attention.over_prefix(asking, key, value, past, tables)
    assert out.shape == (*asking.shape[:3], heads.queries * heads.width)
    for q, k in itertools.product(range(queries), range(candidates)):
        own = factor * turned(key[q, k], angles)
        keys = torch.cat([past[0][q].transpose(0, 1).double(), own])
        values = torch.cat([past[1][q].transpose(0, 1), value[q, k]])
        for place in range(asking.shape[2]):
            token = tokens - 1 if last else place
            turn = factor * turned(query[q, k, token][None], angles[token][None])[0]
            seen = torch.arange(prefix + tokens) <= prefix + token
            assert_close(out[q, k, place], plain(turn, keys, values, seen), prefix + tokens)
        if k == 0:
            for found, wanted in zip(extended, (keys, values), strict=True):
                assert_close(found[q], wanted.transpose(0, 1), 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("windowed", [False, True])
def test_within_an_image(way: type[Attention], windowed: bool) -> None:
    draw = torch.Generator().manual_seed(int(windowed))
    heads, patches, images = Heads(3, 3, 4), 6, 2
    angles = 3 * torch.randn(patches, heads.width // 2, generator=draw)
    shape = (images, patches, heads.queries, heads.width)
    query, key, value = (torch.randn(shape, generator=draw) for _ in range(3))
    window = torch.arange(patches) // 3
    together = window[:, None] == window[None, :]
    bias = torch.zeros(patches, patches).masked_fill(~together, -1e9) if windowed else None
    attention = way(heads)  # type: ignore[call-arg]
    out = attention.within(query, key, value, attention.rotation(angles), bias)
    for image, patch in itertools.product(range(images), range(patches)):
        keys = turned(key[image], angles)
        asked = turned(query[image, patch][None], angles[patch][None])[0]
        seen = together[patch] if windowed else torch.ones(patches, dtype=torch.bool)
        assert_close(out[image, patch], plain(asked, keys, value[image], seen), patches)


def test_only_graphs_for_onnxruntimes_cpu_are_fused() -> None:
    """TensorRT and OpenVINO are given operators that all of their versions know."""
    for precision in ARITHMETIC:
        assert isinstance(attention_of(precision, HEADS[0]), Fused) == (precision in INTEGER)
        assert isinstance(attention_of(precision, HEADS[0], portable=True), Portable)


def test_integer_engines_for_an_older_onnxruntime(
    engine_folder: EngineFolder, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Exported with `portable`, they hold nothing newer than float32 ones, and plan sees which.

    Their golden answers were measured at the export, which refuses what is beyond tolerance.
    """
    settings = ExportSettings(
        tmp_path / "engine", checkpoint("qwen2_vl"), layout="prefix_first", precision="int8",
        parity_pairs=3, portable=True,
    )  # fmt: skip
    export_engine(settings)
    plain, fused = engine_folder(), engine_folder(precision="int8")
    for name in ("vision", "decoder"):
        old, wide, new = (
            onnx.load(folder / "onnx" / f"{name}.onnx", load_external_data=False)
            for folder in (settings.output, plain, fused)
        )
        assert old.opset_import[0].version == wide.opset_import[0].version
        assert new.opset_import[0].version == OPSET
        kinds = {node.op_type for node in old.graph.node}
        assert not kinds & {"Attention", "RotaryEmbedding"}
        assert {"Attention", "RotaryEmbedding"} <= {node.op_type for node in new.graph.node}
    found = [
        EngineRuns.read(folder, read_manifest(folder), on_cpu=True).scorer
        for folder in (settings.output, fused)
    ]
    assert [one is not None and one.how.fused for one in found] == [False, True]
