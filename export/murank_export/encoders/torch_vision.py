"""A vision model of PyTorch to plain ONNX: what it gives, which of it is the feature, parity."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from murank import InputError
from murank.backends.onnx.session import onnxruntime
from murank_export.sources.loading import one_line
from murank_export.sources.quiet import quiet_exporter

_OPSET, _MOST = 18, 4096  # images in a batch that the graph is traced for
_PREFERRED = ("image_embeds", "pooler_output", "last_hidden_state")
_TOLERANCE = 1e-3  # of features, against the PyTorch model
_BATCHES = (1, 3)


class Feature(nn.Module):
    """One output of a model."""

    def __init__(self, model: nn.Module, give: Callable[[Any, Tensor], Any], name: str) -> None:
        super().__init__()
        self.model, self.give, self.name = model, give, name

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,H,W] -> [B,...]."""
        value: Tensor = self.give(self.model, images)[self.name]
        return value


def outputs_of(model: Any, images: Tensor) -> Mapping[str, Tensor]:
    """Return what a model of transformers gives for images alone, by name."""
    if hasattr(model, "get_image_features"):  # beside a model of text
        found = model.get_image_features(pixel_values=images)
        return {"image_embeds": getattr(found, "pooler_output", found)}
    found = model(pixel_values=images)
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}


def choose_feature(
    model: nn.Module,
    give: Callable[[Any, Tensor], Any],
    size: tuple[int, int],
    folder: Path,
    name: str | None,
    pool: str | None,
) -> tuple[Feature, str]:
    """Return the model's feature, and a line on what was taken.

    Raises
    ------
    InputError
        The model does not take images of this size, answers differently each time, or has no output
        of that name.
    """
    images = torch.from_numpy(_images(1, size))
    try:
        with torch.inference_mode():
            first, again = (give(model, images) for _ in range(2))
    except Exception as error:
        # Of whatever kind the model has.
        raise _other_size(folder, size, error) from error
    if name is None:
        tokens = "last_hidden_state" if pool is not None else None
        name = next((one for one in (tokens, *_PREFERRED) if one in first), None)
    if name is None or name not in first:
        raise InputError(
            f"{folder}: name the output that holds the features with --encoder-output, one of "
            f"{', '.join(first)}"
        )
    if not torch.equal(first[name], again[name]):
        raise InputError(f"{folder} answers differently each time: it draws random numbers")
    others = ", ".join(one for one in first if one != name)
    shape = ",".join(map(str, first[name].shape[1:]))
    line = f"{folder}: {name} [B,{shape}] is taken as the feature"
    return Feature(model, give, name), line + (f" (it also has {others})" if others else "")


def write_onnx(feature: Feature, file: Path, size: tuple[int, int], folder: Path) -> None:
    """Write images [B,3,H,W] -> the feature, and compare both at two batch sizes.

    Raises
    ------
    InputError
        PyTorch cannot write the model as ONNX, or the graph's values are others.
    """
    free = ({0: torch.export.Dim("batch", min=1, max=_MOST)},)
    try:
        try:
            _write(feature, file, _images(2, size), free)
        except Exception:  # noqa: BLE001
            # Some code of models asks for the batch: then it is freed as of any file.
            _write(feature, file, _images(1, size), None)
    except Exception as error:
        # The exporter's own kinds, and those of the model's code.
        raise InputError(
            f"{folder}: PyTorch cannot write this model as ONNX ({one_line(error)}); write it "
            "otherwise, and pass the .onnx file"
        ) from error
    check_parity(feature, file, size, folder)


def _write(feature: Feature, file: Path, images: NDArray[np.float32], free: Any) -> None:
    with torch.inference_mode(), quiet_exporter():
        program: Any = torch.onnx.export(
            feature.eval(), (torch.from_numpy(images),), dynamo=True, opset_version=_OPSET,
            input_names=["images"], output_names=[feature.name], dynamic_shapes=free,
            verbose=False,
        )  # fmt: skip
    program.save(str(file), external_data=True)


def check_parity(feature: Feature, file: Path, size: tuple[int, int], folder: Path) -> None:
    """Compare a graph with the model that it was written from, at two batch sizes if it takes any.

    Raises
    ------
    InputError
        One of them does not take images of this size, or their values differ.
    """
    session = onnxruntime().InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    fixed = images.shape[0]
    for count in _BATCHES if isinstance(fixed, str) else (fixed,):
        pixels = _images(count, size)
        try:
            with torch.inference_mode():
                wanted: NDArray[Any] = feature(torch.from_numpy(pixels)).numpy()
            (found,) = session.run([feature.name], {images.name: pixels})
        except Exception as error:
            # Either has kinds of its own.
            raise _other_size(folder, size, error) from error
        apart = float(np.abs(found - wanted).max())
        if not apart <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise InputError(f"{folder}: the exported graph differs from PyTorch by {apart:.1e}")


def _other_size(folder: Path, size: tuple[int, int], error: Exception) -> InputError:
    return InputError(f"{folder} does not take images of {size[0]}x{size[1]}: {one_line(error)}")


def _images(count: int, size: tuple[int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(count).standard_normal((count, 3, *size)).astype(np.float32)
