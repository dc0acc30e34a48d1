"""Hugging Face vision models to plain ONNX: through optimum, or by PyTorch where it knows none."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank import InputError
from murank.images import Preprocessing
from murank.machine.library import library, pip_install
from murank_export.encoders.auto_vision import export_auto_vision
from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.encoders.timm_folder import OUTPUT as TIMM_OUTPUT
from murank_export.encoders.timm_folder import export_timm
from murank_export.encoders.torch_vision import Feature, check_parity
from murank_export.sources.image_processor import read_image_processor
from murank_export.sources.loading import check_whole, load_model, read_json
from murank_export.sources.quiet import quiet_exporter

# model_type -> the class that is exported, and its output that Re-ID uses as the feature
MODELS = {
    "clip_vision_model": ("CLIPVisionModelWithProjection", "image_embeds"),
    "clip": ("CLIPVisionModelWithProjection", "image_embeds"),
    "vit": ("ViTModel", "last_hidden_state"),
    "dinov2": ("Dinov2Model", "last_hidden_state"),
    "siglip_vision_model": ("SiglipVisionModel", "pooler_output"),
    "siglip": ("SiglipVisionModel", "pooler_output"),
}
_PIL_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by PIL's number
_CONVNEXT_WHOLE = 384  # pixels from which its processor resizes without a crop
_DECIDING = (
    "crop_pct", "crop_size", "do_center_crop", "do_normalize", "do_rescale", "do_resize",
    "image_mean", "image_std", "resample", "size",
)  # fmt: skip
_OPTIMUMS = "below 4.58"  # the transformers that optimum-onnx 0.1 takes


@dataclass(frozen=True)
class HfEncoder:
    """An exported vision model, not yet wrapped."""

    file: Path
    preprocessing: Preprocessing
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    output: str


def export_hf_encoder(
    folder: Path, scratch: Path, settings: EncoderSettings, note: Callable[[str], None]
) -> HfEncoder:
    """Export a vision model, and check the graph against PyTorch at another batch size.

    Of `settings` the size (None: what the folder says), output and pooling matter; `note` is told
    which output of a model was taken.

    Raises
    ------
    InputError
        Another kind of model, no preprocessor_config.json, or a graph that does not agree.
    """
    check_whole(folder)
    config, file = read_json(folder / "config.json"), scratch / "model.onnx"
    if "architecture" in config and isinstance(config.get("pretrained_cfg"), dict):
        return HfEncoder(file, *export_timm(folder, config, file, settings, note), TIMM_OUTPUT)
    kind = config.get("model_type")
    if str(kind).startswith("qwen") and str(kind).endswith("_vl"):
        raise InputError(
            f"{folder} is an MLLM ({kind}): pass it with --mllm; of one that embeds, pass the "
            "features that its own program gives (score --features)"
        )
    if not isinstance(kind, str):
        raise InputError(f"{folder / 'config.json'}: model_type is {kind!r}, which is no model")
    preprocessing, mean, std = _preprocessing(folder, kind, settings.size)
    if kind not in MODELS:
        size = (preprocessing.height, preprocessing.width)
        output = export_auto_vision(folder, kind, file, size, settings, note)
        return HfEncoder(file, preprocessing, mean, std, output)
    onnx_export_from_model = _optimum()
    import transformers

    name, output = MODELS[kind]
    # A ViT's pooler is often untrained and never the feature.
    options: dict[str, Any] = {"add_pooling_layer": False} if kind == "vit" else {}
    model = load_model(getattr(transformers, name), folder, attn_implementation="eager", **options)
    with quiet_exporter():
        onnx_export_from_model(
            model,
            scratch,
            task="feature-extraction",
            do_validation=False,  # done here, at another batch size
            custom_onnx_configs=_projected(model, output),
        )
    feature = Feature(model, lambda of, images: of(images), output)
    check_parity(feature, file, (preprocessing.height, preprocessing.width), folder)
    return HfEncoder(file, preprocessing, mean, std, output)


def _optimum() -> Any:
    """Return what exports a model.

    Raises
    ------
    MachineError
        The extra `hf-encoders` is not installed; transformers 5 may be, which does not go with it.
    """
    import transformers

    installed = transformers.__version__
    older = f" (it puts transformers {_OPTIMUMS} in place of {installed})"
    exporters: Any = library(
        "optimum.exporters.onnx",
        install=pip_install("hf-encoders")
        + ("" if installed.startswith("4.") else older)
        + ", or pass the encoder as an .onnx file",
    )
    return exporters.onnx_export_from_model


def _projected(model: Any, output: str) -> dict[str, Any] | None:
    """Tell optimum of the projected class token, which it does not know of for CLIP."""
    if output != "image_embeds":
        return None
    from optimum.exporters.onnx.model_configs import CLIPVisionModelOnnxConfig

    class Projected(CLIPVisionModelOnnxConfig):  # type: ignore[misc]
        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {output: {0: "batch_size"}}

    return {"model": Projected(model.config, task="feature-extraction")}


def _preprocessing(
    folder: Path, kind: str, given: tuple[int, int] | None
) -> tuple[Preprocessing, tuple[float, float, float], tuple[float, float, float]]:
    file, config = read_image_processor(folder, _DECIDING)
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not config.get(step, True):
            raise InputError(f"{file}: {step} is off, which murank cannot do; pass an .onnx file")
    try:
        resample = _PIL_FILTERS[config.get("resample", 2 if kind == "vit" else 3)]
        mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
        sizes = (given, None) if given is not None else _sizes(config, file)
        how = Preprocessing(*sizes[0], resample, sizes[1])
        return how, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{file} lacks size, image_mean or image_std: {error}") from error


def _sizes(config: dict[str, Any], file: Path) -> tuple[tuple[int, int], int | None]:
    """Return (height, width), and the shortest edge before the centre crop, if there is one."""
    cropped = bool(config.get("do_center_crop"))
    size = config["size"]
    if "crop_pct" in config and isinstance(size, dict) and "shortest_edge" in size:
        return _convnext_sizes(int(size["shortest_edge"]), float(config["crop_pct"]))
    if isinstance(size, int):  # as older files have it
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    target = config["crop_size"] if cropped else size
    if isinstance(target, int):
        target = {"height": target, "width": target}
    if "height" not in target:
        raise InputError(f"{file}: images of any size; pass --encoder-size HxW")
    if cropped and "shortest_edge" not in size and size != target:
        raise InputError(
            f"{file}: resized to {size}, then cropped to {target}; pass --encoder-size"
        )
    edge = size.get("shortest_edge") if cropped else None
    return (int(target["height"]), int(target["width"])), edge


def _convnext_sizes(side: int, share: float) -> tuple[tuple[int, int], int | None]:
    """Return the same for ConvNeXt's processor, which crops small images only."""
    return (side, side), int(side / share) if side < _CONVNEXT_WHOLE else None
