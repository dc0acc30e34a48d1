"""Configs in the names of other versions, and of trainers that write patterns: tensors decide."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lora import add_lora
from safetensors.torch import load_file, save_file

from murank import InputError
from murank_export.mllm.adapter import read_adapter
from murank_export.mllm.merge import apply_adapter

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TEXT = "model.language_model.layers"
UP, Q1, FC1 = f"{TEXT}.0.mlp.up_proj", f"{TEXT}.1.self_attn.q_proj", "model.visual.blocks.0.mlp.fc1"
LAYERS = (UP, Q1, FC1)
# Weights, and what is added to them, are below 2 here: four products, three sums, a scale and a
# last sum in float32, each rounded by at most half an eps.
ROUNDING = 9 / 2 * torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def made(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of three layers: ranks 2, 4 and 4, alpha 8, 3 and 8; a norm trained along."""
    folder = tmp_path_factory.mktemp("made")
    adapted = add_lora(
        copy.deepcopy(model), target_modules=list(LAYERS), rank_pattern={"up_proj": 2},
        alpha_pattern={"q_proj": 3}, modules_to_save=["language_model.norm"],
    )  # fmt: skip
    adapted.save_pretrained(folder)
    return folder


def old(name: str) -> str:
    """As transformers before 4.52 has it."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def write(source: Path, folder: Path, spell: Callable[[str], str], **changes: Any) -> Path:
    tensors = load_file(source / WEIGHTS)
    folder.mkdir(exist_ok=True)
    save_file({spell(name): value for name, value in tensors.items()}, folder / WEIGHTS)
    config = json.loads((source / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    return folder


def merged(model: Any, folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    applied = apply_adapter(
        copy.deepcopy(model), read_adapter(folder), lora_alpha=None, lora_rank=None
    )
    return dict(applied.merge().named_parameters()), applied.notes


def expected(model: Any, made: Path) -> dict[str, torch.Tensor]:
    """W + alpha / rank * B A, written out, in float64."""
    tensors = {name: value.double() for name, value in load_file(made / WEIGHTS).items()}
    weights = {name: value.detach().double() for name, value in model.named_parameters()}
    for name, scale in ((UP, 8 / 2), (Q1, 3 / 4), (FC1, 8 / 4)):
        a, b = (tensors[f"base_model.model.{name}.lora_{half}.weight"] for half in "AB")
        weights[f"{name}.weight"] += scale * (b @ a)
    norm = "model.language_model.norm.weight"
    weights[norm] = tensors[f"base_model.model.{norm}"]
    return weights


# What trainers write; the long one is unsloth's, the next LLaMA-Factory's with a frozen tower.
UNSLOTH = (
    r"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attention|attn|mlp|"
    r"feed_forward|ffn|dense).*?(?:q_proj|up_proj|fc1|qkv|proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
    r"(?:(?:q_proj|up_proj|fc1|qkv|proj)))"
)
CONFIGS: dict[str, dict[str, Any]] = {
    "full names": {"target_modules": [old(name) for name in LAYERS]},
    "last names, of which some layers": {"target_modules": ["up_proj", "q_proj", "fc1"]},
    "unsloth": {"target_modules": UNSLOTH},
    "LLaMA-Factory": {"target_modules": r"^(?!.*visual).*(?:up_proj|q_proj|down_proj).*"},
    "ms-swift": {"target_modules": r"^(model(?=\.).*\.(q_proj|up_proj)|visual.*\.fc1)$"},
    "all": {"target_modules": "all-linear"},
    "not said": {"target_modules": None},
    "of another family, too": {"target_modules": ["up_proj", "q_proj", "fc1", "linear_fc1"]},
    "by layer": {
        "target_modules": ["up_proj", "q_proj"], "layers_to_transform": [0, 1],
        "layers_pattern": "model.layers",
    },
    "left out": {"target_modules": ["up_proj", "q_proj"], "exclude_modules": r"visual\..*"},
    "patterns": {
        "target_modules": "all-linear", "rank_pattern": {"model.layers.0.mlp.up_proj": 2},
        "alpha_pattern": {r"^model\.layers\.1\..*q_proj": 3},
    },
    "a norm": {"modules_to_save": ["model.norm"]},
}  # fmt: skip


@pytest.mark.parametrize("spell", [old, str], ids=["old tensors", "tensors of today"])
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=list(CONFIGS))
def test_every_spelling_is_the_same_adapter(
    model: Any, made: Path, tmp_path: Path, changes: dict[str, Any], spell: Callable[[str], str]
) -> None:
    found, notes = merged(model, write(made, tmp_path, spell, **changes))
    for name, value in expected(model, made).items():
        torch.testing.assert_close(found[name].double(), value, rtol=0, atol=ROUNDING)
    assert all(note.count(",") < 8 and len(note) < 500 for note in notes)


def test_names_of_wrappers(model: Any, made: Path, tmp_path: Path) -> None:
    """State dicts as FSDP, torch.compile and PEFT itself have them, saved as they are."""

    def spell(name: str) -> str:
        named = re.sub(r"(lora_[AB])\.", r"\1.default.", f"_orig_mod.{name}")
        return named.replace(".norm.", ".norm.modules_to_save.default.").replace(
            ".layers.1.", ".layers.1._fsdp_wrapped_module."
        )

    found, _ = merged(model, write(made, tmp_path, spell))
    for name, value in expected(model, made).items():
        torch.testing.assert_close(found[name].double(), value, rtol=0, atol=ROUNDING)


def test_what_config_and_tensors_say_apart_is_told(model: Any, made: Path, tmp_path: Path) -> None:
    folder = write(made, tmp_path, str, target_modules=["up_proj", "nose"])
    _, notes = merged(model, folder)
    assert len(notes) == 3
    assert "nose" in notes[0]
    assert "layers.1.mlp.up_proj" in notes[1]  # targeted, and nothing of it in the file
    assert "visual.blocks.0.mlp.fc1" in notes[2]  # in the file, and not targeted


def test_a_tree_is_never_listed(model: Any, made: Path, tmp_path: Path) -> None:
    tensors = load_file(made / WEIGHTS)
    more = {
        f"base_model.model.{TEXT}.{layer}.mlp.up_proj.lora_{half}.weight": torch.ones(4, 4)
        for layer in range(20, 52)
        for half in "AB"
    }
    folder = write(made, tmp_path, str)
    save_file({**tensors, **more}, folder / WEIGHTS)
    with pytest.raises(InputError, match="and 27 more") as error:
        merged(model, folder)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"alpha_pattern": {"nose": 4}}, "alpha_pattern"),
        ({"alpha_pattern": {"(": 4}}, "alpha_pattern"),
        ({"target_modules": "(q_proj"}, CONFIG),
        ({"r": 16}, CONFIG),
        ({"target_modules": 5}, "target_modules"),
        ({"rank_pattern": "up_proj"}, "rank_pattern"),
        ({"modules_to_save": ["nose"]}, "modules_to_save"),
        ({"modules_to_save": ["lm_head"]}, WEIGHTS),  # trained whole, and not in the file
    ],
)
def test_what_cannot_be_decided_is_refused(
    model: Any, made: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        merged(model, write(made, tmp_path, str, **changes))


def test_an_adapter_of_a_wider_model_names_its_base(model: Any, made: Path, tmp_path: Path) -> None:
    folder = write(made, tmp_path, str, base_model_name_or_path="Qwen/Qwen2-VL-7B-Instruct")
    tensors = load_file(folder / WEIGHTS)
    name = f"base_model.model.{UP}.lora_A.weight"
    save_file({**tensors, name: torch.ones(2, 3584)}, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"3584.*Qwen2-VL-7B-Instruct"):
        merged(model, folder)
