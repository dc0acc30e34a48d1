"""Packed sequences answer as whole two-image prompts do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_prompt import FullPrompt
from peft import LoraConfig, inject_adapter_in_model

from murank.images import Preprocessing, prepare
from murank.prompt import LAYOUTS, Layout, default_template
from murank_export.adapt.answers import find_answers
from murank_export.adapt.lora import TARGETS
from murank_export.adapt.packing import forward, image_tokens, pack
from murank_export.adapt.question import recompute_activations
from murank_export.graphs.geometry import Grid
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.reference import pixel_values
from murank_export.mllm.tokens import PromptTokens, prompt_tokens

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
Folder = Callable[[str], Path]


class Packed:
    """A checkpoint, and the vision tokens of some crops."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.checkpoint: Checkpoint = load_checkpoint(folder)
        self.model = self.checkpoint.model
        self.grid, self.size = self.checkpoint.grid(None)
        self.tokens = prompt_tokens(self.checkpoint, default_template(), layout)
        self.answers = find_answers(self.checkpoint)

    def images(self, crops: list[Any]) -> torch.Tensor:
        how = Preprocessing(*self.size, "bicubic")
        ready = np.stack([prepare(crop, how).pixels for crop in crops])
        return image_tokens(self.model, pixel_values(ready, self.grid, self.checkpoint), self.grid)

    def ask(self, rows: torch.Tensor, answers: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of sequences: rows [B,1+k,...] of vision tokens, the query's first."""
        candidates = rows.shape[1] - 1
        packed = pack(self.tokens, self.grid, candidates, self.answers.length)
        if answers is None:
            answers = self.answers.inputs([True] * len(rows) * candidates)
            answers = answers.reshape(len(rows), candidates, -1)
        return forward(self.model, packed, rows[:, 0], rows[:, 1:], answers)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_those_of_whole_prompts(
    checkpoint: Folder, crops: list[Any], family: str, layout: Layout
) -> None:
    """Two sequences of three candidates; the oracle shares the folder only."""
    folder = checkpoint(family)
    found = Packed(folder, layout)
    oracle = FullPrompt(folder, family, default_template().to_json(), layout)
    images = found.images(crops[:7])
    rows = torch.stack([images[[0, 2, 3, 4]], images[[1, 5, 6, 2]]])
    logits = found.ask(rows)
    assert logits.shape == (2, 3, 2, found.model.config.text_config.vocab_size)
    for row, (query, candidates) in enumerate([(0, (2, 3, 4)), (1, (5, 6, 2))]):
        for place, candidate in enumerate(candidates):
            inputs = oracle.inputs([crops[query], crops[candidate]])
            yes = torch.tensor([list(found.answers.yes)])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], yes], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if "mm_token_type_ids" in inputs:
                kinds = inputs["mm_token_type_ids"]
                inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(yes)], 1)
            oracle.model.model.rope_deltas = None
            wanted = oracle.model(**inputs, use_cache=False).logits[0, -2:]
            torch.testing.assert_close(logits[row, place], wanted, atol=1e-5, rtol=0)
    assert (logits[0, 0] - logits[0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_candidate_does_not_see_another(
    checkpoint: Folder, crops: list[Any], family: str
) -> None:
    found = Packed(checkpoint(family), "prefix_first")
    images = found.images(crops[:5])
    one, other = found.ask(images[torch.tensor([[0, 1, 2, 3], [0, 1, 4, 3]])])
    # The same sums, and yet in another order: a hundred roundings of 2^-24, of logits up to 8.
    torch.testing.assert_close(one[[0, 2]], other[[0, 2]], atol=3e-5, rtol=0)
    assert (one[1] - other[1]).abs().max() > 1e-3


@torch.no_grad()
def test_an_answer_is_not_seen_before_it_is_given(checkpoint: Folder, crops: list[Any]) -> None:
    found = Packed(checkpoint("qwen2_vl"), "paper")
    rows = found.images(crops[:3])[None]
    yes, no = (found.answers.inputs([match] * 2)[None] for match in (True, False))
    said_yes, said_no = found.ask(rows, yes), found.ask(rows, no)
    torch.testing.assert_close(said_yes[:, :, 0], said_no[:, :, 0], atol=0, rtol=0)
    assert (said_yes[:, :, 1] - said_no[:, :, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_single_pairs(
    checkpoint: Folder, crops: list[Any], family: str
) -> None:
    """With and without gradient checkpointing; through the vision tower as well."""
    found = Packed(checkpoint(family), "paper")
    weights = _adapted(found.model, family)
    assert any(".visual." in name for name in weights)

    def gradient(rows: list[list[int]]) -> dict[str, torch.Tensor]:
        for row in rows:
            images = found.images(crops[:3])
            torch.autograd.backward(found.ask(images[row][None])[..., 5].sum())
        taken = {name: value.grad for name, value in weights.items() if value.grad is not None}
        for value in weights.values():
            value.grad = None
        return taken

    single = gradient([[0, 1], [0, 2]])
    together = gradient([[0, 1, 2]])
    recompute_activations(found.model)
    found.model.train()
    recomputed = gradient([[0, 1, 2]])
    assert single.keys() == together.keys() == recomputed.keys() == weights.keys()
    for name, value in single.items():
        scale = float(value.abs().max())
        assert scale > 0
        torch.testing.assert_close(together[name], value, atol=1e-4 * scale, rtol=0)
        torch.testing.assert_close(recomputed[name], together[name], atol=1e-5 * scale, rtol=0)


def _adapted(model: Any, family: str) -> dict[str, torch.nn.Parameter]:
    """Put a random adapter in where the method has it."""
    model.requires_grad_(False)
    config = LoraConfig(target_modules=list(TARGETS[family]), init_lora_weights=False)
    inject_adapter_in_model(config, model)
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def test_the_layout_of_a_sequence() -> None:
    """Written out: prefix of five tokens, two suffixes of four, answers of two."""
    grid = Grid(2, 4, 14, 2)  # two tokens in a row
    tokens = PromptTokens(static=(7,), between=(8, 9), behind=(6,), image=1)
    packed = pack(tokens, grid, 2, answer_length=2)
    assert packed.ids.tolist() == [7, 1, 1, 8, 9, 1, 1, 6, 6, 6, 1, 1, 6, 6, 6]
    assert packed.is_image.int().tolist() == [0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
    suffix = [[5, 5, 7, 8, 9], [5, 5, 7, 8, 9], [5, 6, 7, 8, 9]]  # time, row, column
    prefix = [[0, 1, 1, 3, 4], [0, 1, 1, 3, 4], [0, 1, 2, 3, 4]]
    wanted = [[*before, *after, *after] for before, after in zip(prefix, suffix, strict=True)]
    assert packed.positions.tolist() == wanted
    assert packed.answer_inputs.tolist() == [[8, 9], [13, 14]]
    assert packed.answer_outputs.tolist() == [[7, 8, 9], [12, 13, 14]]
    sees = [
        [column for column in range(15) if packed.mask[row, column]] for row in (3, 6, 10, 14)
    ]  # fmt: skip
    prefix_places = [0, 1, 2, 3, 4]
    assert sees == [
        [0, 1, 2, 3], [*prefix_places, 5, 6], [*prefix_places, 10],
        [*prefix_places, 10, 11, 12, 13, 14],
    ]  # fmt: skip
