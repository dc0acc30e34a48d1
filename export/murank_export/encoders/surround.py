"""What is put around an encoder's graph: colours before it, one row of length 1 behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from murank_export.encoders.colours import Colours
from murank_export.encoders.constants import add_constant
from murank_export.encoders.feature_rows import pooled
from murank_export.encoders.source_graph import SourceGraph

_IDENTITY = {"mean": 0.0, "std": 1.0}  # of pixels in 0..255


@dataclass(frozen=True)
class Surroundings:
    """What a graph becomes part of."""

    taken: SourceGraph
    colours: Colours
    output: str
    shape: tuple[int, ...]  # of that output, batch first
    pool: str | None
    alone: bool = False  # a graph of a fixed batch is given one image


def surround(model: onnx.ModelProto, how: Surroundings) -> None:
    """Change a model, of which `how.taken` was read, into images uint8 -> features, in place."""
    graph, taken = model.graph, how.taken
    renamed = {name: f"encoder_{name}" for name in {"images", "features"} & _names(graph)}
    renamed[taken.images] = "murank_input"
    _rename(graph, renamed)
    _forget_origin(model)
    before = _before(graph, how)
    behind = _behind(graph, how, renamed.get(how.output, how.output))
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:], graph.output[:], graph.value_info[:]
    lengths = [1 if how.alone else "batch", 3, *taken.size]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, lengths))
    graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [lengths[0], None])
    )


def _before(graph: Any, how: Surroundings) -> list[Any]:
    """From pixels to what the graph takes."""
    taken, nodes, name = how.taken, [], "images"

    def add(kind: str, other: str, given: Any = None, **attributes: Any) -> None:
        nonlocal name
        inputs = [name] if given is None else [name, add_constant(graph, f"murank_{other}", given)]
        nodes.append(helper.make_node(kind, inputs, [f"murank_{other}ed"], **attributes))
        name = f"murank_{other}ed"

    if taken.kind != TensorProto.UINT8:
        add("Cast", "widen", to=TensorProto.FLOAT)
        for kind, key in (("Sub", "mean"), ("Div", "std")):
            scaled = (np.array(getattr(how.colours, key)) * 255).astype(np.float32)
            if (scaled != _IDENTITY[key]).any():
                add(kind, key, scaled.reshape(1, 3, 1, 1))
    if how.colours.bgr:
        add("Gather", "turn", np.array([2, 1, 0], np.int64), axis=1)
    if taken.channels_last:
        add("Transpose", "colours_last", perm=[0, 2, 3, 1])
    if how.alone and taken.batch != 1:
        add("Expand", "repeat", np.array([taken.batch, 1, 1, 1], np.int64))
    nodes.append(helper.make_node("Cast", [name], ["murank_input"], to=taken.kind))
    return nodes


def _behind(graph: Any, how: Surroundings, name: str) -> list[Any]:
    """From what the graph gives to rows of length 1."""
    nodes = [helper.make_node("Cast", [name], ["murank_wide"], to=TensorProto.FLOAT)]
    name, width = "murank_wide", -1
    if how.pool is not None:
        last = how.taken.channels_last
        more, name = pooled(graph, name, len(how.shape), how.pool, channels_last=last)
        nodes += more
    elif how.taken.batch is not None:  # whose axes may be gone
        width = int(np.prod(how.shape)) // how.taken.batch
    lengths = [0, -1] if width == -1 else [-1, width]
    flat = add_constant(graph, "murank_flat", np.array(lengths, np.int64))
    nodes.append(helper.make_node("Reshape", [name, flat], ["murank_rows"]))
    name = "murank_rows"
    if how.alone and how.taken.batch != 1:
        first = add_constant(graph, "murank_one", np.array([0], np.int64))
        nodes.append(helper.make_node("Gather", [name, first], ["murank_row"], axis=0))
        name = "murank_row"
    return [*nodes, helper.make_node("LpNormalization", [name], ["features"], axis=-1, p=2)]


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
