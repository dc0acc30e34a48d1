"""Smoothed checkpoints: they say the same, and int8 activations cost them less."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from murank.images import Preprocessing
from murank.prompt import default_template
from murank_export.graphs.geometry import Grid
from murank_export.mllm.activations import collect_activations
from murank_export.mllm.channels import Channels, all_channels
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.reference import ask
from murank_export.mllm.smoothing import smooth
from murank_export.mllm.tokens import PromptTokens, prompt_tokens
from murank_export.world.drawn_pairs import drawn_pairs

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
Inputs = dict[nn.Module, Tensor]


@dataclass(frozen=True)
class Asked:
    """A loaded model and how it is asked."""

    checkpoint: Checkpoint
    tokens: PromptTokens
    grid: Grid
    how: Preprocessing

    def collect(self) -> Inputs:
        return collect_activations(self.checkpoint, self.tokens, self.grid, self.how)

    def logits(self) -> Tensor:
        pairs = list(drawn_pairs(4, self.how))
        images = [candidate for _, candidate in pairs]
        found = ask(self.checkpoint, self.tokens, self.grid, (3, 4, 5), pairs[0][0], images)
        return torch.from_numpy(found.logits)


@pytest.fixture(scope="module")
def collected(checkpoint: Callable[[str], Path]) -> Callable[[str], tuple[Asked, Inputs]]:
    """A model with outliers, by family, and what its layers are given: each time one to change."""
    made: dict[str, tuple[Asked, Inputs]] = {}

    def of(family: str) -> tuple[Asked, Inputs]:
        if family not in made:
            one = asked(family)
            made[family] = one, one.collect()
        return copy.deepcopy(made[family])

    def asked(family: str) -> Asked:
        loaded = load_checkpoint(checkpoint(family))
        unit = 32 if family == "qwen3_vl" else 28
        grid, size = loaded.grid((4 * unit, 2 * unit))
        tokens = prompt_tokens(loaded, default_template(), "prefix_first")
        plant_outliers(loaded)
        return Asked(loaded, tokens, grid, Preprocessing(*size, "bicubic"))

    return of


def plant_outliers(checkpoint: Checkpoint) -> None:
    """Two channels of every norm, and of what `down` and `out` read, far above the others."""
    with torch.no_grad():
        for layer in checkpoint.model.model.language_model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight[3] *= 40
                norm.weight[11] *= 25
            layer.mlp.up_proj.weight[5] *= 30
            layer.self_attn.v_proj.weight[2] *= 30
        for block in checkpoint.model.model.visual.blocks:
            block.norm1.weight[1] *= 30
            block.norm2.weight[4] *= 30


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_says_the_same_and_its_inputs_are_what_it_is_given_now(
    collected: Callable[[str], tuple[Asked, Inputs]], family: str
) -> None:
    one, inputs = collected(family)
    model, before = one.checkpoint.model, one.logits()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    smooth(model, inputs)
    after = model.state_dict()
    changed = {name for name, value in weights.items() if not torch.equal(value, after[name])}
    kinds = {name.split(".")[-2] for name in changed}
    assert {"o_proj", "up_proj", "down_proj", "input_layernorm", "q_proj", "qkv"} <= kinds
    assert not [
        name for name in changed if "embed" in name or "q_norm" in name or "lm_head" in name
    ]
    for name in changed:  # powers of two
        ratio = (after[name] / weights[name])[weights[name] != 0]
        assert torch.equal(ratio.log2(), ratio.log2().round())
    difference = (one.logits() - before).abs().max()
    assert difference < 1e-4 * before.abs().max()
    again = one.collect()
    for layer, rows in inputs.items():
        scale = again[layer].float().abs().amax(0).clamp(min=1e-6)
        assert ((rows - again[layer]).float().abs() / scale).max() < 0.05


def int8_error(layer: Any, given: Tensor) -> float:
    """Squares of what int8 loses of a layer's outputs, one size of steps for all it is given."""
    x = given.double().numpy()
    w = layer.weight.detach().double().numpy()
    step, scale = np.abs(x).max() / 127, np.abs(w).max(1, keepdims=True) / 127
    made = (np.rint(x / step) * step) @ (np.rint(w / scale) * scale).T
    wanted = x @ w.T
    return float(((made - wanted) ** 2).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_outliers_cost_far_less(
    collected: Callable[[str], tuple[Asked, Inputs]], family: str
) -> None:
    one, inputs = collected(family)
    errors = {layer: int8_error(layer, rows) for layer, rows in inputs.items()}
    smooth(one.checkpoint.model, inputs)
    gain = {layer: errors[layer] / int8_error(layer, rows) for layer, rows in inputs.items()}
    planted = [
        gain[part]
        for layer in one.checkpoint.model.model.language_model.layers
        for part in (layer.mlp.gate_proj, layer.self_attn.k_proj, layer.mlp.down_proj)
    ]
    assert min(planted) > 1  # from 4 to 12 with other weights, 10 in the mean
    assert np.exp(np.log(planted).mean()) > 3
    for group in all_channels(one.checkpoint.model):
        # What reads the same is judged as a whole, by 256 rows of it: so no group loses, but for
        # the rows that were not asked.
        after = sum(errors[layer] / gain[layer] for layer in group.read_by)
        assert after < 1.25 * sum(errors[layer] for layer in group.read_by)


def test_channels_without_outliers_are_left_alone() -> None:
    """One size fits them: any factor would only coarsen the weights."""
    torch.manual_seed(0)
    layer, norm = nn.Linear(64, 32), nn.LayerNorm(64)
    nn.init.uniform_(layer.weight, 0.9, 1.0)
    model = block_of(norm, layer)
    given = torch.rand(100, 64).bfloat16() + 1
    before = layer.weight.clone()
    smooth(model, {layer: given})
    assert torch.equal(layer.weight, before)
    assert torch.equal(norm.weight, torch.ones(64))


@pytest.mark.parametrize("given", [torch.zeros(9, 64), torch.full((9, 64), torch.nan)])
def test_inputs_that_say_nothing(given: Tensor) -> None:
    layer, norm = nn.Linear(64, 32), nn.LayerNorm(64)
    before = layer.weight.clone()
    smooth(block_of(norm, layer), {layer: given.bfloat16()})
    assert torch.equal(layer.weight, before)


def block_of(norm: nn.LayerNorm, layer: nn.Linear) -> Any:
    """A model of one merger and nothing else."""
    merger, visual = nn.Module(), nn.Module()
    merger.ln_q, merger.mlp = norm, nn.ModuleList([layer])
    visual.blocks, visual.merger = nn.ModuleList(), merger
    inner: Any = nn.Module()
    inner.visual, inner.language_model = visual, nn.Module()
    inner.language_model.layers = nn.ModuleList()
    text = SimpleNamespace(num_attention_heads=1, num_key_value_heads=1)
    return SimpleNamespace(model=inner, config=SimpleNamespace(text_config=text))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_group_reads_what_is_made_for_it(
    collected: Callable[[str], tuple[Asked, Inputs]], family: str
) -> None:
    """Every channel of every group by its own factor: nothing changes."""
    one, _ = collected(family)
    model, before = one.checkpoint.model, one.logits()
    visual, layers = model.model.visual, model.model.language_model.layers
    mergers = 1 + len(getattr(visual, "deepstack_merger_list", []))
    in_block = 4 if family == "qwen2_5_vl" else 3
    groups: list[Channels] = list(all_channels(model))
    assert len(groups) == 4 * len(layers) + in_block * len(visual.blocks) + mergers
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for group in groups:
            group.divide(torch.exp2(torch.randint(-2, 3, (group.count,), generator=generator)))
    np.testing.assert_allclose(one.logits(), before, rtol=1e-4, atol=1e-3)
