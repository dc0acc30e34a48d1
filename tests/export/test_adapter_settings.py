"""Every setting of PEFT that is merged: the merged model answers as the one that was trained."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_prompt import FullPrompt
from lora import TARGETS, add_lora, save_muse
from safetensors.torch import load_file, save_file

from murank import InputError
from murank.prompt import default_template
from murank_export.mllm.adapter import read_adapter
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.mllm.merge import apply_adapter, merge_adapter

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's, of tied weights
WEIGHTS = "adapter_model.safetensors"
TEXT = "model.language_model.layers"
EMBEDDINGS = ("embed_tokens", "lm_head")


class Models:
    """A checkpoint and how it is asked."""

    def __init__(self, folder: Path, crops: Any) -> None:
        self.model, self.crops = load_checkpoint(folder).model, crops
        template = default_template().to_json()
        self.oracle = FullPrompt(folder, "qwen2_vl", template, "paper", self.model)
        self.plain = self.answers(self.model)

    def answers(self, model: Any) -> Any:
        self.oracle.model = model
        return self.oracle.logits(self.crops[0], self.crops[1:2])

    def fresh(self) -> Any:
        return copy.deepcopy(self.model)

    def merged(self, path: Path, alpha: float | None = None) -> Any:
        model = merge_adapter(self.fresh(), read_adapter(path), lora_alpha=alpha, lora_rank=None)
        assert not any("lora" in name for name, _ in model.named_parameters())
        return self.answers(model)

    def check(self, adapted: Any, folder: Path, **how: Any) -> None:
        """Save what is beside the weights, and ask both forms of it."""
        adapted.save_pretrained(folder, **how)
        trained = self.answers(adapted.get_base_model())
        assert np.abs(trained - self.plain).max() > 0.01
        np.testing.assert_allclose(self.merged(folder), trained, atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def tied(tied_checkpoint: Path, crops: Any) -> Models:
    models = Models(tied_checkpoint, crops)
    assert models.model.lm_head.weight is models.model.get_input_embeddings().weight
    return models


@pytest.fixture(scope="module")
def untied(tied_checkpoint: Path, crops: Any, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The same with a head of its own, whatever this transformers makes of the shared one."""
    folder = tmp_path_factory.mktemp("untied") / "qwen2_vl"
    shutil.copytree(tied_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    (table,) = [value for name, value in tensors.items() if "embed_tokens" in name]
    save_file(
        {**tensors, "lm_head.weight": table.flip(0)}, folder / "model.safetensors",
        {"format": "pt"},
    )  # fmt: skip
    models = Models(folder, crops)
    assert models.model.lm_head.weight is not models.model.get_input_embeddings().weight
    return models


SETTINGS: dict[str, dict[str, Any]] = {
    "alpha_pattern": {"alpha_pattern": {"mlp.up_proj": 64, f"{TEXT}.0.self_attn.q_proj": 1}},
    "rank_pattern": {"rank_pattern": {"up_proj": 2, "^model.visual.blocks.0.mlp.fc1": 7}},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bias": {"bias": "all"},
    "bias of the layers": {"bias": "lora_only"},
    "bias of the adapter": {"lora_bias": True, "target_modules": ["q_proj", "fc1"]},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "not some": {"exclude_modules": ["up_proj"]},
    "a pattern": {"target_modules": r".*language_model.*(q_proj|up_proj)"},
    "all": {"target_modules": "all-linear"},
    "the mergers": {"target_modules": ["merger.mlp.0", "q_proj"]},
    "patches": {"target_modules": ["patch_embed.proj", "q_proj"]},
    "a whole norm": {"modules_to_save": ["norm"]},
}


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=list(SETTINGS))
def test_settings(untied: Models, tmp_path: Path, changes: dict[str, Any]) -> None:
    untied.check(add_lora(untied.fresh(), **changes), tmp_path)


OF_EMBEDDINGS: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "both": {"target_modules": ["q_proj", *EMBEDDINGS]},
    "head with dora": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "both as one": {"target_modules": ["q_proj", *EMBEDDINGS], "ensure_weight_tying": True},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
    "some tokens": {"trainable_token_indices": list(range(0, 1024, 3))},
    "whole head, adapted embeddings": {
        "target_modules": ["q_proj", "embed_tokens"], "modules_to_save": ["lm_head"]
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", OF_EMBEDDINGS.values(), ids=list(OF_EMBEDDINGS))
def test_embeddings_and_head(tied: Models, tmp_path: Path, changes: dict[str, Any]) -> None:
    tied.check(add_lora(tied.fresh(), **changes), tmp_path)


def test_embeddings_and_a_head_of_its_own(untied: Models, tmp_path: Path) -> None:
    untied.check(add_lora(untied.fresh(), target_modules=["q_proj", *EMBEDDINGS]), tmp_path)


@pytest.mark.parametrize("which", ["tied", "untied"])
def test_frozen_copies_of_the_embeddings(
    request: pytest.FixtureRequest, tmp_path: Path, which: str
) -> None:
    """PEFT writes them along, with save_embedding_layers or where vocabularies seem to differ."""
    models: Models = request.getfixturevalue(which)
    models.check(add_lora(models.fresh()), tmp_path, save_embedding_layers=True)
    tensors = load_file(tmp_path / WEIGHTS)
    (table,) = [name for name in tensors if "embed_tokens" in name]
    half = {**tensors, table: tensors[table].bfloat16()}
    save_file(half, tmp_path / WEIGHTS)
    merge_adapter(models.fresh(), read_adapter(tmp_path), lora_alpha=None, lora_rank=None)
    tensors[table][5, 5] += 0.5
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(InputError, match=r"no place for 1 tensors.*embed_tokens"):
        models.merged(tmp_path)


def test_a_file_with_an_adapter_of_a_tied_head(tied: Models, tmp_path: Path) -> None:
    adapted = add_lora(tied.fresh(), target_modules=["q_proj", "lm_head"])
    trained = tied.answers(adapted.get_base_model())
    file = save_muse(adapted, tmp_path / "muse.pth")
    np.testing.assert_allclose(tied.merged(file, alpha=8), trained, atol=2e-5, rtol=0)


def test_a_file_that_says_two_things_of_one_weight(tied: Models, tmp_path: Path) -> None:
    adapted = add_lora(tied.fresh())
    file = save_muse(adapted, tmp_path / "muse.pth")
    state, shape = torch.load(file, weights_only=True), tied.model.lm_head.weight.shape
    two = {"lm_head.weight": torch.ones(shape), "model.embed_tokens.weight": torch.zeros(shape)}
    torch.save({**state, **two}, file)
    with pytest.raises(InputError, match=r"lm_head\.weight"):
        tied.merged(file)


def test_a_bias_that_no_weight_can_hold(untied: Models, tmp_path: Path) -> None:
    adapted = add_lora(untied.fresh(), target_modules=["up_proj"], lora_bias=True)
    adapted.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path.name} does not fit this model.*bias"):
        untied.merged(tmp_path)


def test_targets_of_other_families_are_told(untied: Models, tmp_path: Path) -> None:
    adapted = add_lora(untied.fresh(), target_modules=[*TARGETS, "linear_fc1"])
    adapted.save_pretrained(tmp_path)
    applied = apply_adapter(untied.fresh(), read_adapter(tmp_path), lora_alpha=None, lora_rank=None)
    (note,) = applied.notes
    assert note.endswith("target_modules linear_fc1 are no layers of this model")
