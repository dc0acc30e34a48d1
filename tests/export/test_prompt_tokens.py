"""Token ids and positions of the prompt against transformers' own."""

import functools
import json
from collections.abc import Callable
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
from murank_export.mllm.checkpoint import load_checkpoint
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


@pytest.mark.parametrize("layout", ["paper", "prefix_first"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_a_prompt_file_gives_the_ids_of_the_chat_template(
    checkpoint: Callable[[str], Path], tmp_path: Path, family: str, layout: Layout
) -> None:
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(MUSE_STYLE, indent=4))
    loaded = load_checkpoint(checkpoint(family))
    grid, _ = loaded.grid(None)
    tokens = prompt_tokens(loaded, load_template(file), layout)
    oracle = FullPrompt(checkpoint(family), family, MUSE_STYLE, layout, loaded.model)
    assert tokens.full(grid.num_tokens) == oracle.ids(grid.num_tokens)
    assert list(answer_ids(loaded.tokenizer)) == oracle.answers


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_positions_are_the_models_own(
    checkpoint: Callable[[str], Path], family: str, crops: list[Any]
) -> None:
    loaded = load_checkpoint(checkpoint(family))
    grid, _ = loaded.grid(None)
    tokens = prompt_tokens(loaded, default_template(), "paper")
    template = default_template().to_json()
    oracle = FullPrompt(checkpoint(family), family, template, "paper", loaded.model)
    inputs = oracle.inputs(crops[:2])
    inputs.pop("pixel_values")
    wanted, _ = loaded.model.model.get_rope_index(**inputs)
    found = torch.cat(tokens.positions(grid), 1)
    np.testing.assert_array_equal(found, wanted[:, 0])


def test_the_paper_layout_shares_little_and_prefix_first_most(
    checkpoint: Callable[[str], Path],
) -> None:
    loaded = load_checkpoint(checkpoint("qwen2_vl"))
    paper, first = (
        prompt_tokens(loaded, default_template(), layout) for layout in ("paper", "prefix_first")
    )
    assert len(first.behind) == 6  # end of image, end of turn, assistant header
    assert len(first.static) - len(paper.static) == len(paper.behind) - len(first.behind) + 1
    assert paper.between == first.between


def test_a_template_without_images_is_refused(checkpoint: Callable[[str], Path]) -> None:
    loaded = load_checkpoint(checkpoint("qwen2_vl"))
    loaded.chat_template = "{{ messages[0]['role'] }}"
    with pytest.raises(InputError, match="put two images into the user turn"):
        prompt_tokens(loaded, default_template(), "paper")


def test_image_size_must_be_whole_tokens(checkpoint: Callable[[str], Path]) -> None:
    loaded = load_checkpoint(checkpoint("qwen2_vl"))
    assert loaded.grid((224, 112))[0].num_tokens == 32
    with pytest.raises(InputError, match="multiples of 28"):
        loaded.grid((256, 128))
