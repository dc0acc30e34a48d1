"""A graph that was traced for a fixed number of images, made to take any.

Exporters write the batch that they were shown into the graph: into the shapes of what goes in and
out, the targets of Reshape and Expand, axes of Squeeze, constants that are joined to each image's
values. What is rewritten here is a guess that follows the batch through the graph by onnx's shape
inference; whether it is right, its values tell, which the caller compares with the fixed graph's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from murank.backends.onnx.session import onnxruntime
from murank_export.encoders.constants import SMALL, Constants
from murank_export.encoders.source_graph import dims, opset_of, rank

Shape = list[int | None]
_FREE = "batch"
_AXES_ARE_INPUTS = 13  # opset from which Squeeze has its axes as an input


def free_batch(model: onnx.ModelProto, images: str, count: int) -> None:
    """Rewrite a graph that may be run, in place, from `count` images to any number."""
    _Freed(model, images, count).rewrite()


class _Freed:
    """A copy without large weights, which is rewritten step by step."""

    def __init__(self, model: onnx.ModelProto, images: str, count: int) -> None:
        self.model, self.images, self.count = model, images, count
        self.light = _without_weights(model)
        self.graph, self.constants = self.light.graph, Constants(self.light)
        self.fixed = _shapes(self.light)  # as traced
        self._measure()
        self.opset = opset_of(model)
        self.made: list[Any] = []  # initializers
        self.known: list[Any] = []  # value_info of what inference cannot tell
        self.kind = 0  # of what the node that is rewritten is given
        self.front: list[Any] = []  # nodes that repeat constants

    def rewrite(self) -> None:
        """Free what goes in, then what follows, as far as inference comes with each step."""
        (images,) = (one for one in self.graph.input if one.name == self.images)
        images.type.tensor_type.shape.dim[0].dim_param = _FREE
        for node in self.graph.node:
            if node.op_type == "Concat":
                self._join(node)
        done = set[str]()
        while self._pass(done):
            pass
        nodes = [*self._counted(), *self.graph.node]
        real = self.model.graph
        del real.node[:], real.value_info[:]
        real.node.extend(nodes)
        real.initializer.extend(self.made)
        for one in real.input:
            if one.name == self.images:
                one.type.tensor_type.shape.dim[0].dim_param = _FREE

    def _measure(self) -> None:
        """Run the graph once for the shapes that inference does not find."""
        nodes = [one for one in self.graph.node if one.op_type in _REWRITTEN]
        wanted = {name for one in nodes for name in (one.input[0], one.output[0])}
        lacking = sorted(one for one in wanted if None in self.fixed.get(one, [None]))
        if not lacking:
            return
        said = list(self.model.graph.output)
        self.model.graph.output.extend(map(helper.make_empty_tensor_value_info, lacking))
        content = self.model.SerializeToString()
        del self.model.graph.output[:]
        self.model.graph.output.extend(said)
        options = onnxruntime().SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime().InferenceSession(content, options, ["CPUExecutionProvider"])
        (images,) = (one for one in self.graph.input if one.name == self.images)
        kind = helper.tensor_dtype_to_np_dtype(images.type.tensor_type.elem_type)
        zeros = np.zeros(self.fixed[self.images], kind)  # type: ignore[arg-type]
        found = session.run(lacking, {self.images: zeros})
        self.fixed |= {name: list(one.shape) for name, one in zip(lacking, found, strict=True)}

    def _pass(self, done: set[str]) -> bool:
        """Rewrite every node whose input is known to depend on the batch by now."""
        del self.graph.output[:], self.graph.value_info[:]
        self.graph.value_info.extend(self.known)
        free, before = _free_axes(self.light), len(done)
        for node in self.graph.node:
            if node.output[0] in done or node.op_type not in _REWRITTEN:
                continue
            if node.input[0] in free:
                axis, self.kind = free[node.input[0]]
                done.add(node.output[0])
                fixed, goal = (self.fixed[one] for one in (node.input[0], node.output[0]))
                _REWRITTEN[node.op_type](self, node, axis, fixed, goal)
        return len(done) > before

    def _reshape(self, node: Any, axis: int, fixed: Any, goal: Any) -> None:
        place = _place(goal, axis, fixed, self.count)
        if place is not None:
            node.input[1] = self._weight([*goal[:place], -1, *goal[place + 1 :]])

    def _squeeze(self, node: Any, axis: int, fixed: Any, _goal: Any) -> None:
        axes = next((list(one.ints) for one in node.attribute if one.name == "axes"), None)
        if axes is None and len(node.input) > 1 and node.input[1]:
            given = self.constants.value(node.input[1])
            axes = None if given is None else [int(one) for one in given]
        wanted = range(len(fixed)) if axes is None else [one % len(fixed) for one in axes]
        kept = [one for one in wanted if fixed[one] == 1 and one != axis]
        del node.attribute[:], node.input[1:]
        if not kept:
            node.op_type = "Identity"
        elif self.opset < _AXES_ARE_INPUTS:
            node.attribute.append(helper.make_attribute("axes", kept))
        else:
            node.input.append(self._weight(kept))

    def _expand(self, node: Any, axis: int, fixed: Any, goal: Any) -> None:
        place = len(goal) + axis - len(fixed)  # 1: of the input's own length
        node.input[1] = self._weight([*goal[:place], 1, *goal[place + 1 :]])

    def _resize(self, node: Any, axis: int, _fixed: Any, goal: Any) -> None:
        if axis == 0 and len(node.input) > 3 and node.input[3]:
            node.input[3] = self._lengths(goal[1:])
            self._know(node.output[0], self.kind, goal[1:])

    def _join(self, node: Any) -> None:
        """Repeat constants that are joined to the values of images, such as class tokens."""
        axis = next(one.i for one in node.attribute if one.name == "axis")
        values = [self.constants.value(name) for name in node.input]
        if all(value is not None for value in values):
            return
        for place, value in enumerate(values):
            if value is None or axis % value.ndim == 0 or len(value) != self.count:
                continue
            if (value != value[:1]).any():
                continue
            node.input[place] = self._repeated(value[:1])

    def _repeated(self, row: NDArray[Any]) -> str:
        """Return the name of a constant [1,...] that is repeated for every image."""
        name = f"murank_repeated_{len(self.known)}"
        held = numpy_helper.from_array(row, f"{name}_row")
        self.made.append(held)
        self.graph.initializer.append(held)
        lengths = self._lengths(row.shape[1:])
        self.front.append(helper.make_node("Expand", [held.name, lengths], [name]))
        self._know(name, held.data_type, row.shape[1:])
        return name

    def _know(self, name: str, kind: int, rest: Sequence[int]) -> None:
        info = helper.make_tensor_value_info(name, kind, [_FREE, *rest])
        self.known.append(info)

    def _lengths(self, rest: Sequence[int]) -> str:
        """Return the name of the number of images and these lengths."""
        inner = self._weight(rest)
        name = f"{inner}_of_all"
        self.front.append(helper.make_node("Concat", ["murank_count", inner], [name], axis=0))
        return name

    def _counted(self) -> list[Any]:
        """Return the nodes that count images and repeat constants."""
        if not self.front:
            return []
        zero = self._weight([0])
        return [
            helper.make_node("Shape", [self.images], ["murank_lengths"]),
            helper.make_node("Gather", ["murank_lengths", zero], ["murank_count"], axis=0),
            *self.front,
        ]

    def _weight(self, values: Sequence[int]) -> str:
        name = f"murank_shape_{len(self.made)}"
        made = numpy_helper.from_array(np.array(values, np.int64), name)
        self.made.append(made)
        self.graph.initializer.append(made)
        return name


_REWRITTEN = {
    "Reshape": _Freed._reshape, "Squeeze": _Freed._squeeze, "Expand": _Freed._expand,
    "Resize": _Freed._resize,
}  # fmt: skip


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large weights are inputs of a shape, for inference again and again."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    graph = light.graph
    weights = {one.name for one in model.graph.initializer}
    graph.name = "light"
    graph.node.extend(model.graph.node)
    graph.input.extend(one for one in model.graph.input if one.name not in weights)
    for one in model.graph.initializer:
        if int(np.prod(one.dims)) <= SMALL:
            graph.initializer.append(one)
        else:
            info = helper.make_tensor_value_info(one.name, one.data_type, list(one.dims))
            graph.input.append(info)
    return light


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Return the shapes that inference finds; None: a length that is not known."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: dict[str, Shape] = {one.name: list(one.dims) for one in graph.initializer}
    for one in (*graph.input, *graph.value_info, *graph.output):
        if rank(one) is not None:
            found[one.name] = dims(one)
    return found


def _free_axes(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Return which axis of a value grows with the batch, and its type.

    It is one of the batch's name, or of no known length.
    """
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {}
    for one in (*graph.input, *graph.value_info):
        lengths = one.type.tensor_type.shape.dim
        named = [k for k, dim in enumerate(lengths) if dim.dim_param == _FREE]
        unknown = [k for k, dim in enumerate(lengths) if not dim.HasField("dim_value")]
        if unknown:
            found[one.name] = (named or unknown)[0], one.type.tensor_type.elem_type
    return found


def _place(goal: Sequence[int], axis: int, fixed: Sequence[int], count: int) -> int | None:
    """Return which length of a Reshape's goal grows with `axis` of its input; None: not known.

    Lengths before the batch stay before it. One that stands for the batch alone is preferred to one
    that it is only a part of; rows of a matrix are what all axes but the last were.
    """
    before = int(np.prod(fixed[:axis]))
    if len(goal) == 2 and before > 1:
        return 0
    first = next((k for k in range(len(goal)) if int(np.prod(goal[:k])) == before), None)
    if first is None:
        return None
    parts = [k for k in range(first, len(goal)) if int(np.prod(goal[first : k + 1])) <= fixed[axis]]
    return next((k for k in parts if goal[k] == count), first)
