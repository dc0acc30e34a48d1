"""PEFT folders, fitted to a model by their tensors, which are the truth.

A config's patterns tell which layers were to be trained, in the names that the model had then and
of a model that may have been frozen in part. The tensors tell which were, by names that are known
in every version's spelling. So targets, ranks and alphas become those of the layers in the file.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from murank import InputError
from murank_export.mllm.adapter import CONFIG, WEIGHTS
from murank_export.mllm.checkpoint import canonical
from murank_export.sources.loading import one_line, read_json, some

_PREFIX = "base_model.model."  # PEFT's
_TABLES = ("embed_tokens.weight", "lm_head.weight")
_TUNABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# What a raw state dict has beside what PEFT saves: the adapter's name, wrappers of a module.
_WRAPPED = re.compile(r"\.modules_to_save\.[^.]+|\.base_layer(?=\.)")
_NAMED = re.compile(
    r"(\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))\.(?!weight$|bias$)[^.]+"
)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "alpha_pattern": (dict,), "exclude_modules": (list, set, str), "layers_pattern": (list, str),
    "layers_to_transform": (list, int), "lora_alpha": (int, float), "modules_to_save": (list,),
    "r": (int,), "rank_pattern": (dict,), "target_modules": (list, set, str),
}  # fmt: skip
Names = Mapping[str, str]  # of layers: in the model -> in another spelling


@dataclass(frozen=True)
class PeftFolder:
    """An adapter that fits a model."""

    path: Path
    config: Any  # PEFT's, whose patterns are those of the layers in the file
    tensors: Mapping[str, Tensor]  # by `tensor_key`; copies of the model's own tables left out
    targets: frozenset[str]  # as the config on disk has them
    notes: tuple[str, ...]  # where config and tensors say different things

    def put_into(self, wrapped: Any) -> None:
        """Load the tensors into PEFT's wrapper of the model.

        Raises
        ------
        InputError
            One is missing, left over, or of another shape.
        """
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        placed = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        places = {tensor_key(name): name for name in placed}
        missing = sorted(places.keys() - self.tensors.keys())
        if missing:
            raise self._unfit(f"{WEIGHTS} lacks {some(missing)}")
        left = sorted(self.tensors.keys() - places.keys())
        if left:
            sizes = [f"{key} ({_size(self.tensors[key].shape)})" for key in left]
            raise self._unfit(f"it has no place for {len(left)} tensors: {some(sizes)}")
        for key, value in self.tensors.items():
            wanted = placed[places[key]].shape
            if value.shape != wanted:
                raise self._unfit(f"{key} is {_size(value.shape)}, not {_size(wanted)}")
        with torch.no_grad():
            set_peft_model_state_dict(
                wrapped, {places[key]: value for key, value in self.tensors.items()}
            )

    def _unfit(self, why: str) -> InputError:
        return _unfit(self.path, why)


def read_peft_folder(folder: Path, model: Any) -> PeftFolder:
    """Read a folder, and fit its config to the model's layers and their names.

    Raises
    ------
    InputError
        The config cannot be used, or the tensors are of layers that the model does not have, or
        has in another shape.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder, model)
    layers = _layers(folder, tensors, model)
    targets = (
        [config.target_modules] if isinstance(config.target_modules, str) else config.target_modules
    )
    notes = tuple(_fit_targets(config, layers, model))
    for setting in ("alpha_pattern", "rank_pattern"):
        found = _exact(getattr(config, setting) or {}, layers, f"{folder / CONFIG}: {setting}")
        setattr(config, setting, found)
    _check_ranks(folder, config, layers, tensors)
    config.modules_to_save = _saved(folder, config.modules_to_save or (), model)
    return PeftFolder(folder, config, tensors, frozenset(targets or ()), notes)


