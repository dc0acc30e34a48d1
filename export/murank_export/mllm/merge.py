"""An adapter beside the model's weights, as it was trained, and then in them."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from murank import InputError
from murank.files.stand_in import misread
from murank_export.mllm.adapter import Adapter
from murank_export.mllm.checkpoint import canonical
from murank_export.mllm.peft_folder import read_peft_folder, tensor_key
from murank_export.sources.loading import one_line

_ADAPTER = "default"  # PEFT's name for the only one
_ALPHA = 32.0  # MUSE's


@dataclass(frozen=True)
class Applied:
    """A model with an adapter beside its weights: it answers as the adapter was trained."""

    source: Path
    wrapped: Any  # PEFT's, around the model, whose layers were replaced in place
    notes: tuple[str, ...]  # of what changes no answer, though it was to

    def merge(self) -> Any:
        """Return the model with the adapter in its weights; the other form is gone."""
        _untie(self.wrapped)
        with _fitting(self.source):
            return self.wrapped.merge_and_unload(safe_merge=True)


def apply_adapter(
    model: Any, adapter: Adapter, *, lora_alpha: float | None, lora_rank: int | None
) -> Applied:
    """Put an adapter beside the model's weights.

    `lora_alpha` and `lora_rank` are for MUSE files, which hold neither (rank: checked only).

    Raises
    ------
    InputError
        A part of the adapter has no place in the model.
    """
    notes: tuple[str, ...] = ()
    if adapter.kind == "peft":
        wrapped, notes = _apply_peft(model, adapter.path)
    else:
        alpha = _ALPHA if lora_alpha is None else lora_alpha
        wrapped = _apply_muse(model, adapter.path, alpha, lora_rank)
    notes = (*notes, *_untrained(wrapped))
    return Applied(adapter.path, wrapped, tuple(f"{adapter.path}: {note}" for note in notes))


def merge_adapter(
    model: Any, adapter: Adapter, *, lora_alpha: float | None, lora_rank: int | None
) -> Any:
    """Return the model with the adapter in its weights."""
    return apply_adapter(model, adapter, lora_alpha=lora_alpha, lora_rank=lora_rank).merge()


def _apply_peft(model: Any, folder: Path) -> tuple[Any, tuple[str, ...]]:
    from peft import get_peft_model

    read = read_peft_folder(folder, model)
    with _fitting(folder):
        wrapped = get_peft_model(model, read.config).eval()
    read.put_into(wrapped)
    return wrapped, read.notes


def _tuned(wrapped: Any) -> dict[str, Any]:
    """Layers with an adapter, by their names in the model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = wrapped.get_base_model().named_modules()
    return {name: module for name, module in found if isinstance(module, BaseTunerLayer)}


def _untrained(wrapped: Any) -> Iterator[str]:
    """Tell of layers whose adapter adds nothing."""
    halves: dict[str, bool] = {}  # layer -> whether a half of its adapter is all zero
    for name, value in wrapped.named_parameters():
        layer, found, _ = name.partition(".lora_")
        if found and value.ndim > 1:
            halves[layer] = halves.get(layer, False) or not value.any()
    zero = [layer for layer, is_zero in halves.items() if is_zero]
    if zero and len(zero) == len(halves):
        yield (
            "changes nothing: lora_A or lora_B of every layer is zero; it was not trained, or its "
            "training was not saved whole"
        )
    elif zero:
        yield f"lora_B of {len(zero)} of {len(halves)} layers is zero, as of {canonical(zero[0])}"


def _untie(wrapped: Any) -> None:
    """Give each of several modules that share a weight its own, where one has an adapter.

    In training the weight is frozen and the adapter of one of them is that one's alone; merged
    into the weight it would change the others.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = list(wrapped.modules())
    adapted = {
        id(value)
        for layer in layers
        if isinstance(layer, BaseTunerLayer)
        for value in layer.get_base_layer().parameters(recurse=False)
    }
    taken: set[int] = set()
    for layer in layers:
        for name, value in layer.named_parameters(recurse=False):
            if id(value) in adapted & taken:
                own = nn.Parameter(value.detach().clone(), requires_grad=False)
                setattr(layer, name, own)
            taken.add(id(value))


@contextmanager
def _fitting(source: Path) -> Iterator[list[warnings.WarningMessage]]:
    """Let PEFT's ways to say that an adapter does not fit be one; keep its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield caught
        except (
            ValueError, RuntimeError, KeyError, TypeError, AttributeError, re.error,
        ) as error:  # fmt: skip
            raise InputError(f"{source} does not fit this model: {one_line(error)}") from error


def _apply_muse(model: nn.Module, file: Path, alpha: float, rank: int | None) -> Any:
    from peft import LoraConfig, get_peft_model

    state = _read_muse(file)
    _replace(model, {name: value for name, value in state.items() if ".lora_" not in name}, file)
    names = {canonical(name): name for name, _ in model.named_modules()}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for key, (a, b) in _lora_pairs(state, file).items():
        module = model.get_submodule(names[key]) if key in names else None
        if not isinstance(module, nn.Linear) or module.weight.shape != (b.shape[0], a.shape[1]):
            raise InputError(f"{file}: {key} does not fit this model")
        if rank is not None and a.shape[0] != rank:
            raise InputError(f"{file}: {key} has rank {a.shape[0]}, not {rank} (--lora-rank)")
        pairs[names[key]] = (a, b)
    if not pairs:
        raise InputError(f"{file} holds no lora_A and lora_B")
    config = LoraConfig(
        target_modules=list(pairs),
        lora_alpha=alpha,  # a float works as well
        rank_pattern={re.escape(name): a.shape[0] for name, (a, _) in pairs.items()},
    )
    with _fitting(file):
        wrapped = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, layer in _tuned(wrapped).items():
            for half, value in zip((layer.lora_A, layer.lora_B), pairs[name], strict=True):
                half[_ADAPTER].weight.copy_(value)
    return wrapped


def _read_muse(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch's own words advise to load it without that care.
        raise misread(file, " is damaged, or holds more than plain tensors") from error
    if not isinstance(state, dict) or not state or not all(map(_is_named, state.items())):
        raise InputError(f"{file} must hold a dict of tensors: the trainable parameters by name")
    for name, value in state.items():
        if not value.isfinite().all():
            raise InputError(f"{file}: {name} holds NaN or infinite values")
    return state


def _replace(model: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Give parameters that were trained whole their values."""
    named = model.named_parameters(remove_duplicate=False)
    parameters = {canonical(name): value for name, value in named}
    with torch.no_grad():
        for name, value in state.items():
            parameter = parameters.get(tensor_key(name))
            if parameter is None or parameter.shape != value.shape:
                raise InputError(f"{file}: {name} does not fit this model")
            parameter.copy_(value)
    for name, value in state.items():  # of two names for one parameter, the last one won
        parameter = parameters[tensor_key(name)]
        if not torch.equal(parameter, value.to(parameter)):
            raise InputError(f"{file}: {name} does not fit this model, which ties it to another")


def _lora_pairs(state: Mapping[str, Tensor], file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module's canonical name -> (A [r,in], B [out,r])."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        module, found, rest = name.partition(".lora_")
        module = canonical(module)
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
