"""A plain ONNX encoder, small enough to be done by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from murank.backends.onnx.session import Session, SessionSettings
from murank_export import EncoderSettings
from murank_export.encoders.encoder_graph import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ExportedEncoder,
    export_encoder,
)

DIM, SIZE = 6, (8, 4)
NONE = EncoderSettings()
Step = tuple[str, Sequence[Any], dict[str, Any]]  # operator, inputs, attributes
# Features are rows of length 1, of sums of about 100 products. Each sum is rounded by at most half
# an eps of what it is by then, which is no longer than the row: 100 such errors of either sign add
# up to sqrt(100) / 2 = 5 eps, and three times that is no chance.
ROUNDING = 15 * float(np.finfo(np.float32).eps)


def weight(out: int = DIM) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((out, 3, *SIZE)).astype(np.float32)


def model(
    *,
    dims: tuple[Any, ...] = ("batch", 3, *SIZE),
    kind: int = TensorProto.FLOAT,
    names: tuple[str, str] = ("x", "y"),
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """One convolution over the whole image: [B,D,1,1]."""
    images, features = names
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    values = numpy_helper.from_array(weight().astype(dtype), "w")
    shift = numpy_helper.from_array(np.arange(DIM).astype(dtype), "b")
    node = helper.make_node("Conv", [images, "w", "b"], [features])
    graph = helper.make_graph(
        [node],
        "encoder",
        [helper.make_tensor_value_info(images, kind, dims)],
        [helper.make_tensor_value_info(features, kind, None)],
        [values, shift],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def append_steps(
    graph: onnx.GraphProto, name: str, steps: Sequence[Step]
) -> tuple[list[onnx.NodeProto], str]:
    """Return nodes for steps, and the name of what the last gives; their arrays go into the graph.

    Of a step's inputs "it" is `name`, then what the step before gave; other texts are names.
    """
    nodes = []
    for place, (kind, others, attributes) in enumerate(steps):
        inputs = []
        for one in others:
            if isinstance(one, str):
                inputs.append(name if one == "it" else one)
                continue
            held = numpy_helper.from_array(np.asarray(one), f"c{len(graph.initializer)}")
            graph.initializer.append(held)
            inputs.append(held.name)
        name = f"step_{place}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
    return nodes, name


def save(made: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(made, folder / "source.onnx")
    return folder / "source.onnx"


def images(count: int = 5, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 3, *size), dtype=np.uint8)


def normalised(pixels: NDArray[np.uint8], mean: Any, std: Any) -> NDArray[np.float32]:
    scaled = (pixels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    result: NDArray[np.float32] = scaled.astype(np.float32)
    return result


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    flat = rows.reshape(len(rows), -1).astype(np.float32)
    result: NDArray[Any] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return result


def by_hand(mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD) -> NDArray[Any]:
    """What `model` gives for `images`."""
    x = normalised(images(), mean, std).reshape(5, -1)
    return unit(x @ weight().reshape(DIM, -1).T + np.arange(DIM))


def exported(
    source: Path, settings: EncoderSettings = NONE
) -> tuple[ExportedEncoder, NDArray[np.float32]]:
    """Export and run on `images`."""
    file = source.with_name("encoder.onnx")
    made = export_encoder(source, file, settings)
    session = Session(file, SessionSettings("cpu"))
    session.expect({"images": (None, 3, None, None)}, {"features": (None, made.dim)})
    assert session._session.get_inputs()[0].type == "tensor(uint8)"
    (found,) = session.run({"images": images()}, ["features"])
    values: NDArray[np.float32] = found.numpy()
    assert values.dtype == np.float32
    return made, values
