"""An adapter's base beside the model that it is merged into."""

import json
from pathlib import Path
from typing import Any

import pytest

from murank import InputError
from murank_export.mllm.bases import base_of, check_base

COMMIT = "895c3a49bc3fa70a340399125c650a463535e71c"


def told(tmp_path: Path, base: str, mllm: str, *, family: str = "qwen2_vl", **said: Any) -> str:
    """Return "refused", a note, or nothing."""
    folder = tmp_path / mllm
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family, **said}))
    adapter = base_of({"base_model_name_or_path": base})
    note = check_base(tmp_path / "lora", adapter, folder, force=True) or ""
    assert not note or str(folder) in note
    try:
        assert (check_base(tmp_path / "lora", adapter, folder, force=False) or "") == note
    except InputError:
        return "refused"
    return note


@pytest.mark.parametrize(
    ("base", "mllm"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", "Qwen2-VL-2B-Instruct"),
        ("Qwen/Qwen2-VL-7B-Instruct", "model"),
        ("unsloth/Qwen2-VL-2B-Instruct-bnb-4bit", "qwen2_vl-2b-instruct"),
        (f"/hub/models--Qwen--Qwen2-VL-2B-Instruct/snapshots/{COMMIT}", "Qwen2-VL-2B-Instruct"),
        ("/data/7b/checkpoints", "Qwen2-VL-2B-Instruct"),
        (r"D:\models\Qwen2-VL-2B-Instruct", "Qwen2-VL-2B-Instruct"),
        ("Qwen2-VL-2B-Instruct", "Qwen2-VL-2B-people"),  # merged and renamed: it does not say
        ("", "Qwen2-VL-2B-Instruct"),
        ("/", "Qwen2-VL-2B-Instruct"),
        ("7b", "Qwen2-VL-2B-Instruct"),
    ],
)  # fmt: skip
def test_names_that_say_nothing_else(tmp_path: Path, base: str, mllm: str) -> None:
    assert told(tmp_path, base, mllm) == ""


@pytest.mark.parametrize(
    ("base", "mllm"),
    [
        ("Qwen/Qwen2-VL-7B-Instruct", "Qwen2-VL-2B-Instruct"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2-VL-7B-Instruct"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "model"),
        ("/modelscope/hub/Qwen/Qwen2___5-VL-2B-Instruct", "model"),
        ("Qwen/Qwen3-VL-2B-Instruct", "anything"),
        (f"hub/models--Qwen--Qwen2-VL-72B/snapshots/{COMMIT}", "Qwen2-VL-2B"),
        ("Qwen/Qwen2-VL-7B-Instruct", f"models--Qwen--Qwen2-VL-2B-Instruct/snapshots/{COMMIT}"),
    ],
)
def test_another_family_or_size_is_refused_unless_forced(
    tmp_path: Path, base: str, mllm: str
) -> None:
    assert told(tmp_path, base, mllm) == "refused"


@pytest.mark.parametrize("base", ["Qwen/Qwen2-VL-2B", "Qwen2-VL-2B-Thinking"])
def test_another_training_of_the_same_model_is_told(tmp_path: Path, base: str) -> None:
    assert "Qwen2-VL-2B-Instruct" in told(tmp_path, base, "Qwen2-VL-2B-Instruct")


def test_a_config_may_name_the_size(tmp_path: Path) -> None:
    assert told(tmp_path, "Qwen2-VL-7B", "a", _name_or_path="Qwen/Qwen2-VL-2B") == "refused"


def test_the_class_it_was_trained_on_decides_the_family(tmp_path: Path) -> None:
    mapping = {"base_model_class": "Qwen2_5_VLForConditionalGeneration"}
    base = base_of({"base_model_name_or_path": "mine", "auto_mapping": mapping})
    assert (base.name, base.family) == ("mine", "qwen2_5_vl")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(InputError, match="--force"):
        check_base(tmp_path, base, tmp_path, force=False)
