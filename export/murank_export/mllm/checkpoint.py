"""Hugging Face folders of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, loaded in float32."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from murank import InputError
from murank_export.graphs.decoder import rope_frequencies
from murank_export.graphs.geometry import Grid
from murank_export.mllm.config import FAMILIES, MllmConfig, read_config
from murank_export.mllm.rope import VISION_THETA
from murank_export.mllm.tokenizer import load_tokenizer
from murank_export.sources.image_processor import read_image_processor
from murank_export.sources.loading import (
    check_no_other_weights,
    check_whole,
    load_model,
    tensor_names,
)
from murank_export.sources.normalisations import CLIP, HALVES

_CUSTOMARY_SIZE = (280, 140)  # height, width: MUSE's
# Of torch.compile, FSDP and recomputed activations, anywhere in a name.
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_DECIDING = ("do_normalize", "do_rescale", "image_mean", "image_std", "rescale_factor")
_ROUNDED = 1e-5  # of a power in float32: the base's logarithm (below 50) times 2^-24, and some more
_TIED = (
    "config.json ties the answer head to the embeddings, which differ; set its "
    "tie_word_embeddings to false"
)


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
    check_whole(folder)
    config = read_config(folder)
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds no *.safetensors; convert the weights to safetensors")
    check_no_other_weights(folder, lambda file: file.suffix == ".safetensors")
    tokenizer, template = load_tokenizer(folder)
    mean, std = _normalisation(folder, config.family)
    model = _load_model(folder, config)
    return Checkpoint(folder, config.family, model, tokenizer, template, mean, std)


def _load_model(folder: Path, config: MllmConfig) -> Any:
    import transformers

    kind = getattr(transformers, FAMILIES[config.family], None)
    if kind is None:
        raise InputError(
            f"transformers {transformers.__version__} does not know {config.family}; upgrade"
        )
    names = {canonical(name) for name in tensor_names(folder)}
    tied = config.is_tied(has_head="lm_head.weight" in names)
    settings = config.settings(tied=tied)
    model = load_model(kind, folder, config=settings, dtype=torch.float32)
    _check_all_taken(model, folder, tied=tied)
    _check_rope(model, config)
    return model


def _check_rope(model: Any, config: MllmConfig) -> None:
    """Raise InputError unless the model turns by the frequencies that its config.json says."""
    import transformers

    rotary, vision = model.model.language_model.rotary_emb, model.model.visual.rotary_pos_emb
    inverse, axes = rope_frequencies(rotary)
    scale = torch.tensor([float(getattr(rotary, "attention_scaling", 1.0))])
    rope, of_vision = config.rope, vision.inv_freq.double()
    steps = torch.arange(len(of_vision), dtype=torch.float64) / len(of_vision)
    pairs = (
        (inverse.double(), rope.inverse_frequencies()),
        (scale.double(), torch.tensor([rope.scale], dtype=torch.float64)),
        (of_vision, VISION_THETA**-steps),
    )
    alike = all(torch.allclose(own, said, rtol=_ROUNDED, atol=0) for own, said in pairs)
    if not alike or not torch.equal(axes, rope.axes()):
        raise InputError(
            f"transformers {transformers.__version__} makes another rope of {config.file} than it "
            "says; please report it"
        )


def _check_all_taken(model: Any, folder: Path, *, tied: bool) -> None:
    """Raise InputError unless each tensor of the folder is in the model, value for value.

    Versions of transformers differ in what they drop without a word: an answer head beside a
    config that ties it to the embeddings, names they do not know, files that the index leaves out.
    """
    from safetensors import safe_open

    if tied:  # transformers 5 leaves that when both are there, and differ
        head, table = model.get_output_embeddings(), model.get_input_embeddings()
        if not _equal(head.weight, table.weight):
            raise InputError(f"{folder}: lm_head.weight is not the embeddings: {_TIED}")
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
        return _TIED
    return "another file of the folder has a tensor of this name, too"


def _equal(one: Tensor, other: Tensor) -> bool:
    other = other.to(one.dtype)
    # NaN are told of when the model answers.
    return torch.equal(one, other) or (
        one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    )


def canonical(name: str) -> str:
    """Return a parameter's name without the wrappers' prefixes, which differ between versions."""
    name = _WRAPPERS.sub("", name)
    prefixes = ("module.", "base_model.", "model.", "language_model.")
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name


def _normalisation(folder: Path, family: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    file, config = read_image_processor(folder, _DECIDING)
    if not config:
        return HALVES if family == "qwen3_vl" else CLIP
    for step in ("do_rescale", "do_normalize"):
        if not config.get(step, True):
            raise InputError(f"{file}: {step} is off, which murank does not do for an MLLM")
    values = [config.get(name) for name in ("image_mean", "image_std")]
    for value in values:
        if not (isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))):
            raise InputError(f"{file}: image_mean and image_std must be three numbers each")
    mean, std = values
    return tuple(mean or ()), tuple(std or ())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
