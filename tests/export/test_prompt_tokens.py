"""Token ids and positions of the prompt against transformers' own."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_prompt import FullPrompt
from random_checkpoint import make_checkpoint
from real_data import TOKENIZER

from murank import InputError
from murank.prompt import Layout, default_template, load_template
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.tokens import answer_ids, prompt_tokens

# The form of the released file (keys, numbered rules, a space before the first), in other words.
MUSE_STYLE = {
    "task_description": 'Two photos follow, marked "Query:" and "Candidate:". Is it one person? ',
    "rules": [" Go by these:", "1. clothes (e.g. colour)", "Never by these:", "1. background"],
    "response_format": 'Say "Yes" or "No".',
}


@pytest.fixture(scope="module", params=["small", "real"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Folder of a shrunken checkpoint, by family, with a small and with the real tokenizer."""
    if request.param == "real" and not TOKENIZER.exists():
        pytest.skip("the real tokenizer is not on this machine")

    @functools.cache
    def of(family: str) -> Path:
        folder = tmp_path_factory.mktemp("checkpoints") / family
        make_checkpoint(folder, family, tokenizer=TOKENIZER if request.param == "real" else None)
        return folder

    return of


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> Callable[[str], Checkpoint]:
    """A checkpoint as it is loaded, by family (shared: never change one)."""
    return functools.cache(lambda family: load_checkpoint(checkpoint(family)))


@pytest.mark.parametrize("layout", ["paper", "prefix_first"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_a_prompt_file_gives_the_ids_of_the_chat_template(
    checkpoint: Callable[[str], Path],
    loaded: Callable[[str], Checkpoint],
    tmp_path: Path,
    family: str,
    layout: Layout,
) -> None:
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(MUSE_STYLE, indent=4))
    one = loaded(family)
    grid, _ = one.grid(None)
    tokens = prompt_tokens(one, load_template(file), layout)
    oracle = FullPrompt(checkpoint(family), family, MUSE_STYLE, layout, one.model)
    assert tokens.full(grid.num_tokens) == oracle.ids(grid.num_tokens)
    assert list(answer_ids(one.tokenizer)) == oracle.answers


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_positions_are_the_models_own(
    checkpoint: Callable[[str], Path],
    loaded: Callable[[str], Checkpoint],
    family: str,
    crops: list[Any],
) -> None:
    one = loaded(family)
    grid, _ = one.grid(None)
    tokens = prompt_tokens(one, default_template(), "paper")
    template = default_template().to_json()
    oracle = FullPrompt(checkpoint(family), family, template, "paper", one.model)
    inputs = oracle.inputs(crops[:2])
    inputs.pop("pixel_values")
    wanted, _ = one.model.model.get_rope_index(**inputs)
    found = torch.cat(tokens.positions(grid), 1)
    np.testing.assert_array_equal(found, wanted[:, 0])


def test_the_paper_layout_shares_little_and_prefix_first_most(
    loaded: Callable[[str], Checkpoint],
) -> None:
    paper, first = (
        prompt_tokens(loaded("qwen2_vl"), default_template(), layout)
        for layout in ("paper", "prefix_first")
    )
    assert len(first.behind) == 6  # end of image, end of turn, assistant header
    assert len(first.static) - len(paper.static) == len(paper.behind) - len(first.behind) + 1
    assert paper.between == first.between


def test_a_template_without_images_is_refused(loaded: Callable[[str], Checkpoint]) -> None:
    silent = replace(loaded("qwen2_vl"), chat_template="{{ messages[0]['role'] }}")
    with pytest.raises(InputError, match="put two images into the user turn"):
        prompt_tokens(silent, default_template(), "paper")


def test_image_size_must_be_whole_tokens(loaded: Callable[[str], Checkpoint]) -> None:
    assert loaded("qwen2_vl").grid((224, 112))[0].num_tokens == 32
    with pytest.raises(InputError, match="multiples of 28"):
        loaded("qwen2_vl").grid((256, 128))
