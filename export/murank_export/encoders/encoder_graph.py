"""Any image encoder as the engine's encoder graph: uint8 pixels in, unit features out."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper

from murank import InputError
from murank.backends.onnx.session import onnxruntime
from murank.engine.neighbours import ROWS_FLOAT16, ROWS_FLOAT32
from murank.files.stand_in import check_no_stand_in, misread
from murank.folder.contents import check_graph
from murank.folder.onnx_references import graph_facts
from murank.images import Preprocessing
from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.encoders.hf_encoder import export_hf_encoder
from murank_export.sources.loading import one_line

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_OLDEST_OPSET = 9  # of the operators put around the graph
_EXTERNAL_FROM = 100 << 20  # bytes of weights from which they go into a file of their own


@dataclass(frozen=True)
class _Known:
    """The same, all known but a size that the graph tells and an output that stands alone."""

    size: tuple[int, int] | None
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    output: str | None
    shortest_edge: int | None = None


@dataclass(frozen=True)
class ExportedEncoder:
    """The graph and how images are brought to it."""

    preprocessing: Preprocessing
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    rows: float  # how far apart two features of one image may be, by rounding alone


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def export_encoder(source: Path, file: Path, settings: EncoderSettings) -> ExportedEncoder:
    """Write `file`: images [B,3,H,W] uint8 -> features [B,D] float32, rows of length 1.

    Parameters
    ----------
    source
        An .onnx file (images [B,3,H,W] normalised floats -> features), or a Hugging Face folder
        of a CLIP vision model with projection, ViT, DINOv2 or SigLIP.

    Raises
    ------
    InputError
        The source is of another kind, or its inputs and outputs do not fit.
    """
    if source.is_file() and source.suffix == ".onnx":
        return _wrap(source, file, _plain_settings(settings))
    if not (source / "config.json").is_file():
        raise InputError(f"{source} is neither an .onnx file nor a Hugging Face folder")
    with TemporaryDirectory(dir=file.parent) as scratch:
        found = export_hf_encoder(source, Path(scratch), settings.size)
        how = _Known(
            size=(found.preprocessing.height, found.preprocessing.width),
            resample=settings.resample or found.preprocessing.resample,
            mean=settings.mean or found.mean,
            std=settings.std or found.std,
            output=settings.output or found.output,
            shortest_edge=found.preprocessing.shortest_edge,
        )
        return _wrap(found.file, file, how)


def _plain_settings(given: EncoderSettings) -> _Known:
    """Fill in torchreid's customs; the size comes from the graph."""
    return _Known(
        given.size, given.resample or "bilinear", given.mean or IMAGENET_MEAN,
        given.std or IMAGENET_STD, given.output,
    )  # fmt: skip


def _wrap(source: Path, file: Path, settings: _Known) -> ExportedEncoder:
    if not np.isfinite([settings.mean, settings.std]).all() or min(settings.std) <= 0:
        raise InputError(f"{source}: mean and std must be finite, std above 0")
    _check_beside(source)
    try:
        model = onnx.load(source)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        model = onnx.shape_inference.infer_shapes(model) if model.ByteSize() < 2**31 else model
    except Exception as error:
        # protobuf, onnx and the file system each raise kinds of their own on a bad file.
        raise misread(source, f" cannot be read as ONNX: {one_line(error)}") from error
    graph = model.graph
    weights = {initializer.name for initializer in graph.initializer}
    inputs = [node for node in graph.input if node.name not in weights]
    if len(inputs) != 1 or _rank(inputs[0]) != 4 or _dims(inputs[0])[1] not in (3, None):
        raise InputError(f"{source} must have one input, images [B,3,H,W]")
    if inputs[0].type.tensor_type.elem_type not in _FLOATS:
        raise InputError(f"{source} must take float images, normalised by mean and std")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise InputError(f"{source} has opset {opset}; export it with a later one")
    size = _size(inputs[0], settings.size, source)
    output = _feature_output(graph, settings.output, source)
    _surround(model, inputs[0], output, size, settings)
    preprocessing = Preprocessing(*size, settings.resample, settings.shortest_edge)
    rows = ROWS_FLOAT16 if _is_half(model.graph) else ROWS_FLOAT32
    dim = _save_checked(model, file, size, source)
    return ExportedEncoder(preprocessing, settings.mean, settings.std, dim, rows)


def _check_beside(source: Path) -> None:
    """Raise InputError for a file of weights beside the graph that something else stands in for."""
    locations: frozenset[str] = frozenset()
    with contextlib.suppress(InputError):  # whoever loads it tells
        locations = graph_facts(source).locations
    for location in sorted(locations):
        check_no_stand_in(source.parent / location)


