"""Hugging Face encoders: exported features are those of transformers, image files to unit rows."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from pil_processors import (
    BitImageProcessor,
    CLIPImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)
from plain_encoder import ROUNDING
from random_checkpoint import randomise
from safetensors.torch import load_file, save_file

from murank import InputError
from murank.backends.onnx.session import Session, SessionSettings
from murank.images import load_image, to_pixels
from murank_export import EncoderSettings
from murank_export.encoders.encoder_graph import ExportedEncoder, export_encoder
from murank_export.plan.encoder_run import encoder_run

pytest.importorskip("optimum", reason="needs the extra hf-encoders, and so transformers 4")
hf: Any = transformers
# 14 sums one behind another (patches, six in each of two layers, a projection): sqrt(14) < 4 times
# the rounding of one.
APART = 4 * ROUNDING
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
NORMALISED = {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.27, 0.28]}
CROPPED = {
    "do_center_crop": True, "crop_size": {"height": 64, "width": 64}, "size": {"shortest_edge": 70},
    "resample": 3, **NORMALISED,
}  # fmt: skip
EXACT = {"size": {"height": 64, "width": 64}, "resample": 3, **NORMALISED}
SIZES = [(120, 60), (64, 64), (50, 131), (300, 90)]


@dataclass(frozen=True)
class Kind:
    """A kind of model, its image processor, and which output is its feature."""

    make: Callable[[], Any]
    processor: Any
    preprocessing: dict[str, Any]
    feature: Callable[[Any], torch.Tensor]


def clip_config(**more: Any) -> Any:
    return hf.CLIPVisionConfig(image_size=64, patch_size=16, projection_dim=24, **SMALL, **more)


def whole_clip() -> Any:
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 8, "projection_dim": 24}
    config = {"vision_config": clip_config().to_dict(), "text_config": text, "projection_dim": 24}
    return hf.CLIPModel(hf.CLIPConfig(**config))


def class_token(output: Any) -> torch.Tensor:
    token: torch.Tensor = output.last_hidden_state[:, 0]
    return token


KINDS = {
    "clip": Kind(
        lambda: hf.CLIPVisionModelWithProjection(clip_config()),
        CLIPImageProcessor, CROPPED, lambda output: output.image_embeds,
    ),
    "clip with its text model": Kind(
        whole_clip, CLIPImageProcessor,
        {**CROPPED, "size": 70, "crop_size": 64},  # as OpenAI's folder has them
        lambda output: output.image_embeds,
    ),
    "vit": Kind(
        lambda: hf.ViTModel(hf.ViTConfig(image_size=(64, 32), patch_size=16, **SMALL)),
        ViTImageProcessor, {**EXACT, "size": {"height": 64, "width": 32}, "resample": 2},
        class_token,
    ),
    "classifying vit": Kind(
        lambda: hf.ViTForImageClassification(hf.ViTConfig(image_size=48, patch_size=16, **SMALL)),
        ViTImageProcessor, {**NORMALISED, "size": 48},  # an older file: no filter named
        class_token,
    ),
    "dinov2": Kind(
        lambda: hf.Dinov2Model(hf.Dinov2Config(image_size=64, patch_size=16, **SMALL)),
        BitImageProcessor, CROPPED, class_token,
    ),
    "siglip": Kind(
        lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(image_size=64, patch_size=16, **SMALL)),
        SiglipImageProcessor, EXACT, lambda output: output.pooler_output,
    ),
}  # fmt: skip
LOADED_BY = {
    "clip with its text model": "CLIPVisionModelWithProjection",
    "classifying vit": "ViTModel",
}


def save(kind: Kind, folder: Path, **changes: Any) -> Path:
    model = kind.make().eval()
    randomise(model, 0.2)
    model.save_pretrained(folder)
    described = {**kind.preprocessing, **changes}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return save(KINDS["vit"], tmp_path / "vit")


def picture(height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(height).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def features(file: Path, made: ExportedEncoder) -> NDArray[np.float32]:
    """Features of the pictures by the exported graph."""
    pixels = [to_pixels(load_image(picture(*size)), made.preprocessing) for size in SIZES]
    (found,) = Session(file, SessionSettings("cpu")).run({"images": np.stack(pixels)}, ["features"])
    values: NDArray[np.float32] = found.numpy()
    return values


def wanted(name: str, folder: Path, processor: Any) -> NDArray[Any]:
    """The same by transformers, from a processor and a model of its own."""
    kind = KINDS[name]
    loader = getattr(hf, LOADED_BY[name]) if name in LOADED_BY else type(kind.make())
    model = loader.from_pretrained(folder).eval()
    pixels = processor([picture(*size) for size in SIZES], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        rows = kind.feature(model(pixels)).numpy()
    unit: NDArray[Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(unit[0] - unit[1]).max() > 0.01  # a model that looks at its images
    return unit


@pytest.mark.parametrize("name", KINDS)
def test_features_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = save(KINDS[name], tmp_path / "model")
    made = export_encoder(folder, tmp_path / "encoder.onnx", EncoderSettings())
    processor = KINDS[name].processor.from_pretrained(folder)
    expected = wanted(name, folder, processor)
    found = features(tmp_path / "encoder.onnx", made)
    assert found.shape == (len(SIZES), made.dim) == expected.shape
    np.testing.assert_allclose(found, expected, atol=APART, rtol=0)
    how = made.preprocessing
    counted = encoder_run(tmp_path / "encoder.onnx", (how.height, how.width), 2)
    assert counted.uncounted == {}
    assert counted.output_bytes == 4 * made.dim


def test_another_size_than_the_folder_says(tmp_path: Path) -> None:
    """DINOv2 takes any; images are then resized to it, not cropped."""
    folder = save(KINDS["dinov2"], tmp_path / "model")
    made = export_encoder(folder, tmp_path / "e.onnx", EncoderSettings(size=(96, 48)))
    assert (made.preprocessing.height, made.preprocessing.width) == (96, 48)
    assert made.preprocessing.shortest_edge is None
    how: Any = {**NORMALISED, "size": {"height": 96, "width": 48}, "resample": 3}
    expected = wanted("dinov2", folder, ViTImageProcessor(**how))
    np.testing.assert_allclose(features(tmp_path / "e.onnx", made), expected, atol=APART, rtol=0)


def test_a_folder_of_images_of_any_size(tmp_path: Path) -> None:
    changes = {"do_center_crop": False, "size": {"shortest_edge": 64}}
    folder = save(KINDS["dinov2"], tmp_path / "model", **changes)
    with pytest.raises(InputError, match="images of any size; pass --encoder-size HxW"):
        export_encoder(folder, tmp_path / "e.onnx", EncoderSettings())
    made = export_encoder(folder, tmp_path / "e.onnx", EncoderSettings(size=(64, 32)))
    assert made.preprocessing.to_json()["height"] == 64


def test_what_is_passed_comes_first(vit: Path, tmp_path: Path) -> None:
    settings = EncoderSettings(resample="lanczos", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    made = export_encoder(vit, tmp_path / "e.onnx", settings)
    assert made.preprocessing.resample == "lanczos"
    assert (made.mean, made.std) == (settings.mean, settings.std)
    processor = ViTImageProcessor(
        size={"height": 64, "width": 32}, resample=Image.Resampling.LANCZOS,
        image_mean=list(made.mean), image_std=list(made.std),
    )  # fmt: skip
    expected = wanted("vit", vit, processor)
    np.testing.assert_allclose(features(tmp_path / "e.onnx", made), expected, atol=APART, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_normalize": False}, "do_normalize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"do_resize": False}, "do_resize"),
        ({"size": None}, "lacks size, image_mean or image_std"),
        ({"image_mean": None}, "lacks size, image_mean or image_std"),
        ({"image_std": [0.5]}, "lacks size, image_mean or image_std"),
        ({"size": {}}, "images of any size"),
        ({"resample": 17}, "lacks size"),
        ({"do_center_crop": True, "crop_size": 32}, "then cropped to"),
    ],
)
def test_preprocessing_that_cannot_be_had(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = save(KINDS["vit"], tmp_path / "model", **changes)
    with pytest.raises(InputError, match=rf"preprocessor_config\.json.* {message}"):
        export_encoder(folder, tmp_path / "e.onnx", EncoderSettings())
    assert not (tmp_path / "e.onnx").exists()


@pytest.mark.parametrize("size", [(48, 32), (64, 64), (60, 30)])
def test_a_size_that_the_model_does_not_take(
    vit: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    with pytest.raises(InputError, match=f"does not take images of {size[0]}x{size[1]}"):
        export_encoder(vit, tmp_path / "e.onnx", EncoderSettings(size=size))


def test_missing_weights(vit: Path, tmp_path: Path) -> None:
    """transformers would make them up."""
    weights = load_file(vit / "model.safetensors")
    lost = weights.pop("encoder.layer.1.attention.output.dense.weight")
    save_file(weights, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights.*layer\.1\.attention\.output"):
        export_encoder(vit, tmp_path / "e.onnx", EncoderSettings())
    weights["encoder.layer.1.attention.output.dense.weight"] = lost[:-1].clone()
    save_file(weights, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="size mismatch"):
        export_encoder(vit, tmp_path / "e.onnx", EncoderSettings())


@pytest.mark.parametrize("length", [0, 100, -1])
def test_weights_that_are_cut_off(vit: Path, tmp_path: Path, length: int) -> None:
    whole = (vit / "model.safetensors").read_bytes()
    (vit / "model.safetensors").write_bytes(whole[:length])
    with pytest.raises(InputError, match=r"vit/model\.safetensors is (empty|damaged)") as error:
        export_encoder(vit, tmp_path / "e.onnx", EncoderSettings())
    assert "\n" not in str(error.value)


def test_pickled_weights_are_not_loaded(vit: Path, tmp_path: Path) -> None:
    torch.save(load_file(vit / "model.safetensors"), vit / "pytorch_model.bin")
    (vit / "model.safetensors").unlink()
    with pytest.raises(InputError, match="vit cannot be loaded"):
        export_encoder(vit, tmp_path / "e.onnx", EncoderSettings())


def test_folders_of_another_kind(vit: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither an \.onnx file nor a Hugging Face folder"):
        export_encoder(tmp_path, tmp_path / "e.onnx", EncoderSettings())
    config = json.loads((vit / "config.json").read_text())
    for kind, says in (
        ("siglip2", "NaFlex"), ("bert", "takes no images"), ("nobody_knows", "knows no model"),
        (None, "model_type"),
    ):  # fmt: skip
        (vit / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        with pytest.raises(InputError, match=says):
            export_encoder(vit, tmp_path / "e.onnx", EncoderSettings())
    (vit / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json"):
        export_encoder(vit, tmp_path / "e.onnx", EncoderSettings())


def test_without_preprocessing(vit: Path, tmp_path: Path) -> None:
    (vit / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        export_encoder(vit, tmp_path / "e.onnx", EncoderSettings())
