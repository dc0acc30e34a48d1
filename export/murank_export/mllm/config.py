"""config.json of an MLLM, as any version of transformers wrote it, to what every version reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank import InputError
from murank_export.mllm.rope import Rope, RopeError, check_vision_rope, read_rope, without_rope
from murank_export.sources.loading import read_json

FAMILIES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
_TIE = "tie_word_embeddings"
# transformers makes up what a file does not say, and answers would be others without a word.
_NUMBERS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
_VISION_NUMBERS = ("patch_size", "spatial_merge_size", "temporal_patch_size", "num_heads", "depth")
_OF_VISION = {
    "qwen2_5_vl": ("fullatt_block_indexes", "window_size"),
    "qwen3_vl": ("deepstack_visual_indexes",),
}
_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
# How a model was loaded when it was saved, and what only says what is said above.
_LEFT = {
    *_TOKENS, _TIE, "_attn_implementation", "_name_or_path", "architectures",
    "attn_implementation", "dtype", "model_type", "torch_dtype", "transformers_version",
}  # fmt: skip


@dataclass(frozen=True)
class MllmConfig:
    """What a config.json says of a model of one of the families."""

    file: Path
    family: str  # model_type
    text: Mapping[str, Any]  # of the decoder, but for its rope
    vision: Mapping[str, Any]
    tokens: Mapping[str, int]  # ids by name
    rope: Rope
    ties: tuple[bool, bool]  # as transformers 4 reads it, and as 5 may

    def is_tied(self, *, has_head: bool) -> bool:
        """Whether the answer head is the embedding table; `has_head`: the weights hold one.

        Versions differ in where they look, and in what they do with a head beside the flag. One
        that the weights hold is the head, unless transformers 4 would have trained without it.

        Raises
        ------
        InputError
            There is neither a head nor a flag.
        """
        if not has_head and not any(self.ties):
            raise InputError(
                f"{self.file.parent} lacks lm_head.weight, and {self.file.name} does not tie the "
                f"answer head to the embeddings ({_TIE})"
            )
        return self.ties[0] if has_head else True

    def settings(self, *, tied: bool) -> dict[str, Any]:
        """Return what the family's config class takes, in words that every version reads alike."""
        text = {**self.text, **self.rope.settings(), _TIE: tied}
        return {**self.tokens, "text_config": text, "vision_config": {**self.vision}, _TIE: tied}


def read_config(folder: Path) -> MllmConfig:
    """Read the config.json of a local folder.

    Raises
    ------
    InputError
        It is another kind of model's, quantised, or with code of its own; or it leaves something
        open, or asks for something that murank does not compute.
    """
    file = folder / "config.json"
    said = read_json(file)
    family = said.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(
            f"{folder}: model_type is {family!r}; murank exports {', '.join(FAMILIES)} (dense)"
        )
    if _is_set(said, "quantization_config") or _is_set(said, "compression_config"):
        raise InputError(f"{folder} is quantised; export the original and choose --dtype")
    if said.get("auto_map"):
        raise InputError(f"{folder} brings code of its own (auto_map), which murank does not run")
    # Until 4.52 what is the decoder's stood beside vision_config; some versions wrote it twice.
    outer = {name: value for name, value in said.items() if name != "vision_config"}
    text, vision = outer.pop("text_config", None), said.get("vision_config")
    text = outer if text is None else text
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise InputError(f"{file} must hold objects as text_config and vision_config")
    of_heads = family == "qwen3_vl" or text.get("head_dim") is not None
    numbers = (*_NUMBERS, "head_dim") if of_heads else _NUMBERS
    _check_said(file, text, numbers, ("rms_norm_eps",))
    _check_said(file, vision, _VISION_NUMBERS, _OF_VISION.get(family, ()))
    _check_said(file, outer, _TOKENS[:1], ())
    flags = tuple(_flag(file, place) for place in (text, outer))
    width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    try:
        rope = read_rope(family, width // 2, [text, outer])
        check_vision_rope(vision)
    except RopeError as error:
        raise InputError(f"{file} {error}") from error
    return MllmConfig(
        file, family, _plain(text), _plain(vision),
        {name: outer[name] for name in _TOKENS if name in outer}, rope, (flags[0], any(flags)),
    )  # fmt: skip


def _plain(place: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in without_rope(place).items() if name not in _LEFT}


def _check_said(
    file: Path, place: Mapping[str, Any], numbers: tuple[str, ...], others: tuple[str, ...]
) -> None:
    for name in (*numbers, *others):
        if place.get(name) is None:
            raise InputError(f"{file} does not say {name}: copy it from the original model's")
    for name in numbers:
        value = place[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{file} has {name} {value!r}: it must be a whole number above 0")


def _flag(file: Path, place: Mapping[str, Any]) -> bool:
    value = place.get(_TIE)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{file} has {_TIE} {value!r}: it must be true or false")
    return bool(value)


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
