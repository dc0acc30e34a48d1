"""Nothing of a checkpoint is left out of the model without a word."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from murank import InputError
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.sources.loading import load_model

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM = "model.norm.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint to change."""
    return Path(shutil.copytree(checkpoint("qwen2_vl"), tmp_path / "checkpoint"))


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def write(folder: Path, tensors: Tensors, name: str = WEIGHTS) -> None:
    save_file(tensors, folder / name, {"format": "pt"})


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_an_adapter_beside_the_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "adapter_config.json")
    with pytest.raises(InputError, match=r"adapter_config\.json"):  # encoders are loaded so, too
        load_model(None, folder)


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "config.json"])
def test_a_pointer_in_place_of_a_file(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 3\n")
    refused(folder, f"{name} is a Git LFS pointer")


def test_a_cache_whose_download_was_cut_off(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../../blobs/4d7a2146")
    refused(folder, f"{WEIGHTS} is a link to .*4d7a2146")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.gguf"])
def test_weights_of_another_format(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    refused(folder, f"checkpoint also holds {name}")


@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"bits": 4}},
        {"vision_config": {"quantization_config": {"bits": 4}}},
        {"text_config": {"compression_config": {"a": {}}}},
    ],
)
def test_quantised(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    refused(folder, "checkpoint is quantised")


def test_code_of_its_own(folder: Path) -> None:
    edit(folder, auto_map={"AutoModel": "modeling.Model"})
    refused(folder, "auto_map")


def test_a_tensor_without_a_place(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    write(folder, {**tensors, "score.weight": torch.ones(2, 64)})
    refused(folder, rf"{WEIGHTS}: score\.weight has no place")


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "a.safetensors"])
def test_a_second_file_of_weights(folder: Path, name: str) -> None:
    """The same once more does no harm."""
    tensors = load_file(folder / WEIGHTS)
    (norm,) = [key for key in tensors if key.endswith(NORM)]
    write(folder, {norm: tensors[norm].clone()}, name)
    load_checkpoint(folder)
    write(folder, {norm: tensors[norm] + 1}, name)
    refused(folder, r"norm\.weight is not what the model is given: another file")


@pytest.mark.parametrize("place", ["nowhere.safetensors", "../other.safetensors", 3])
def test_an_index_of_other_files(folder: Path, place: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
    write(folder.parent, tensors, "other.safetensors")
    named = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": named}))
    load_checkpoint(folder)
    named[next(iter(named))] = place
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": named}))
    refused(folder, rf"{INDEX} names .*, which is no file of that folder")
    (folder / INDEX).write_text("{}")
    refused(folder, f"{INDEX} must name a file")


def test_a_head_beside_a_config_that_ties_it(tied_checkpoint: Path, tmp_path: Path) -> None:
    """transformers 4 drops it, whatever it holds; 5 drops the tie."""
    folder = Path(shutil.copytree(tied_checkpoint, tmp_path / "checkpoint"))
    tensors = load_file(folder / WEIGHTS)
    (table,) = [value for name, value in tensors.items() if "embed_tokens" in name]
    write(folder, {**tensors, "lm_head.weight": table.clone()})  # as some trainers save it
    load_checkpoint(folder)
    write(folder, {**tensors, "lm_head.weight": 2 * table})
    refused(folder, r"lm_head\.weight is not .* tie_word_embeddings to false")
