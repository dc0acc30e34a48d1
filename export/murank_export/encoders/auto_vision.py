"""Vision models of transformers that optimum is not asked about, by their own class."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from murank import InputError
from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.encoders.torch_vision import choose_feature, outputs_of, write_onnx
from murank_export.sources.loading import load_model, one_line
from murank_export.sources.quiet import quiet

_PATCHES = ("siglip2", "siglip2_vision_model")  # of "NaFlex": patches and masks, not images


def export_auto_vision(
    folder: Path,
    kind: str,
    file: Path,
    size: tuple[int, int],
    settings: EncoderSettings,
    note: Callable[[str], None],
) -> str:
    """Write a folder's model as ONNX; return the name of its output.

    Raises
    ------
    InputError
        transformers does not know the kind, or it is none of images; see `torch_vision`.
    """
    if kind in _PATCHES:
        raise InputError(
            f"{folder} ({kind}) takes patches of any number instead of images (NaFlex): pass a "
            "SigLIP 2 of a fixed resolution, whose model_type is siglip"
        )
    model = _loaded(folder)
    feature, line = choose_feature(model, outputs_of, size, folder, settings.output, settings.pool)
    note(line)
    write_onnx(feature, file, size, folder)
    return feature.name


def _loaded(folder: Path) -> Any:
    import transformers

    auto: Any = transformers
    with quiet():
        try:
            config = auto.AutoConfig.from_pretrained(folder, local_files_only=True)
            model_class = auto.AutoModel._model_mapping[type(config)]
        except Exception as error:
            # One of several kinds, of a model_type that this transformers does not know.
            raise InputError(
                f"{folder}: this transformers ({transformers.__version__}) knows no model of its "
                f"kind: {one_line(error)}"
            ) from error
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    _check_sees(model_class, folder)
    return load_model(
        model_class, folder, attn_implementation="eager", **_options(model_class, config)
    )


def _check_sees(model_class: Any, folder: Path) -> None:
    if getattr(model_class, "main_input_name", None) != "pixel_values" and not hasattr(
        model_class, "get_image_features"
    ):
        raise InputError(f"{folder} holds a {model_class.__name__}, which takes no images")


def _options(model_class: Any, config: Any) -> dict[str, Any]:
    """Leave out a dense layer behind the class token: often untrained, and never the feature."""
    if "add_pooling_layer" not in inspect.signature(model_class).parameters:
        return {}
    with torch.device("meta"):
        pooler = getattr(model_class(config), "pooler", None)
    dense = pooler is not None and any(one.ndim > 1 for one in pooler.parameters())
    return {"add_pooling_layer": False} if dense else {}
