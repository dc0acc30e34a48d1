"""Vision models that PyTorch itself writes: which output is taken, timm folders, parity."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers as hf
from PIL import Image
from plain_encoder import ROUNDING, images, normalised, unit
from quick_exporter import quicken
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import ConvNextImageProcessor

from murank import InputError, MachineError
from murank.images.preprocess import to_pixels
from murank_export import EncoderSettings
from murank_export.encoders.encoder_graph import export_encoder
from murank_export.encoders.hf_encoder import _preprocessing
from murank_export.encoders.torch_vision import choose_feature

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
SIDES = {"height": 8, "width": 4}
TRAINED = {"mean": MEAN, "std": STD, "input_size": [3, 8, 8], "crop_pct": 0.5, "classifier": "fc"}


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_dinov2_with_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)
    torch.manual_seed(0)
    config: Any = hf.Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    model: Any = hf.Dinov2WithRegistersModel(config).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    model.save_pretrained(tmp_path / "model")
    described = {"image_mean": MEAN, "image_std": STD, "size": SIDES, "resample": 3}
    (tmp_path / "model/preprocessor_config.json").write_text(json.dumps(described))
    notes, file = list[str](), tmp_path / "e.onnx"
    made = export_encoder(tmp_path / "model", file, EncoderSettings(), notes.append)
    assert ["pooler_output" in one for one in notes] == [True]
    pixels = torch.from_numpy(normalised(images(), MEAN, STD))
    with torch.inference_mode():
        wanted = model(pixel_values=pixels).last_hidden_state[:, 0].numpy()
    (found,) = onnxruntime.InferenceSession(str(file)).run(None, {"images": images()})
    assert found.shape == (5, made.dim) == (5, 16)
    # 7 sums one behind another (patches, six of a layer): sqrt(7) < 3 times the rounding of one.
    np.testing.assert_allclose(found, unit(wanted), atol=3 * ROUNDING, rtol=0)


@pytest.mark.parametrize("side", [224, 384])
def test_images_of_convnext(tmp_path: Path, side: int) -> None:
    described = {
        "image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": side}, "resample": 3,
        "crop_pct": 0.875,
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    how, mean, _ = _preprocessing(tmp_path, "convnext", None)
    assert mean == MEAN
    picture = Image.fromarray(images()[0].transpose(1, 2, 0)).resize((70, 150))
    processor: Any = ConvNextImageProcessor(**described, do_normalize=False, do_rescale=False)
    wanted = processor(picture, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(to_pixels(picture, how), wanted)


def giving(**values: Tensor) -> Callable[..., Any]:
    return lambda _model, images: {key: one.expand(len(images), -1) for key, one in values.items()}


@pytest.mark.parametrize(
    ("named", "pool", "taken"),
    [
        (None, None, "pooler_output"), (None, "avg", "last_hidden_state"), ("more", None, "more"),
        ("none", None, None),
    ],
)  # fmt: skip
def test_which_output(named: str | None, pool: str | None, taken: str | None) -> None:
    names = ("more", "last_hidden_state", "pooler_output")
    give = giving(**{name: torch.rand(1, 2) for name in names})
    said = (give, (8, 4), Path("model"), named, pool)
    if taken is None:
        with pytest.raises(InputError, match=r"--encoder-output, one of more, last_hidden_state"):
            choose_feature(nn.Identity(), *said)
        return
    feature, line = choose_feature(nn.Identity(), *said)
    assert feature.name == taken
    assert f"{taken} [B,2]" in line


def test_random_numbers_are_refused() -> None:
    def give(_model: Any, images: Tensor) -> dict[str, Tensor]:
        return {"pooler_output": torch.rand(len(images), 2)}

    with pytest.raises(InputError, match="differently each time"):
        choose_feature(nn.Identity(), give, (8, 4), Path("model"), None, None)


class OfTimm(nn.Module):
    """A network as timm makes it, without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 5, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,H,W] -> [B,5]."""
        rows: Tensor = self.conv(images).amax((2, 3))
        return rows


@pytest.fixture
def timm_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, and a timm that knows its architecture."""
    asked: list[Any] = []

    def create_model(name: str, **options: Any) -> nn.Module:
        assert options["num_classes"] == 0
        assert not options["pretrained"]
        asked.append(name)
        return OfTimm()

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"architecture": "net", "pretrained_cfg": TRAINED})
    )
    state = {key: value + 1 for key, value in OfTimm().state_dict().items()}
    save_file({**state, "fc.weight": torch.zeros(2, 5)}, folder / "model.safetensors")
    return folder


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_folder_of_timm(timm_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.onnx"
    made = export_encoder(timm_folder, file, EncoderSettings())
    assert made.preprocessing.to_json() == {
        "height": 8, "width": 8, "resample": "bicubic", "shortest_edge": 16
    }  # fmt: skip
    assert (made.mean, made.std) == (MEAN, STD)
    network = OfTimm()
    for weight in network.parameters():
        weight.data += 1
    pixels = images(size=(8, 8))
    with torch.inference_mode():
        wanted = network(torch.from_numpy(normalised(pixels, MEAN, STD))).numpy()
    (found,) = onnxruntime.InferenceSession(str(file)).run(None, {"images": pixels})
    np.testing.assert_allclose(found, unit(wanted), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    ("lost", "says"), [("conv.bias", r"conv\.bias"), ("model.safetensors", "safetensors")]
)
def test_weights_of_timm_that_are_missing(
    timm_folder: Path, tmp_path: Path, lost: str, says: str
) -> None:
    weights = timm_folder / "model.safetensors"
    weights.unlink()
    if lost != weights.name:
        save_file({"conv.weight": OfTimm().conv.weight.detach()}, weights)
    with pytest.raises(InputError, match=says):
        export_encoder(timm_folder, tmp_path / "e.onnx", EncoderSettings())


def test_without_timm(timm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MachineError, match="pip install timm"):
        export_encoder(timm_folder, tmp_path / "e.onnx", EncoderSettings())