def tensor_key(name: str) -> str:
    """Return a tensor's name as every version and wrapper would agree on."""
    name = _NAMED.sub(r"\1", _WRAPPED.sub("", f".{name}"))[1:]
    return canonical(name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector"))


def embeddings(names: Iterable[str]) -> list[str]:
    """Names of whole embedding tables and answer heads, which PEFT saves beside some adapters."""
    return [name for name in names if tensor_key(name) in _TABLES]


def frozen_copies(model: Any, tensors: Mapping[str, Tensor]) -> set[str]:
    """Names of those `embeddings` that only repeat the model's, in the precision they have."""
    own = dict(
        zip(_TABLES, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True)
    )
    return {
        name
        for name, value in tensors.items()
        if torch.equal(value, own[tensor_key(name)].weight.detach().to(value))
    }


def _unfit(folder: Path, why: str) -> InputError:
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    trained_on = f"; its {CONFIG} names {base!r} as its base" if base else ""
    return InputError(f"{folder} does not fit this model: {why}{trained_on}")


def _read_config(folder: Path) -> Any:
    from peft import LoraConfig

    try:
        config: Any = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, OSError) as error:
        raise InputError(f"{folder}: {CONFIG} cannot be used: {one_line(error)}") from error
    for name, kinds in _TYPES.items():
        value = getattr(config, name, None)
        if value is not None and not isinstance(value, kinds):
            raise InputError(
                f"{folder / CONFIG}: {name} must be {kinds[0].__name__}, got {value!r}"
            )
    config.base_model_name_or_path = None  # PEFT would warn where another folder holds the model
    return config


def _read_tensors(folder: Path, model: Any) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    for name in frozen_copies(model, {name: tensors[name] for name in embeddings(tensors)}):
        del tensors[name]
    for key, times in Counter(map(tensor_key, tensors)).items():
        if times > 1:
            raise InputError(f"{folder / WEIGHTS} holds {key} under {times} names")
    return {tensor_key(name): value for name, value in tensors.items()}


@dataclass(frozen=True)
class _Layers:
    """Layers that have an adapter in the file."""

    now: Names  # in the model -> the same
    trained: Names  # -> in the file, which is as the model was spelled in training

    @property
    def older(self) -> Names:
        """As transformers before 4.52 spelled them."""
        return {name: _older(name) for name in self.now}

    def spellings_of(self, fits: Callable[[str], bool]) -> Names | None:
        """Return the first spelling in which a pattern fits any layer."""
        for names in (self.trained, self.now, self.older):
            if any(map(fits, names.values())):
                return names
        return None


def _older(name: str) -> str:
    short = canonical(name)
    return short if short.startswith(("visual", "lm_head")) else f"model.{short}"


