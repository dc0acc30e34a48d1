"""Colours as a graph takes them: its own normalisation, bytes, last axis, blue first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from plain_encoder import (
    DIM,
    NONE,
    ROUNDING,
    SIZE,
    Step,
    append_steps,
    by_hand,
    images,
    model,
    normalised,
    save,
    unit,
    weight,
)

from murank import InputError
from murank.backends.onnx.session import Session, SessionSettings
from murank_export import EncoderSettings
from murank_export.encoders.colours import IMAGENET_MEAN, IMAGENET_STD
from murank_export.encoders.encoder_graph import ExportedEncoder, export_encoder

MEAN, STD = (np.array(one, np.float32).reshape(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
BYTES = (1 / 255,) * 3


def in_front(steps: Sequence[Step], made: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """The plain encoder behind steps; "it" is the images, then what the step before gives."""
    made = model() if made is None else made
    graph = made.graph
    nodes, name = append_steps(graph, "x", steps)
    graph.node[0].input[0] = name
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return made


def run(
    made: onnx.ModelProto, folder: Path, settings: EncoderSettings = NONE
) -> tuple[ExportedEncoder, NDArray[np.float32], str]:
    """Export, and ask for the features of `images`; return notes as one text, too."""
    notes = list[str]()
    file = folder / "encoder.onnx"
    exported = export_encoder(save(made, folder), file, settings, notes.append)
    (found,) = Session(file, SessionSettings("cpu")).run({"images": images()}, ["features"])
    return exported, found.numpy(), "\n".join(notes)


SUB: Step = ("Sub", ["it", MEAN], {})
DIV: Step = ("Div", ["it", STD], {})
OWN: dict[str, tuple[Sequence[Step], bool]] = {  # of 0..255
    "0..1": ([SUB, DIV], False),
    "0..1, a product and a sum": ([("Mul", [1 / STD, "it"], {}), ("Add", ["it", -MEAN / STD], {})],
                                  False),
    "0..255": ([("Sub", ["it", MEAN * 255], {}), ("Div", ["it", STD * 255], {})], True),
    "0..255, by 255 first": ([("Div", ["it", np.float32(255)], {}), SUB, DIV], True),
    "three numbers, without axes": ([("Sub", ["it", MEAN[0] * 255], {}),
                                     ("Mul", ["it", 1 / STD[0] / 255], {})], True),
    "a BatchNormalization": ([("BatchNormalization", [
        "it", np.ones(3, np.float32), np.zeros(3, np.float32), MEAN.ravel() * 255,
        (STD.ravel() * 255) ** 2], {"epsilon": 0.0})], True),
    "after a cast and another name": ([("Cast", ["it"], {"to": TensorProto.FLOAT}),
                                       ("Identity", ["it"], {}), SUB, DIV], False),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_its_own_normalisation_is_the_only_one(tmp_path: Path, name: str) -> None:
    steps, of_bytes = OWN[name]
    made, found, notes = run(in_front(steps), tmp_path)
    np.testing.assert_allclose(found, by_hand(), atol=ROUNDING)
    assert (made.mean, made.std) == ((0, 0, 0), BYTES if of_bytes else (1, 1, 1))
    assert "ImageNet" in notes
    assert "--encoder-mean 0,0,0" in notes


def test_what_is_told_comes_before_what_is_found(tmp_path: Path) -> None:
    told = EncoderSettings(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    made, found, notes = run(in_front([SUB, DIV]), tmp_path, told)
    assert made.mean == IMAGENET_MEAN
    assert "--encoder-mean 0,0,0 --encoder-std 1,1,1" in notes  # if that is one too many
    twice = (normalised(images(), IMAGENET_MEAN, IMAGENET_STD) - MEAN) / STD
    wanted = twice.reshape(5, -1) @ weight().reshape(DIM, -1).T + np.arange(DIM)
    np.testing.assert_allclose(found, unit(wanted), atol=ROUNDING)


def test_a_layer_that_was_learnt_is_none(tmp_path: Path) -> None:
    """Numbers as images never have them: said, and images are normalised as by custom."""
    learnt = np.array([0.01, -0.3, 0.02], np.float32).reshape(1, 3, 1, 1)
    made, _, notes = run(in_front([("Add", ["it", learnt], {})]), tmp_path)
    assert made.mean == IMAGENET_MEAN
    assert "--encoder-mean 0,0,0" in notes


@pytest.mark.parametrize(
    "steps",
    [
        [("Relu", ["it"], {}), SUB, DIV],
        [("Div", ["it", np.zeros((1, 3, 1, 1), np.float32)], {})],
        [("Mul", ["it", "it"], {})],
        [("Sub", ["it", np.zeros((3, 1), np.float32)], {})],  # along the height, not the colours
    ],
)
def test_what_is_no_normalisation_is_left_alone(tmp_path: Path, steps: Sequence[Step]) -> None:
    height = (3, 4)  # so that three rows can pass for three colours
    made = model(dims=("batch", 3, *height))
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight()[:, :, :3], "w"))
    source, notes = save(in_front(steps, made), tmp_path), list[str]()
    found = export_encoder(source, tmp_path / "encoder.onnx", NONE, notes.append)
    assert found.mean == IMAGENET_MEAN
    assert notes == []


def test_blue_first(tmp_path: Path) -> None:
    _, found, _ = run(model(), tmp_path, EncoderSettings(color="bgr"))
    x = normalised(images(), IMAGENET_MEAN, IMAGENET_STD)[:, ::-1].reshape(5, -1)
    wanted = unit(x @ weight().reshape(DIM, -1).T + np.arange(DIM))
    np.testing.assert_allclose(found, wanted, atol=ROUNDING)


@pytest.mark.parametrize("said", [None, "rgb"])
def test_means_that_are_turned_tell_of_blue_first(tmp_path: Path, said: str | None) -> None:
    turned: list[Step] = [
        ("Sub", ["it", MEAN[:, ::-1] * 255], {}),
        ("Div", ["it", STD[:, ::-1] * 255], {}),
    ]
    _, found, notes = run(in_front(turned), tmp_path, EncoderSettings(color=said))
    pixels = images() if said else images()[:, ::-1]
    means, stds = IMAGENET_MEAN[::-1], IMAGENET_STD[::-1]
    wanted = normalised(pixels, means, stds).reshape(5, -1) @ weight().reshape(DIM, -1).T
    np.testing.assert_allclose(found, unit(wanted + np.arange(DIM)), atol=ROUNDING)
    assert ("--encoder-color rgb" in notes) is (said is None)


def last(kind: int, steps: Sequence[Step], batch: Any = "batch") -> onnx.ModelProto:
    """The plain encoder of images [B,H,W,3]."""
    made = model(dims=(batch, *SIZE, 3))
    made.graph.input[0].type.tensor_type.elem_type = kind
    return in_front([*steps, ("Transpose", ["it"], {"perm": [0, 3, 1, 2]})], made)


@pytest.mark.parametrize("batch", ["batch", 1])
def test_colours_on_the_last_axis(tmp_path: Path, batch: Any) -> None:
    made, found, _ = run(last(TensorProto.FLOAT, [], batch), tmp_path)
    assert (made.preprocessing.height, made.preprocessing.width) == SIZE
    np.testing.assert_allclose(found, by_hand(), atol=ROUNDING)
    own = last(
        TensorProto.FLOAT, [("Sub", ["it", MEAN.ravel()], {}), ("Div", ["it", STD.ravel()], {})]
    )
    made, found, _ = run(own, tmp_path)
    np.testing.assert_allclose(found, by_hand(), atol=ROUNDING)
    assert made.std == (1, 1, 1)


def test_bytes(tmp_path: Path) -> None:
    steps: list[Step] = [("Cast", ["it"], {"to": TensorProto.FLOAT}),
                         ("Sub", ["it", MEAN.ravel() * 255], {}),
                         ("Div", ["it", STD.ravel() * 255], {})]  # fmt: skip
    made, found, notes = run(last(TensorProto.UINT8, steps), tmp_path)
    np.testing.assert_allclose(found, by_hand(), atol=ROUNDING)
    assert made.std == BYTES
    assert "uint8" in notes
    with pytest.raises(InputError, match=r"source\.onnx.*--encoder-mean"):
        run(last(TensorProto.UINT8, steps), tmp_path, EncoderSettings(mean=IMAGENET_MEAN))
