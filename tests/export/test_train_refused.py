"""Input that cannot be trained on: told in one sentence, before anything is written."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lora import add_lora, save_muse, save_peft
from made_pairs import MadePairs
from safetensors.torch import load_file, save_file

from murank import InputError, OutputError
from murank.pairs.labelled import load_pairs
from murank_export.adapt.train import train_adapter
from murank_export.adapt.train_settings import TrainSettings
from murank_export.mllm.checkpoint import load_checkpoint

Folder = Callable[[str], Path]


@pytest.fixture
def made(checkpoint: Folder, tmp_path: Path) -> MadePairs:
    return MadePairs(tmp_path, checkpoint("qwen2_vl"))


def assert_refused(settings: TrainSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_adapter(settings)
    assert not settings.output.exists()


def test_missing_images_are_counted(made: MadePairs) -> None:
    (made.images / "1_2.png").unlink()
    (made.images / "5_1.png").unlink()
    message = r"images/1_2\.png: no such image \(2 of 18 are missing\); .*--image-root"
    assert_refused(made.settings, message)
    assert_refused(made.but(image_root=made.root), r"0_0\.png")


def test_absolute_paths_need_no_root(made: MadePairs) -> None:
    for name in ("train", "val"):
        file = made.pairs / f"{name}.json"
        absolute = [
            replace(pair, query=str(made.images / pair.query),
                    candidate=str(made.images / pair.candidate))
            for pair in load_pairs(file)
        ]  # fmt: skip
        made.write(name, absolute)
    assert train_adapter(made.but(image_root=made.root / "elsewhere", steps=1)).steps == 1


@pytest.mark.parametrize("name", ["train", "val"])
def test_both_answers_are_needed(made: MadePairs, name: str) -> None:
    pairs = made.of(range(2))
    made.write(name, [pair for pair in pairs if pair.match])
    assert_refused(made.settings, rf"{name}\.json: every answer is Yes; both Yes and No are needed")
    made.write(name, [pair for pair in pairs if not pair.match])
    assert_refused(made.settings, rf"{name}\.json: every answer is No;")
    (made.pairs / f"{name}.json").write_text("[]")
    assert_refused(made.settings, rf"{name}\.json must hold a list of at least one pair")
    (made.pairs / f"{name}.json").unlink()
    assert_refused(made.settings, rf"{name}\.json: No such file")


def test_a_draw_of_one_answer(made: MadePairs) -> None:
    assert_refused(made.but(val_pairs=1), r"val\.json")


@pytest.mark.parametrize("targets", [("q_proj", "nowhere"), ("norm",), ("lm_head",), ("proj_q",)])
def test_targets_that_are_not_there(made: MadePairs, targets: tuple[str, ...]) -> None:
    message = f"no linear layer of this model is named '{targets[-1]}'; there are .*fc1, .*q_proj"
    assert_refused(made.but(targets=targets), message)


def test_an_image_size_of_another_family(made: MadePairs) -> None:
    assert_refused(made.but(image_size=(64, 32)), "needs multiples of 28 pixels")


def test_folders_that_are_not_there(made: MadePairs) -> None:
    nowhere = made.root / "nowhere"
    assert_refused(made.but(mllm=nowhere), r"config\.json")
    assert_refused(made.but(prompt=nowhere), "nowhere: No such file")
    assert_refused(made.but(init_adapter=nowhere), "nowhere: no such file or folder")
    assert_refused(made.but(pairs=nowhere), r"train\.json")


def test_an_image_that_cannot_be_read_is_named(made: MadePairs) -> None:
    """The checkpoint stays, and once the image is mended the same command goes on."""
    settings = made.but(pack=1, batch_size=1, steps=16, save_every=1, eval_every=16)
    image = made.images / "3_2.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:60])
    with pytest.raises(InputError, match=r"3_2\.png") as kept:
        train_adapter(settings)
    done = torch.load(settings.output / "checkpoint" / "latest.pt")["step"]
    assert 0 < done < 16
    image.write_bytes(whole)
    told: list[str] = []
    train_adapter(settings, told.append)
    assert f"going on after step {done} of 16" in told
    assert kept.tb is not None  # with all that its frames hold: the folder was free all the same


def test_weights_that_are_not_finite(made: MadePairs, tmp_path: Path) -> None:
    mllm = Path(shutil.copytree(made.settings.mllm, tmp_path / "mllm"))
    file = mllm / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    tensors[name][:] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match="answers to 8 of 8 validation pairs are not finite"):
        train_adapter(made.but(mllm=mllm))


def test_a_learning_rate_that_is_far_too_high(made: MadePairs) -> None:
    with pytest.raises(InputError, match=r"step [23]: loss nan, .*: lower --lr"):
        train_adapter(made.but(lr=1e30, clip=1e30, eval_every=6))


def changed(made: MadePairs, name: str) -> TrainSettings:
    """Settings, or files, that are not those of the training that was cut off."""
    if name == "pairs":
        made.write("train", made.of(range(3)))
    elif name == "validation pairs":
        made.write("val", made.of(range(4)))
    elif name == "prompt":
        text = (made.root / "prompt.json").read_text()
        (made.root / "prompt.json").write_text(text.replace("clothes", "shoes"))
    elif name == "model":
        mllm = Path(shutil.copytree(made.settings.mllm, made.root / "mllm"))
        config = json.loads((mllm / "config.json").read_text())
        (mllm / "config.json").write_text(json.dumps({**config, "murank": 1}))
        return made.but(mllm=mllm)
    else:
        return made.but(lr=2e-3, seed=1)
    return made.settings


CHANGES = {
    "settings": "of other settings: lr was 0.01, is 0.002, seed was 0, is 1; run it as it was",
    "pairs": "train_pairs_sha256 was",
    "validation pairs": "val_pairs_sha256 was",
    "prompt": "template_sha256 was",
    "model": "model_sha256 was",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_training_of_other_settings_is_not_gone_on_with(made: MadePairs, name: str) -> None:
    _cut_off(made)
    files = _files(made.settings.output)
    settings = changed(made, name)
    with pytest.raises(InputError, match=CHANGES[name]):
        train_adapter(settings)
    assert _files(made.settings.output) == files


def test_overwrite_begins_a_training_of_other_settings_anew(made: MadePairs) -> None:
    _cut_off(made)
    settings = made.but(seed=1, overwrite=True)
    told: list[str] = []
    train_adapter(settings, told.append)
    assert told[3].startswith("step 0: ")
    lines = (settings.output / "log.jsonl").read_text().splitlines()
    assert len([line for line in lines if '"val"' not in line]) == settings.steps


def test_a_finished_training_is_kept(made: MadePairs) -> None:
    train_adapter(made.but(steps=1))
    files = _files(made.settings.output)
    with pytest.raises(OutputError, match="out holds a finished training; pass --overwrite"):
        train_adapter(made.but(steps=1))
    assert _files(made.settings.output) == files
    train_adapter(made.but(steps=1, seed=4, overwrite=True))
    assert _files(made.settings.output) != files


def test_a_folder_of_something_else(made: MadePairs) -> None:
    made.settings.output.mkdir()
    (made.settings.output / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="out is no folder of a training; pass another name"):
        train_adapter(made.but(overwrite=True))
    assert _files(made.settings.output) == {"thesis.txt": b"mine"}


def test_an_output_that_is_a_file(made: MadePairs) -> None:
    made.settings.output.write_text("mine")
    with pytest.raises(OutputError, match="is not a writable folder"):
        train_adapter(made.settings)


def test_a_damaged_checkpoint(made: MadePairs) -> None:
    _cut_off(made)
    file = made.settings.output / "checkpoint" / "latest.pt"
    raw = file.read_bytes()
    for damaged in (b"", raw[: len(raw) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"latest\.pt"):
            train_adapter(made.settings)
    torch.save({"step": 2}, file)
    with pytest.raises(InputError, match=r"latest\.pt"):
        train_adapter(made.settings)
    told: list[str] = []
    train_adapter(made.but(overwrite=True), told.append)
    assert told[3].startswith("step 0: ")


def _cut_off(made: MadePairs) -> None:
    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_adapter(made.settings, progress=stop)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def prompted(folder: Path, layout: str) -> Path:
    """Say in an adapter which layout it was trained with."""
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file), file, {"format": "pt", "murank_layout": layout})
    return folder


@pytest.fixture
def peft(made: MadePairs) -> Path:
    adapted = add_lora(load_checkpoint(made.settings.mllm).model)
    save_muse(adapted, made.root / "muse.pth")
    return save_peft(adapted, made.root / "peft")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 8}, "peft has rank 4, not 8: leave that out"),
        ({"alpha": 16.0}, "peft has alpha 8, not 16.0: leave that out"),
        ({"targets": ("q_proj",)}, "peft has targets .* not .*q_proj.*: leave that out"),
    ],
)
def test_an_init_adapter_has_its_own_shape(
    made: MadePairs, peft: Path, changes: dict[str, Any], message: str
) -> None:
    assert_refused(made.but(init_adapter=peft, **changes), message)


def test_an_init_adapter_that_does_not_fit(made: MadePairs, peft: Path, checkpoint: Folder) -> None:
    settings = made.but(init_adapter=peft)
    assert_refused(made.but(init_adapter=made.root / "muse.pth"), r"muse\.pth")
    other = made.but(init_adapter=peft, mllm=checkpoint("qwen3_vl"), image_size=(64, 32))
    assert_refused(other, r"peft does not fit this model: .*visual\.blocks")
    prompted(peft, "prefix_first")
    assert_refused(settings, "was trained with layout prefix_first, not paper")
    prompted(peft, "paper")
    (peft / "adapter_model.safetensors").write_bytes(b"no")
    assert_refused(settings, "adapter_model.safetensors")
