"""LoRA adapters on disk: PEFT folders, and MUSE's .pth of trainable parameters."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from murank import InputError
from murank.files.stand_in import check_no_stand_in
from murank_export.mllm.bases import Base, base_of
from murank_export.sources.hashing import checkpoint_sha256, file_sha256
from murank_export.sources.loading import (
    ADAPTER_CONFIG,
    check_no_other_weights,
    one_line,
    read_json,
)

CONFIG, WEIGHTS = ADAPTER_CONFIG, "adapter_model.safetensors"
LAYOUT_KEY, TEMPLATE_KEY = "murank_layout", "murank_template_sha256"
SIZE_KEY = "murank_image_size"  # HEIGHTxWIDTH, pixels
# Settings of a PEFT folder that are carried out as PEFT does, which export proves by asking both.
_CARRIED_OUT = {
    "alpha_pattern", "bias", "ensure_weight_tying", "exclude_modules", "fan_in_fan_out",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_bias", "modules_to_save", "r",
    "rank_pattern", "target_modules", "trainable_token_indices", "use_dora", "use_rslora",
}  # fmt: skip
# Of its training, or notes: they change no answer of a trained adapter.
_OF_TRAINING = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "inference_mode",
    "init_lora_weights", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
# Starts that leave the base as it is, or change it to the same each time.
_STARTS = (None, True, False, "eva", "gaussian", "olora", "orthogonal", "pissa")


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk and the prompt it was trained with, as far as it says."""

    path: Path
    kind: Literal["peft", "muse"]
    sha256: str  # of the file, or of the folder's config and weights
    layout: str | None
    template_sha256: str | None
    image_size: str | None = None  # HEIGHTxWIDTH
    base: Base = field(default_factory=Base)


def read_adapter(path: Path) -> Adapter:
    """Look at an adapter without loading it.

    MUSE's files are of the paper's layout; PEFT folders that murank made say theirs in the header
    of the weights file, others say nothing.

    Raises
    ------
    InputError
        It is neither a PEFT folder with safetensors nor a .pth file; or it has weights or
        settings that would be left out.
    """
    if path.suffix == ".pth" and (path.is_file() or path.is_symlink()):
        check_no_stand_in(path)
        return Adapter(path, "muse", file_sha256(path), "paper", None)
    file = path / WEIGHTS
    for needed in (path / CONFIG, file):
        check_no_stand_in(needed)
    if not file.is_file() or not (path / CONFIG).is_file():
        raise InputError(
            f"{path} is no adapter: expected a PEFT folder ({CONFIG}, {WEIGHTS}) "
            f"or a MUSE .pth file{_inside(path)}"
        )
    config = _check_settings(path / CONFIG)
    check_no_other_weights(path, lambda file: file.name == WEIGHTS)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as handle:
            said = handle.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{file} is damaged: {one_line(error)}") from error
    digest = checkpoint_sha256(path, CONFIG)
    layout, template, size = map(said.get, (LAYOUT_KEY, TEMPLATE_KEY, SIZE_KEY))
    return Adapter(path, "peft", digest, layout, template, size, base_of(config))


def _inside(folder: Path) -> str:
    """Name an adapter in a folder below, as trainers leave one for each checkpoint."""
    found = sorted((str(file.parent) for file in folder.glob(f"*/{CONFIG}")), key=len)
    return f"; {found[-1]} is one" if found else ""


def _check_settings(file: Path) -> dict[str, Any]:
    said = read_json(file)
    kind = said.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{file.parent}: peft_type is {kind!r}; murank merges LORA")
    for name, value in said.items():
        if name not in _CARRIED_OUT | _OF_TRAINING and value not in (None, False, [], {}, ""):
            raise InputError(f"{file}: {name} is set, which murank cannot merge")
    start = said.get("init_lora_weights")
    if start not in _STARTS:
        raise InputError(
            f"{file}: init_lora_weights is {start!r}, which changes the base in a way that cannot "
            "be repeated; save the adapter converted to a plain LoRA"
        )
    return said


def check_prompt(adapter: Adapter, layout: str, template_sha256: str, *, force: bool) -> None:
    """Raise InputError if the adapter was trained with another prompt, unless forced."""
    if force:
        return
    if adapter.layout not in (None, layout):
        raise InputError(
            f"{adapter.path} was trained with layout {adapter.layout}, not {layout}: its answers "
            f"would not hold; use --layout {adapter.layout}, or --force"
        )
    if adapter.template_sha256 not in (None, template_sha256):
        raise InputError(
            f"{adapter.path} was trained with another prompt template (sha256 "
            f"{str(adapter.template_sha256)[:12]}...): pass its file with --prompt, or --force"
        )


def check_image_size(adapter: Adapter, size: tuple[int, int], *, force: bool) -> None:
    """Raise InputError if the adapter was trained on images of another size, unless forced."""
    height, width = size
    if not force and adapter.image_size not in (None, f"{height}x{width}"):
        raise InputError(
            f"{adapter.path} was trained on images of {adapter.image_size}, not {height}x{width}: "
            f"use --image-size {adapter.image_size}, or --force"
        )