def _layers(folder: Path, tensors: Mapping[str, Tensor], model: Any) -> _Layers:
    """Find the layers, and check the shapes of what was trained of them."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, "pt") as handle:
        spelled = {tensor_key(name): name for name in handle.keys()}  # noqa: SIM118  # no mapping
    modules = {canonical(name): (name, module) for name, module in model.named_modules()}
    trained: dict[str, str] = {}
    lost: dict[str, None] = {}
    for key in tensors:
        short, found, half = key.partition(".lora_")
        if not found:
            continue
        if short not in modules or not isinstance(modules[short][1], _TUNABLE):
            lost[short] = None
            continue
        name, module = modules[short]
        trained[name] = spelled[key].partition(".lora_")[0].removeprefix(_PREFIX)
        _check_shape(folder, key, half, tensors[key], module)
    if lost:
        raise _unfit(folder, f"it has no place for {len(lost)} layers: {some([*lost])}")
    if not trained:
        raise InputError(f"{folder / WEIGHTS} holds no lora_A and lora_B")
    return _Layers({name: name for name in trained}, trained)


def _check_shape(folder: Path, key: str, half: str, value: Tensor, module: nn.Module) -> None:
    """Raise InputError unless it is of a linear layer of these widths; PEFT checks others."""
    side = {"A.weight": 1, "B.weight": 0}.get(half)
    if side is None or not isinstance(module, nn.Linear) or value.ndim != 2:
        return
    trained, own = value.shape[side], module.weight.shape[side]
    if trained != own:
        what = "inputs" if side else "outputs"
        raise _unfit(
            folder, f"{key.partition('.lora_')[0]} was trained with {trained} {what} and has {own}"
        )


def _fit_targets(config: Any, layers: _Layers, model: Any) -> Iterator[str]:
    """Make the layers in the file the targets; tell where the config says something else.

    Where its own words fit those layers and no others, they stay.
    """
    tunable = [name for name, module in model.named_modules() if isinstance(module, _TUNABLE)]
    now, older = ({name: spell(name) for name in tunable} for spell in (str, _older))
    yield from _lost_targets(config.target_modules, [*now.values(), *older.values()])
    if config.target_modules in (None, "all-linear"):
        hit = set(layers.now)
    else:
        hit = _hit(config, now)
        if hit == layers.now.keys():
            return
        hit = max(hit, _hit(config, older), key=lambda one: len(one & layers.now.keys()))
    yield from _told_apart(hit, layers, tunable)
    config.target_modules = {_short_table(name) for name in layers.now}
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None


def _lost_targets(targets: str | Collection[str] | None, names: Collection[str]) -> Iterator[str]:
    if isinstance(targets, str):
        return
    lost = [
        one for one in targets or () if not any(f".{name}".endswith(f".{one}") for name in names)
    ]
    if lost:
        yield f"target_modules {some(sorted(lost))} are no layers of this model"


def _told_apart(hit: Collection[str], layers: _Layers, tunable: Sequence[str]) -> Iterator[str]:
    without = [canonical(name) for name in tunable if name in hit and name not in layers.now]
    if without:
        yield (
            f"{CONFIG} also targets {len(without)} layers of this model that {WEIGHTS} has nothing "
            f"of, taken as not trained: {some(without)}"
        )
    beyond = [canonical(name) for name in layers.now if name not in hit]
    if beyond:
        yield (
            f"{WEIGHTS} has {len(beyond)} layers that {CONFIG} does not target, merged all the "
            f"same: {some(beyond)}"
        )


def _short_table(name: str) -> str:
    """Return the name by which PEFT knows embeddings and answer heads, which may be tied."""
    last = name.rpartition(".")[2]
    return last if f"{last}.weight" in _TABLES else name


def _hit(config: Any, names: Names) -> set[str]:
    """Layers that PEFT would give an adapter, were they spelled so."""
    from peft.tuners.tuners_utils import check_target_module_exists

    try:
        return {name for name, old in names.items() if check_target_module_exists(config, old)}
    except re.error as error:
        raise InputError(f"{CONFIG}: a pattern is no regular expression: {error}") from error


def _exact(patterns: Mapping[str, Any], layers: _Layers, setting: str) -> dict[str, Any]:
    """Return the value of each layer that a pattern fits, by its name in the model alone."""
    from peft.utils.other import get_pattern_key

    spellings: dict[str, Names] = {}
    for pattern in patterns:
        try:
            names = layers.spellings_of(lambda name: get_pattern_key([pattern], name) == pattern)  # noqa: B023
        except re.error as error:
            raise InputError(f"{setting}: {pattern!r} is no regular expression") from error
        if names is None:
            raise InputError(
                f"{setting}: {pattern!r} fits no layer of the adapter; layers are named like "
                f"{next(iter(layers.trained.values()))!r}"
            )
        spellings[pattern] = names
    found = {}
    for name in layers.now:
        fits = (p for p, names in spellings.items() if get_pattern_key([p], names[name]) == p)
        for pattern in islice(fits, 1):  # the first wins
            found[re.escape(name)] = patterns[pattern]
    return found


def _check_ranks(folder: Path, config: Any, layers: _Layers, tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError where the tensors have another rank than the config says."""
    for name in layers.now:
        said = config.rank_pattern.get(re.escape(name), config.r)
        for half in ("lora_A.weight", "lora_embedding_A"):
            value = tensors.get(f"{canonical(name)}.{half}")
            if value is not None and value.shape[0] != said:
                raise InputError(
                    f"{folder}: {canonical(name)} has rank {value.shape[0]} in {WEIGHTS} and "
                    f"{said} in {CONFIG}, by which it would be scaled: correct r or rank_pattern"
                )


def _saved(folder: Path, wanted: Collection[str], model: Any) -> list[str] | None:
    """Return the names of modules that were trained whole, as this model spells them."""
    modules = [name for name, _ in model.named_modules()]
    found: list[str] = []
    for one in wanted:
        now, older = (
            [name for name in modules if spell(name).endswith(one)] for spell in (str, _older)
        )
        if not now and not older:
            raise InputError(f"{folder}: {one!r} in modules_to_save is no module of this model")
        found += [one] if now else older
    return found or None


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
