"""LoRA adapters, merged before export: PEFT folders, and MUSE's .pth of trainable parameters."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from murank import InputError
from murank_export._hashing import file_sha256

_WEIGHTS = "adapter_model.safetensors"
LAYOUT_KEY, TEMPLATE_KEY = "murank_layout", "murank_template_sha256"


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk and the prompt it was trained with, as far as it says."""

    path: Path
    kind: Literal["peft", "muse"]
    sha256: str  # of the weights file
    layout: str | None
    template_sha256: str | None


def read_adapter(path: Path) -> Adapter:
    """Look at an adapter without loading it.

    MUSE's files are of the paper's layout; PEFT folders that murank made say theirs in the header
    of the weights file, others say nothing.

    Raises
    ------
    InputError
        It is neither a PEFT folder with safetensors nor a .pth file.
    """
    if path.is_file() and path.suffix == ".pth":
        return Adapter(path, "muse", file_sha256(path), "paper", None)
    file = path / _WEIGHTS
    if not file.is_file() or not (path / "adapter_config.json").is_file():
        raise InputError(
            f"{path} is no adapter: expected a PEFT folder (adapter_config.json, {_WEIGHTS}) "
            "or a MUSE .pth file"
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as handle:
            said = handle.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{file} is damaged: {error}") from error
    return Adapter(path, "peft", file_sha256(file), said.get(LAYOUT_KEY), said.get(TEMPLATE_KEY))


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


def merge_adapter(
    model: Any, adapter: Adapter, *, lora_alpha: float | None, lora_rank: int | None
) -> Any:
    """Return the model with the adapter in its weights.

    `lora_alpha` and `lora_rank` are for MUSE files, which hold neither (rank: checked only).
    """
    if adapter.kind == "peft":
        return _merge_peft(model, adapter.path)
    _merge_muse(model, adapter.path, 32.0 if lora_alpha is None else lora_alpha, lora_rank)
    return model


def _merge_peft(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, folder)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(f"{folder} does not fit this model: {error}") from error
    missing = [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
    if missing:
        raise InputError(f"{folder} does not fit this model: {missing[0][:300]}")
    return adapted.merge_and_unload(safe_merge=True)


def _merge_muse(model: nn.Module, file: Path, alpha: float, rank: int | None) -> None:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{file} cannot be loaded as plain tensors: {error}") from error
    if not isinstance(state, dict) or not state or not all(map(torch.is_tensor, state.values())):
        raise InputError(f"{file} must hold a dict of tensors: the trainable parameters by name")
    modules = {canonical(name): module for name, module in model.named_modules()}
    parameters = {canonical(name): value for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, (a, b) in _lora_pairs(state, file).items():
            weight = getattr(modules.get(canonical(name)), "weight", None)
            if weight is None or weight.shape != (b.shape[0], a.shape[1]):
                raise InputError(f"{file}: {name} does not fit this model")
            if rank is not None and a.shape[0] != rank:
                raise InputError(f"{file}: {name} has rank {a.shape[0]}, not {rank} (--lora-rank)")
            weight += alpha / a.shape[0] * (b.float() @ a.float())
        for name, value in state.items():
            if ".lora_" in name:
                continue
            parameter = parameters.get(canonical(name.replace(".base_layer", "")))
            if parameter is None or parameter.shape != value.shape:
                raise InputError(f"{file}: {name} does not fit this model")
            parameter.copy_(value)


def _lora_pairs(state: Mapping[str, Tensor], file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module name -> (A [r,in], B [out,r])."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        module, found, rest = name.partition(".lora_")
        if found:
            halves.setdefault(module, {})[rest[:1]] = value
    for module, pair in halves.items():
        if set(pair) != {"A", "B"} or any(value.ndim != 2 for value in pair.values()):
            raise InputError(f"{file}: {module} lacks lora_A or lora_B of two dimensions")
        if pair["A"].shape[0] != pair["B"].shape[1]:
            raise InputError(f"{file}: lora_A and lora_B of {module} differ in rank")
    return {module: (pair["A"], pair["B"]) for module, pair in halves.items()}


def canonical(name: str) -> str:
    """Return a parameter's name without the wrappers' prefixes, which differ between versions."""
    prefixes = ("module.", "base_model.", "model.", "language_model.")
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name
