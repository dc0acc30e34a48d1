"""Hugging Face folders of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, loaded in float32."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from murank import InputError
from murank_export.graphs.geometry import Grid
from murank_export.sources.loading import (
    check_no_other_weights,
    load_model,
    one_line,
    read_json,
)
from murank_export.sources.quiet import quiet

FAMILIES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
_CUSTOMARY_SIZE = (280, 140)  # height, width: MUSE's
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALVES = (0.5, 0.5, 0.5)


@dataclass
class Checkpoint:
    """A loaded MLLM; `release` lets go of the model once the graphs have its weights."""

    folder: Path
    family: str  # model_type
    model: Any  # float32, eval mode
    tokenizer: Any
    chat_template: str
    mean: tuple[float, ...]  # of RGB scaled to [0,1]
    std: tuple[float, ...]

    def release(self) -> None:
        """Free what the graphs did not take: embedding table, answer head."""
        self.model = None

    def grid(self, size: tuple[int, int] | None) -> tuple[Grid, tuple[int, int]]:
        """Return the patch grid and the (height, width) in pixels.

        None: 280 x 140, MUSE's, each side rounded to whole vision tokens.
        """
        vision = self.model.config.vision_config
        patch, merge = int(vision.patch_size), int(vision.spatial_merge_size)
        unit = patch * merge
        if size is None:
            height, width = (round(side / unit) * unit for side in _CUSTOMARY_SIZE)
        else:
            height, width = size
            if height % unit or width % unit or not (height and width):
                raise InputError(
                    f"image size {height}x{width}: {self.family} needs multiples of {unit} pixels"
                )
        return Grid(height // patch, width // patch, patch, merge), (height, width)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load model, tokenizer and chat template from a local folder; nothing is downloaded.

    Raises
    ------
    InputError
        The folder lacks something, holds another kind of model, has weights that are no
        safetensors, or anything that would be left out of the model.
    """
    config = read_json(folder / "config.json")
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(
            f"{folder}: model_type is {family!r}; murank exports {', '.join(FAMILIES)} (dense)"
        )
    if _is_set(config, "quantization_config") or _is_set(config, "compression_config"):
        raise InputError(f"{folder} is quantised; export the original and choose --dtype")
    if config.get("auto_map"):
        raise InputError(f"{folder} brings code of its own (auto_map), which murank does not run")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds no *.safetensors; convert the weights to safetensors")
    check_no_other_weights(folder, lambda file: file.suffix == ".safetensors")
    import transformers

    kind = getattr(transformers, FAMILIES[family], None)
    if kind is None:
        raise InputError(f"transformers {transformers.__version__} does not know {family}; upgrade")
    tokenizer = _load_tokenizer(folder)
    model = load_model(kind, folder, dtype=torch.float32)
    _check_all_taken(model, folder)
    mean, std = _normalisation(folder, family)
    template = _chat_template(folder, tokenizer)
    return Checkpoint(folder, family, model, tokenizer, template, mean, std)


def _is_set(config: object, key: str) -> bool:
    """Whether a key has a value at any depth."""
    waiting = [config]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if one.get(key):
                return True
            waiting += one.values()
    return False


def _check_all_taken(model: Any, folder: Path) -> None:
    """Raise InputError unless each tensor of the folder is in the model, value for value.

    Versions of transformers differ in what they drop without a word: an answer head beside a
    config that ties it to the embeddings, names they do not know, files that the index leaves out.
    """
    from safetensors import safe_open

    named = (model.named_parameters, model.named_buffers)
    own = {canonical(key): value for of in named for key, value in of(remove_duplicate=False)}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as handle:
            for name in handle.keys():  # noqa: SIM118  # no mapping
                taken = own.get(canonical(name))
                if taken is None:
                    raise InputError(f"{file}: {name} has no place in this kind of model")
                if not _equal(taken, handle.get_tensor(name)):
                    raise InputError(f"{file}: {name} is not what the model is given: {_why(name)}")


def _why(name: str) -> str:
    if canonical(name) in ("lm_head.weight", "embed_tokens.weight"):
        return (
            "config.json ties the answer head to the embeddings, which differ; set its "
            "tie_word_embeddings to false"
        )
    return "another file of the folder has a tensor of this name, too"


def _equal(one: Tensor, other: Tensor) -> bool:
    other = other.to(one.dtype)
    # NaN are told of when the model answers.
    return torch.equal(one, other) or (
        one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    )


def canonical(name: str) -> str:
    """Return a parameter's name without the wrappers' prefixes, which differ between versions."""
    prefixes = ("module.", "base_model.", "model.", "language_model.")
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name


def _load_tokenizer(folder: Path) -> Any:
    import transformers

    loader: Any = transformers.AutoTokenizer
    try:
        with quiet():
            return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # transformers raises TypeError where a file is missing, tokenizers plain exceptions.
        raise InputError(f"{folder}: no tokenizer could be loaded: {one_line(error)}") from error


def _chat_template(folder: Path, tokenizer: Any) -> str:
    """Return the template of a whole turn.

    A processor's comes first: the tokenizer beside it may have one without the turn markers.
    """
    jinja, wrapped = folder / "chat_template.jinja", folder / "chat_template.json"
    if jinja.exists():
        try:
            return jinja.read_text("utf-8")
        except ValueError as error:
            raise InputError(f"{jinja} is not UTF-8") from error
    if wrapped.exists():
        template = read_json(wrapped).get("chat_template")
        if not isinstance(template, str):
            raise InputError(f"{wrapped} must hold a text under chat_template")
        return template
    if not isinstance(tokenizer.chat_template, str):
        raise InputError(f"{folder} has no chat template (chat_template.json or .jinja)")
    return tokenizer.chat_template


def _normalisation(folder: Path, family: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    file = folder / "preprocessor_config.json"
    if not file.exists():
        return (_HALVES, _HALVES) if family == "qwen3_vl" else (_CLIP_MEAN, _CLIP_STD)
    config = read_json(file)
    values = [config.get(name) for name in ("image_mean", "image_std")]
    for value in values:
        if not (isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))):
            raise InputError(f"{file}: image_mean and image_std must be three numbers each")
    mean, std = values
    return tuple(mean or ()), tuple(std or ())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
