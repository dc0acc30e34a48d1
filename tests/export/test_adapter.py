"""Merged adapters answer as applied ones do."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_prompt import FullPrompt
from lora import ALPHA, RANK, add_lora, save_muse, save_peft, trainable
from safetensors.torch import load_file, save_file

from murank import Engine, InputError
from murank.prompt import default_template
from murank_export import ExportSettings, export_engine
from murank_export.mllm.adapter import read_adapter
from murank_export.mllm.checkpoint import canonical, load_checkpoint
from murank_export.mllm.merge import merge_adapter

Checkpoint = Callable[[str], Path]
TEMPLATE = default_template().to_json()


class Adapted:
    """An adapter in both forms, and the answers of the model that carries it unmerged."""

    def __init__(self, folder: Path, family: str, crops: Any, scratch: Path) -> None:
        self.folder, self.crops = folder, crops
        self.model = load_checkpoint(folder).model
        self.oracle = FullPrompt(folder, family, TEMPLATE, "paper", self.model)
        self.plain = self.answers(self.fresh())
        adapted = add_lora(self.fresh())
        self.parameters = trainable(adapted)
        self.peft = save_peft(adapted, scratch / "peft")
        self.muse = save_muse(adapted, scratch / "muse.pth")
        self.applied = self.answers(adapted.get_base_model())

    def fresh(self) -> Any:
        return copy.deepcopy(self.model)

    def answers(self, model: Any) -> Any:
        self.oracle.model = model
        return self.oracle.logits(self.crops[0], self.crops[1:2])

    def merged(self, path: Path, *, alpha: float | None = None, rank: int | None = None) -> Any:
        """Answers of a fresh model with the adapter merged."""
        model = merge_adapter(self.fresh(), read_adapter(path), lora_alpha=alpha, lora_rank=rank)
        assert not any("lora" in name for name, _ in model.named_parameters())
        return self.answers(model)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def adapted(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    crops: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Adapted:
    scratch = tmp_path_factory.mktemp("adapters")
    return Adapted(checkpoint(request.param), request.param, crops, scratch)


def assert_applied(adapted: Adapted, found: Any) -> None:
    assert np.abs(adapted.applied - adapted.plain).min() > 0.01
    np.testing.assert_allclose(found, adapted.applied, atol=1e-5, rtol=0)


def test_a_peft_folder(adapted: Adapted) -> None:
    assert_applied(adapted, adapted.merged(adapted.peft))


def test_a_file_of_trainable_parameters(adapted: Adapted) -> None:
    assert_applied(adapted, adapted.merged(adapted.muse, alpha=ALPHA, rank=RANK))


def test_alpha_scales_what_a_file_adds(adapted: Adapted) -> None:
    """No alpha is in the file; 32 is what it was trained with."""
    usual = adapted.merged(adapted.muse)
    np.testing.assert_array_equal(usual, adapted.merged(adapted.muse, alpha=32))
    assert np.abs(usual - adapted.applied).max() > 0.01
    np.testing.assert_allclose(adapted.merged(adapted.muse, alpha=1e-9), adapted.plain, atol=1e-5)


OLD_NAMES: dict[str, Callable[[str], str]] = {
    "without language_model": lambda name: name.replace("model.language_model.", "model."),
    "visual beside the model": lambda name: name.replace(".model.visual.", ".visual."),
    "of a parallel wrapper": lambda name: f"module.{name}",
    "all of them": lambda name: "module." + name.replace("model.language_model.", "model.").replace(
        ".model.visual.", ".visual."
    ),
    "without PEFT's prefix": lambda name: name.removeprefix("base_model.model."),
}  # fmt: skip


@pytest.mark.parametrize("rename", OLD_NAMES.values(), ids=list(OLD_NAMES))
def test_names_of_other_versions(
    adapted: Adapted, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    renamed = {rename(name): value for name, value in adapted.parameters.items()}
    assert set(renamed) != set(adapted.parameters)
    torch.save(renamed, tmp_path / "old.pth")
    assert_applied(adapted, adapted.merged(tmp_path / "old.pth", alpha=ALPHA))


def test_a_peft_folder_with_names_of_an_older_transformers(
    adapted: Adapted, tmp_path: Path
) -> None:
    tensors = load_file(adapted.peft / "adapter_model.safetensors")
    old = {OLD_NAMES["without language_model"](name): value for name, value in tensors.items()}
    old = {OLD_NAMES["visual beside the model"](name): value for name, value in old.items()}
    save_file(old, tmp_path / "adapter_model.safetensors")
    config = (adapted.peft / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config)
    assert_applied(adapted, adapted.merged(tmp_path))


def test_other_trained_parameters_of_a_file_replace_the_models(
    adapted: Adapted, tmp_path: Path
) -> None:
    """A norm trained along, and a layer beside its adapter (`base_layer`)."""
    changed = adapted.fresh()
    norm, layer = "model.language_model.norm.weight", "model.language_model.layers.0.mlp.up_proj"
    with torch.no_grad():
        changed.get_parameter(norm).mul_(1.5)
        changed.get_submodule(layer).weight.mul_(0.5)
    expected = adapted.answers(add_lora(changed).get_base_model())
    norm_value = adapted.fresh().get_parameter(norm).detach() * 1.5
    layer_value = adapted.fresh().get_submodule(layer).weight.detach() * 0.5
    extra = {
        f"base_model.model.{layer}.base_layer.weight": layer_value,
        f"base_model.model.{norm}": norm_value,
    }
    for order in ({**adapted.parameters, **extra}, {**extra, **adapted.parameters}):
        torch.save(order, tmp_path / "more.pth")
        found = adapted.merged(tmp_path / "more.pth", alpha=ALPHA)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_half_precision_files(adapted: Adapted, tmp_path: Path) -> None:
    half = {name: value.bfloat16() for name, value in adapted.parameters.items()}
    torch.save(half, tmp_path / "half.pth")
    found = adapted.merged(tmp_path / "half.pth", alpha=ALPHA)
    assert np.abs(found - adapted.applied).max() < 0.2 * np.abs(found - adapted.plain).max()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("base_model.model.model.language_model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"),
        ("model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"),
        ("module.base_model.model.visual.blocks.1.mlp.fc1", "visual.blocks.1.mlp.fc1"),
        ("model.visual.blocks.1.mlp.fc1", "visual.blocks.1.mlp.fc1"),
        ("lm_head", "lm_head"),
    ],
)
def test_canonical_names(name: str, short: str) -> None:
    assert canonical(name) == short


@pytest.mark.parametrize("adapted", ["qwen2_vl"], indirect=True)  # graphs of others: elsewhere
def test_the_engine_answers_as_the_adapted_model(
    adapted: Adapted, crops: Any, tmp_path: Path
) -> None:
    settings = ExportSettings(
        tmp_path / "engine", adapted.folder, adapter=adapted.peft, parity_pairs=1
    )
    with pytest.raises(InputError, match="does not say which prompt it was trained with: pass"):
        export_engine(settings)
    notes: list[str] = []
    made = export_engine(replace(settings, force=True), notes.append)
    assert notes[0].endswith("peft does not say which layout it was trained with")
    said = made.manifest.sources.adapter
    assert said is not None
    assert (said.name, said.kind) == ("peft", "peft")
    assert 0 < made.parity["scorer"]["adapter_max_abs"] < 1e-4
    mu = Engine.from_pretrained(made.folder, providers="cpu").mu(crops[0], crops[1:2])
    difference = (adapted.applied[:, 1] - adapted.applied[:, 0]).astype(np.float64)
    np.testing.assert_allclose(mu, 1 / (1 + np.exp(difference)), atol=3e-5, rtol=0)
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert str(adapted.peft.parent) not in json.dumps(manifest)
