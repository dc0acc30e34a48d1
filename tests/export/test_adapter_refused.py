"""Adapters that do not fit, are damaged, or were trained with another prompt."""

import copy
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lora import add_lora, save_muse, save_peft
from safetensors.torch import load_file, save_file

from murank import InputError
from murank_export.mllm.adapter import (
    LAYOUT_KEY,
    TEMPLATE_KEY,
    check_prompt,
    read_adapter,
)
from murank_export.mllm.merge import apply_adapter, merge_adapter

Tensors = dict[str, torch.Tensor]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT folder, `peft`, and a MUSE file, `muse.pth`, of the model."""
    folder = tmp_path_factory.mktemp("saved")
    adapted = add_lora(copy.deepcopy(model))
    save_peft(adapted, folder / "peft")
    save_muse(adapted, folder / "muse.pth")
    return folder


@pytest.fixture
def peft(saved: Path, tmp_path: Path) -> Path:
    """A PEFT folder to damage."""
    return Path(shutil.copytree(saved / "peft", tmp_path / "peft"))


def merge(model: Any, path: Path, rank: int | None = None) -> Any:
    adapter = read_adapter(path)
    return merge_adapter(copy.deepcopy(model), adapter, lora_alpha=8, lora_rank=rank)


def first(tensors: Tensors, half: str = "lora_A") -> str:
    return next(name for name in tensors if half in name)


def unknown_module(tensors: Tensors) -> Tensors:
    """All that fits, and an adapter of a layer that the model does not have."""
    more = {
        name.replace(".layers.0.", ".layers.50."): value.clone()
        for name, value in tensors.items()
        if ".layers.0.mlp.up_proj." in name
    }
    assert len(more) == 2
    return {**tensors, **more}


def one_half(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if name != first(tensors)}


def other_shape(tensors: Tensors) -> Tensors:
    name = first(tensors)
    return {**tensors, name: tensors[name][:, :-1].clone()}


def other_rank(tensors: Tensors) -> Tensors:
    name = first(tensors)
    return {**tensors, name: tensors[name][:-1].clone()}


def not_a_number(tensors: Tensors) -> Tensors:
    name = first(tensors, "lora_B")
    return {**tensors, name: torch.full_like(tensors[name], torch.nan)}


MUSE: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "unknown module": (unknown_module, r"layers\.50\.mlp\.up_proj does not fit this model"),
    "one half": (one_half, "lacks lora_A or lora_B"),
    "other shape": (other_shape, "does not fit this model"),
    "other rank": (other_rank, "differ in rank"),
    "NaN": (not_a_number, "holds NaN or infinite values"),
    "three dimensions": (lambda t: {**t, first(t): t[first(t)][None]}, "of two dimensions"),
    "two adapters": (
        lambda t: {**t, first(t).replace("default", "second"): t[first(t)]}, "holds two adapters"
    ),
    "unknown parameter": (lambda t: {**t, "base_model.model.nose": torch.ones(3)}, "nose does not"),
    "a norm of another length": (
        lambda t: {**t, "model.language_model.norm.weight": torch.ones(3)}, "does not fit"
    ),
    "lora of a norm": (
        lambda t: {
            **t, "model.norm.lora_A.weight": torch.ones(1, 64),
            "model.norm.lora_B.weight": torch.ones(64, 1),
        },
        r"norm does not fit",
    ),
    "empty": (lambda _: {}, "must hold a dict of tensors"),
    "a list": (lambda t: list(t.values()), "must hold a dict of tensors"),
    "a tensor": (lambda _: torch.ones(3), "must hold a dict of tensors"),
    "nested": (lambda t: {"state_dict": t}, "must hold a dict of tensors"),
    "numbers for names": (lambda t: dict(enumerate(t.values())), "must hold a dict of tensors"),
    "one layer under two names": (
        lambda t: {**t, **{f"module.{name}": value for name, value in t.items()}},
        "holds two adapters",
    ),
    "no adapter": (
        lambda _: {"model.language_model.norm.weight": torch.ones(64)}, "holds no lora_A"
    ),
    "a text among them": (lambda t: {**t, "note": "hello"}, "must hold a dict of tensors"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MUSE.values(), ids=list(MUSE))
def test_files_that_do_not_fit(
    model: Any, saved: Path, tmp_path: Path, change: Callable[[Tensors], Any], message: str
) -> None:
    tensors = torch.load(saved / "muse.pth", weights_only=True)
    torch.save(change(tensors), tmp_path / "bad.pth")
    with pytest.raises(InputError, match=rf"bad\.pth.*{message}") as error:
        merge(model, tmp_path / "bad.pth")
    assert "\n" not in str(error.value)


def test_a_file_of_another_rank_than_stated(model: Any, saved: Path) -> None:
    merge(model, saved / "muse.pth", rank=4)
    with pytest.raises(InputError, match=r"muse\.pth"):
        merge(model, saved / "muse.pth", rank=8)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_nothing_is_run_of_a_malicious_file(
    model: Any, saved: Path, tmp_path: Path, plain_pickle: bool
) -> None:
    mark, file = tmp_path / "was here", tmp_path / "bad.pth"
    content = {**torch.load(saved / "muse.pth", weights_only=True), "x": Malicious(mark)}
    file.write_bytes(pickle.dumps(content)) if plain_pickle else torch.save(content, file)
    with pytest.raises(InputError, match="holds more than plain tensors") as error:
        merge(model, file)
    assert not mark.exists()
    assert "weights_only" not in str(error.value)  # no advice to load it all the same
    pickle.loads(pickle.dumps(content))  # noqa: S301
    assert mark.exists()  # it would have been


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_files_that_are_cut_off(model: Any, saved: Path, tmp_path: Path, share: float) -> None:
    whole = (saved / "muse.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"cut\.pth"):
        merge(model, tmp_path / "cut.pth")


PEFT: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "unknown module": (unknown_module, "layers.50.mlp.up_proj"),
    "one half": (one_half, "layers.0"),
    "other shape": (other_shape, "layers.0"),
    "NaN": (not_a_number, "NaNs"),
    "of nothing known": (
        lambda t: {"base_model.model.nose.lora_A.weight": t[first(t)]},
        "nose",
    ),
}


@pytest.mark.parametrize(("change", "message"), PEFT.values(), ids=list(PEFT))
def test_folders_that_do_not_fit(
    model: Any, peft: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    save_file(change(load_file(peft / WEIGHTS)), peft / WEIGHTS)
    with pytest.raises(InputError, match=f"peft does not fit this model: .*{message}") as error:
        merge(model, peft)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_folder_whose_tensors_have_another_rank(model: Any, peft: Path) -> None:
    save_file(other_rank(load_file(peft / WEIGHTS)), peft / WEIGHTS)
    with pytest.raises(InputError, match=r"peft: layers\.0.* rank 3"):
        merge(model, peft)


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("kind", ["IA3", "PROMPT_TUNING", None])
def test_adapters_of_another_kind(peft: Path, kind: str | None) -> None:
    edit_config(peft, peft_type=kind)
    with pytest.raises(InputError, match=f"peft_type is {kind!r}; murank merges LORA"):
        read_adapter(peft)


@pytest.mark.parametrize("length", [0, 4, 300, -1])
def test_folders_whose_weights_are_cut_off(peft: Path, length: int) -> None:
    whole = (peft / WEIGHTS).read_bytes()
    (peft / WEIGHTS).write_bytes(whole[:length])
    with pytest.raises(InputError, match=rf"{WEIGHTS} is (damaged|empty)"):
        read_adapter(peft)


@pytest.mark.parametrize("missing", [WEIGHTS, "adapter_config.json"])
def test_folders_that_lack_a_file(peft: Path, missing: str) -> None:
    (peft / missing).unlink()
    with pytest.raises(InputError, match="peft is no adapter: expected a PEFT folder"):
        read_adapter(peft)


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", "lora.pth"])
def test_a_pointer_in_place_of_a_file(peft: Path, name: str) -> None:
    (peft / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 3\n")
    with pytest.raises(InputError, match=f"{name} is a Git LFS pointer"):
        read_adapter(peft / name if name.endswith(".pth") else peft)


def test_a_trainers_folder_names_the_adapter_in_it(peft: Path) -> None:
    with pytest.raises(InputError, match=r"is no adapter.*/peft is one"):
        read_adapter(peft.parent)


def test_pickled_weights_of_a_folder_are_not_looked_at(peft: Path, tmp_path: Path) -> None:
    (peft / WEIGHTS).unlink()
    torch.save({"x": Malicious(tmp_path / "mark")}, peft / "adapter_model.bin")
    with pytest.raises(InputError, match="is no adapter"):
        read_adapter(peft)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "name",
    ["adapter_model.bin", "non_lora_state_dict.bin", "non_lora_trainables.bin",
     "new_embeddings.safetensors", "mm_projector.pth"],
)  # fmt: skip
def test_other_weights_of_a_folder(peft: Path, tmp_path: Path, name: str) -> None:
    """The adapter was trained with them; none is opened."""
    torch.save({"x": Malicious(tmp_path / "mark")}, peft / name)
    with pytest.raises(InputError, match=f"peft also holds {name}"):
        read_adapter(peft)
    assert not (tmp_path / "mark").exists()


def test_what_a_trainer_keeps_is_no_part_of_an_adapter(peft: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt"):
        (peft / name).write_bytes(b"x")
    assert read_adapter(peft).kind == "peft"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer_replication", [[0, 2], [1, 3]]), ("alora_invocation_tokens", [1, 2]),
        ("use_qalora", True), ("target_parameters", ["mlp.weight"]), ("megatron_config", {"a": 1}),
        ("a_setting_of_a_later_peft", 0.5), ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "loftq"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_merged(peft: Path, name: str, value: Any) -> None:
    edit_config(peft, **{name: value})
    with pytest.raises(InputError, match=rf"adapter_config\.json: {name} is "):
        read_adapter(peft)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha_pattern", {"mlp.up_proj": 8, "nose": 64}),
        ("rank_pattern", {"^model.layers": 4}),
        ("modules_to_save", ["classifier"]),
    ],
)
def test_names_of_a_config_that_fit_nothing(model: Any, peft: Path, name: str, value: Any) -> None:
    edit_config(peft, **{name: value})
    lost = list(value)[-1]
    with pytest.raises(InputError, match=rf"(?=.*{name}).*{re.escape(lost)}"):
        merge(model, peft)


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_an_adapter_that_adds_nothing(model: Any, saved: Path, peft: Path, half: str) -> None:
    def cleared(tensors: Tensors) -> Tensors:
        return {n: torch.zeros_like(v) if half in n else v for n, v in tensors.items()}

    save_file(cleared(load_file(peft / WEIGHTS)), peft / WEIGHTS)
    torch.save(cleared(torch.load(saved / "muse.pth", weights_only=True)), peft.parent / "0.pth")
    for path in (peft, peft.parent / "0.pth"):
        applied = apply_adapter(
            copy.deepcopy(model), read_adapter(path), lora_alpha=8, lora_rank=None
        )
        (note,) = applied.notes  # no more than that
        assert f"{path.name}: changes nothing" in note


def test_layers_that_it_leaves_as_they_are_are_told(model: Any, peft: Path) -> None:
    tensors = load_file(peft / WEIGHTS)
    tensors[first(tensors, "layers.1.mlp.up_proj.lora_B")].zero_()
    save_file(tensors, peft / WEIGHTS)
    applied = apply_adapter(copy.deepcopy(model), read_adapter(peft), lora_alpha=8, lora_rank=None)
    (note,) = applied.notes
    layers = sum("lora_B" in name for name in tensors)
    assert note.endswith(f"lora_B of 1 of {layers} layers is zero, as of layers.1.mlp.up_proj")


@pytest.mark.parametrize("name", ["adapter.pt", "adapter.bin", "adapter.safetensors"])
def test_files_of_another_kind(saved: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(saved / "muse.pth", tmp_path / name)
    with pytest.raises(InputError, match="is no adapter"):
        read_adapter(tmp_path / name)


def test_the_prompt_it_was_trained_with(peft: Path) -> None:
    tensors = load_file(peft / WEIGHTS)
    save_file(tensors, peft / WEIGHTS, {LAYOUT_KEY: "prefix_first", TEMPLATE_KEY: "ab" * 32})
    adapter = read_adapter(peft)
    assert (adapter.layout, adapter.template_sha256) == ("prefix_first", "ab" * 32)
    check_prompt(adapter, "prefix_first", "ab" * 32, force=False)
    with pytest.raises(InputError, match="--force"):
        check_prompt(adapter, "paper", "ab" * 32, force=False)
    with pytest.raises(InputError, match=r"sha256 abababababab\.\.\.\): pass its file with --pr"):
        check_prompt(adapter, "prefix_first", "cd" * 32, force=False)
    check_prompt(adapter, "paper", "cd" * 32, force=True)


def test_a_folder_that_says_nothing_fits_any_prompt(peft: Path) -> None:
    adapter = read_adapter(peft)
    assert (adapter.kind, adapter.layout, adapter.template_sha256) == ("peft", None, None)
    for layout in ("paper", "prefix_first"):
        check_prompt(adapter, layout, "cd" * 32, force=False)
    known = replace(adapter, template_sha256="ab" * 32)
    with pytest.raises(InputError, match="another prompt template"):
        check_prompt(known, "paper", "cd" * 32, force=False)


def test_a_file_is_of_the_papers_layout(saved: Path) -> None:
    adapter = read_adapter(saved / "muse.pth")
    assert (adapter.kind, adapter.layout, adapter.template_sha256) == ("muse", "paper", None)
    check_prompt(adapter, "paper", "cd" * 32, force=False)
    with pytest.raises(InputError, match="with layout paper, not prefix_first"):
        check_prompt(adapter, "prefix_first", "cd" * 32, force=False)
    check_prompt(adapter, "prefix_first", "cd" * 32, force=True)