def _is_half(graph: Any) -> bool:
    """Whether a value of 16 bits is among its inputs, weights or casts."""
    weights = (weight.data_type for weight in graph.initializer)
    casts = (helper.get_node_attr_value(n, "to") for n in graph.node if n.op_type == "Cast")
    return not _HALVES.isdisjoint([*weights, *casts])


def _size(images: Any, given: tuple[int, int] | None, source: Path) -> tuple[int, int]:
    batch, _, height, width = _dims(images)
    if batch is not None:
        raise InputError(f"{source}: its batch is fixed to {batch}; export it with a free batch")
    if given is None:
        if height is None or width is None:
            raise InputError(f"{source} takes images of any size: pass --encoder-size HxW")
        return height, width
    if height not in (None, given[0]) or width not in (None, given[1]):
        raise InputError(f"{source} takes {height}x{width}, not {given[0]}x{given[1]}")
    return given


def _feature_output(graph: Any, name: str | None, source: Path) -> Any:
    outputs = {node.name: node for node in graph.output}
    if name is None and len(outputs) == 1:
        (name,) = outputs
    if name not in outputs:
        raise InputError(
            f"{source}: name the output that holds the features with --encoder-output, one of "
            f"{', '.join(outputs)}"
        )
    return outputs[name]


def _surround(
    model: Any, images: Any, output: Any, size: tuple[int, int], settings: _Known
) -> None:
    """Put normalisation before the graph, and class token, flattening and unit length behind."""
    graph = model.graph
    kind, flatten_all_but_batch = images.type.tensor_type.elem_type, np.array([0, -1], np.int64)
    taken = {"images", "features"} & _names(graph)
    renamed = {**{name: f"encoder_{name}" for name in taken}, images.name: "murank_input"}
    _rename(graph, renamed)
    _forget_origin(model)
    for name, value in (("mean", settings.mean), ("std", settings.std)):
        scaled = (np.array(value, np.float32) * 255).reshape(1, 3, 1, 1)
        graph.initializer.append(onnx.numpy_helper.from_array(scaled, f"murank_{name}"))
    graph.initializer.append(onnx.numpy_helper.from_array(flatten_all_but_batch, "murank_flat"))
    before = [
        helper.make_node("Cast", ["images"], ["murank_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["murank_float", "murank_mean"], ["murank_centred"]),
        helper.make_node("Div", ["murank_centred", "murank_std"], ["murank_scaled"]),
        helper.make_node("Cast", ["murank_scaled"], ["murank_input"], to=kind),
    ]
    behind, name = [], output.name
    if _rank(output) == 3:  # [B,tokens,D]: the class token comes first
        first = np.array(0, np.int64)
        graph.initializer.append(onnx.numpy_helper.from_array(first, "murank_first"))
        behind.append(helper.make_node("Gather", [name, "murank_first"], ["murank_class"], axis=1))
        name = "murank_class"
    behind += [
        helper.make_node("Reshape", [name, "murank_flat"], ["murank_rows"]),
        helper.make_node("Cast", ["murank_rows"], ["murank_wide"], to=TensorProto.FLOAT),
        helper.make_node("LpNormalization", ["murank_wide"], ["features"], axis=-1, p=2),
    ]
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, *size])
    )
    graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", None])
    )


def _names(graph: Any) -> set[str]:
    """Names of weights and of what nodes give, those in branches and loops aside."""
    given = {name for node in graph.node for name in node.output}
    return given | {initializer.name for initializer in graph.initializer}


def _rename(graph: Any, renamed: Mapping[str, str]) -> None:
    """Rename values wherever they are made or used; branches and loops use those around them."""
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = renamed.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, renamed)


def _forget_origin(message: Any) -> None:
    """Drop notes of the tools that made a graph: they hold source paths of that machine."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _forget_origin(part)


def _save_checked(model: Any, file: Path, size: tuple[int, int], source: Path) -> int:
    """Save, run two batches of different length, and return the length of a feature."""
    runtime = onnxruntime()
    external = model.ByteSize() > _EXTERNAL_FROM
    onnx.save(
        model, file, save_as_external_data=external, location=f"{file.name}.data"
    ) if external else onnx.save(model, file)
    check_graph(file, source)  # before it is run
    try:
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        shapes = [
            session.run(None, {"images": np.zeros((batch, 3, *size), np.uint8)})[0].shape
            for batch in (1, 3)
        ]
    except Exception as error:
        # onnxruntime raises its own kinds, one a status.
        raise InputError(f"{source} does not run: {one_line(error)}") from error
    if [len(shape) for shape in shapes] != [2, 2] or [s[0] for s in shapes] != [1, 3]:
        raise InputError(f"{source} gives features of shape {shapes}; expected one row an image")
    return int(shapes[0][1])


def _dims(value: Any) -> Sequence[int | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    ]


def _rank(value: Any) -> int | None:
    kind = value.type.tensor_type
    return len(kind.shape.dim) if kind.HasField("shape") else None
