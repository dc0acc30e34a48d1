"""An adapter's weights into the model's."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from murank import InputError
from murank_export._loading import one_line
from murank_export.mllm.adapter import WEIGHTS, Adapter


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
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, folder)
            loaded = len(get_peft_model_state_dict(adapted, save_embedding_layers=False))
            merged = adapted.merge_and_unload(safe_merge=True)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(f"{folder} does not fit this model: {one_line(error)}") from error
    missing = [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
    if missing:
        raise InputError(f"{folder} does not fit this model: {missing[0][:300]}")
    with safe_open(folder / WEIGHTS, "pt") as handle:
        left_out = len(handle.keys()) - loaded
    if left_out:  # PEFT says nothing of tensors that have no place in the model
        raise InputError(
            f"{folder} does not fit this model: it has no place for {left_out} tensors"
        )
    return merged


def _merge_muse(model: nn.Module, file: Path, alpha: float, rank: int | None) -> None:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch's own words advise to load it without that care.
        raise InputError(f"{file} is damaged, or holds more than plain tensors") from error
    if not isinstance(state, dict) or not state or not all(map(_is_named, state.items())):
        raise InputError(f"{file} must hold a dict of tensors: the trainable parameters by name")
    for name, value in state.items():
        if not value.isfinite().all():
            raise InputError(f"{file}: {name} holds NaN or infinite values")
    modules = {canonical(name): module for name, module in model.named_modules()}
    parameters = {canonical(name): value for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, value in state.items():
            if ".lora_" in name:
                continue
            parameter = parameters.get(canonical(name.replace(".base_layer", "")))
            if parameter is None or parameter.shape != value.shape:
                raise InputError(f"{file}: {name} does not fit this model")
            parameter.copy_(value)
        for name, (a, b) in _lora_pairs(state, file).items():
            weight = getattr(modules.get(canonical(name)), "weight", None)
            if weight is None or weight.shape != (b.shape[0], a.shape[1]):
                raise InputError(f"{file}: {name} does not fit this model")
            if rank is not None and a.shape[0] != rank:
                raise InputError(f"{file}: {name} has rank {a.shape[0]}, not {rank} (--lora-rank)")
            weight += alpha / a.shape[0] * (b.float() @ a.float())


def _lora_pairs(state: Mapping[str, Tensor], file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module name -> (A [r,in], B [out,r])."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        module, found, rest = name.partition(".lora_")
        if found and rest[:1] in halves.setdefault(module, {}):
            raise InputError(f"{file} holds two adapters of {module}")
        if found:
            halves[module][rest[:1]] = value
    for module, pair in halves.items():
        if set(pair) != {"A", "B"} or any(value.ndim != 2 for value in pair.values()):
            raise InputError(f"{file}: {module} lacks lora_A or lora_B of two dimensions")
        if pair["A"].shape[0] != pair["B"].shape[1]:
            raise InputError(f"{file}: lora_A and lora_B of {module} differ in rank")
    return {module: (pair["A"], pair["B"]) for module, pair in halves.items()}


def _is_named(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and torch.is_tensor(item[1])


def canonical(name: str) -> str:
    """Return a parameter's name without the wrappers' prefixes, which differ between versions."""
    prefixes = ("module.", "base_model.", "model.", "language_model.")
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name
