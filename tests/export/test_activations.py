"""What is kept of the inputs of linear layers, against the hooks of a plain forward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_once import draw_anew
from torch import Tensor, nn

from murank.images import Preprocessing
from murank.prompt import default_template
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.geometry import Grid
from murank_export.graphs.vision import VisionTower
from murank_export.mllm.activations import MOST_ROWS, collect_activations
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.reference import prompt_inputs
from murank_export.mllm.tokens import PromptTokens, prompt_tokens
from murank_export.world.drawn_pairs import drawn_pairs

PAIRS = 64  # as many as are asked of short prompts
FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


@dataclass(frozen=True)
class Asked:
    """A loaded model and how it is asked."""

    checkpoint: Checkpoint
    tokens: PromptTokens
    grid: Grid
    how: Preprocessing

    def collect(self) -> dict[nn.Module, Tensor]:
        return collect_activations(self.checkpoint, self.tokens, self.grid, self.how)


@pytest.fixture(scope="module")
def asked(checkpoint: Callable[[str], Path]) -> Callable[[str], Asked]:
    def of(family: str) -> Asked:
        loaded = load_checkpoint(checkpoint(family))
        size = 4 * 28, 2 * 28
        if family == "qwen3_vl":
            size = 4 * 32, 2 * 32
        grid, size = loaded.grid(size)
        tokens = prompt_tokens(loaded, default_template(), "prefix_first")
        return Asked(loaded, tokens, grid, Preprocessing(*size, "bicubic"))

    return of


@pytest.fixture(scope="module")
def collected(asked: Callable[[str], Asked]) -> tuple[Asked, dict[nn.Module, Tensor]]:
    """Of one family, and what was collected: shared, never change it."""
    one = asked("qwen2_vl")
    return one, one.collect()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_that_a_graph_takes_has_inputs_and_they_are_dropped_with_it(
    asked: Callable[[str], Asked], family: str
) -> None:
    one = asked(family)
    inputs, model = one.collect(), one.checkpoint.model
    for layer, rows in inputs.items():
        assert rows.dtype == torch.bfloat16
        assert rows.shape[1] == layer.in_features
        assert MOST_ROWS // 4 < len(rows) <= MOST_ROWS
    mean, std = one.checkpoint.mean, one.checkpoint.std
    VisionTower(model.model.visual, one.grid, "int8", inputs, mean=mean, std=std)
    assert set(inputs) <= set(model.model.language_model.modules())
    assert inputs
    Decoder(model, (0, 1), "int8", inputs)
    assert not inputs


def test_rows_of_what_the_layer_is_given_without_the_static_prefix(
    collected: tuple[Asked, dict[nn.Module, Tensor]],
) -> None:
    one, inputs = collected
    model = one.checkpoint.model.model
    layers = [model.language_model.layers[1].self_attn.k_proj, model.visual.blocks[0].mlp.fc2]
    given: list[list[Tensor]] = [[], []]

    def keep(rows: list[Tensor]) -> Callable[..., None]:
        return lambda _layer, args: rows.append(args[0].flatten(0, -2).bfloat16())

    handles = [
        layer.register_forward_pre_hook(keep(rows))
        for layer, rows in zip(layers, given, strict=True)
    ]
    pairs = [np.stack(pair) for pair in drawn_pairs(PAIRS, one.how)]
    with torch.no_grad():
        for images in pairs:
            model(**prompt_inputs(one.checkpoint, one.tokens, one.grid, images))
    for handle in handles:
        handle.remove()
    for layer, rows, skipped in zip(layers, given, (len(one.tokens.static), 0), strict=True):
        allowed = {tuple(row.tolist()) for call in rows for row in call[skipped:]}
        refused = {tuple(row.tolist()) for call in rows for row in call[:skipped]}
        found = [tuple(row.tolist()) for row in inputs[layer]]
        assert set(found) <= allowed - refused
        assert len(set(found)) > 0.9 * len(found)  # rows of the text between may be alike
        # Every pair gives as many; what was given last stands last.
        last = {tuple(row.tolist()) for row in rows[-1]}
        assert set(found[-len(found) // PAIRS :]) <= last


def test_layers_that_are_given_the_same_share_it(
    collected: tuple[Asked, dict[nn.Module, Tensor]],
) -> None:
    one, inputs = collected
    for layer in one.checkpoint.model.model.language_model.layers:
        q, k, v, out = (
            inputs[getattr(layer.self_attn, name)]
            for name in ("q_proj", "k_proj", "v_proj", "o_proj")
        )
        gate, up, down = (
            inputs[getattr(layer.mlp, name)] for name in ("gate_proj", "up_proj", "down_proj")
        )
        assert q is k is v
        assert gate is up
        assert len({id(rows) for rows in (q, out, gate, down)}) == 4


def test_the_same_again_and_no_hook_stays(
    collected: tuple[Asked, dict[nn.Module, Tensor]],
) -> None:
    one, first = collected
    again = one.collect()
    assert list(first) == list(again)
    assert all(torch.equal(rows, again[layer]) for layer, rows in first.items())
    modules: list[Any] = list(one.checkpoint.model.modules())
    assert not any(module._forward_pre_hooks for module in modules)


def test_drawn_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_anew(monkeypatch)
    how = Preprocessing(112, 56, "bicubic")
    pairs, again = list(drawn_pairs(20, how)), list(drawn_pairs(20, how))
    assert len(pairs) == 20
    for (query, candidate), (same, too) in zip(pairs, again, strict=True):
        assert query.shape == candidate.shape == (3, 112, 56)
        assert query.dtype == candidate.dtype == np.uint8
        np.testing.assert_array_equal(query, same)
        np.testing.assert_array_equal(candidate, too)
    assert len({image.tobytes() for pair in pairs for image in pair}) == 40
