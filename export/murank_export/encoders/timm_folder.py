"""Folders of timm models, as the hub has them: config.json with an architecture, safetensors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from murank import InputError
from murank.images import Preprocessing
from murank.machine.library import library
from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.encoders.torch_vision import choose_feature, write_onnx
from murank_export.sources.loading import one_line, some
from murank_export.sources.normalisations import Triple
from murank_export.sources.quiet import quiet_exporter

OUTPUT = "features"


def export_timm(
    folder: Path,
    config: Mapping[str, Any],
    file: Path,
    settings: EncoderSettings,
    note: Callable[[str], None],
) -> tuple[Preprocessing, Triple, Triple]:
    """Write the features before the classifier as ONNX; return how images are prepared.

    Raises
    ------
    MachineError
        timm is not installed.
    InputError
        The folder lacks something, or timm does not know the architecture.
    """
    timm: Any = library("timm", install="pip install timm, or pass the encoder as an .onnx file")
    how, mean, std = _preprocessing(folder, config, settings.size)
    model = _loaded(timm, folder, config)
    size = (how.height, how.width)
    give = _pooled if settings.pool is None else _unpooled
    feature, _ = choose_feature(model, give, size, folder, OUTPUT, settings.pool)
    what = "as it pools them itself" if settings.pool is None else "before it pools them"
    note(f"{folder}: timm's {config['architecture']}, its features {what}, without its classifier")
    write_onnx(feature, file, size, folder)
    return how, mean, std


def _pooled(model: Any, images: Tensor) -> dict[str, Tensor]:
    return {OUTPUT: model(images)}


def _unpooled(model: Any, images: Tensor) -> dict[str, Tensor]:
    found = model.forward_features(images)
    last = found.ndim == 4 and str(getattr(model, "output_fmt", "")).endswith("NHWC")
    return {OUTPUT: found.permute(0, 3, 1, 2) if last else found}


def _loaded(timm: Any, folder: Path, config: Mapping[str, Any]) -> Any:
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder} lacks model.safetensors")
    options = dict(config.get("model_args") or {})
    if config.get("global_pool") is not None:
        options["global_pool"] = config["global_pool"]
    try:
        with quiet_exporter():
            model = timm.create_model(
                config["architecture"], pretrained=False, **{**options, "num_classes": 0}
            )
            state = load_file(weights)
            missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:
        # timm's and safetensors' own kinds, and PyTorch's of shapes that differ.
        raise InputError(f"{folder} cannot be loaded by timm: {one_line(error)}") from error
    heads = config["pretrained_cfg"].get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    other = [one for one in unexpected if not one.startswith((*heads, "head", "fc_norm"))]
    if missing or other:
        raise InputError(
            f"{folder} lacks weights, or has others than timm's {config['architecture']}: "
            f"{some(sorted([*missing, *other]))}"
        )
    return model.eval()


def _preprocessing(
    folder: Path, config: Mapping[str, Any], given: tuple[int, int] | None
) -> tuple[Preprocessing, Triple, Triple]:
    trained = config["pretrained_cfg"]
    try:
        _, height, width = (int(one) for one in trained["input_size"])
        mean, std = (_triple(trained[key]) for key in ("mean", "std"))
        edge = int(min(height, width) / float(trained.get("crop_pct") or 0.875))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / 'config.json'}: input_size, mean, std or crop_pct of its pretrained_cfg is "
            f"missing or damaged: {error}"
        ) from error
    resample = trained.get("interpolation", "bicubic")
    resample = "bilinear" if resample == "random" else resample
    if given is not None:
        return Preprocessing(*given, resample), mean, std
    if trained.get("crop_mode", "center") == "squash":
        return Preprocessing(height, width, resample), mean, std
    if height != width:
        raise InputError(f"{folder}: made for {height}x{width}; pass --encoder-size HxW")
    return Preprocessing(height, width, resample, edge), mean, std


def _triple(values: Sequence[Any]) -> Triple:
    red, green, blue = map(float, values)
    return red, green, blue
